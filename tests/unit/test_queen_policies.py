"""Which policy holds for which modelcell, from the settings on."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from swarmesh.config.settings import RoutingSettings
from swarmesh.core.errors import ConflictError, InvalidValueError, ModelNotFoundError
from swarmesh.core.ids import ModelName
from swarmesh.core.policies import PolicyName
from swarmesh.core.swarm import Swarm
from swarmesh.models.catalog import Catalog
from swarmesh.queen.known_models import KnownModels
from swarmesh.queen.policies import Policies
from swarmesh.wire.policies import PolicyChange

QWEN = ModelName("qwen")


def policies_at(home: Path, **modelcells: PolicyName) -> tuple[Swarm, Policies]:
    Catalog(home).add_python_class(QWEN, "m:Class", added_at=0.0)
    of_models = {ModelName(name): policy for name, policy in modelcells.items()}
    swarm = Swarm(policy=PolicyName.FORAGING, policies=of_models)
    settings = RoutingSettings(PolicyName.FORAGING, dict(modelcells))
    return swarm, Policies(swarm, KnownModels(swarm.fleet, home), settings)


def test_settings_for_an_unknown_modelcell_are_warned_of(tmp_path: Path) -> None:
    with capture_logs() as logs:
        policies_at(tmp_path, qwen=PolicyName.SWARM, nosuch=PolicyName.SWARM)
    assert [(each["event"], each["modelcell"]) for each in logs] == [("policy_of_unknown_modelcell", "nosuch")]


def test_a_policy_of_its_own_is_taken_away(tmp_path: Path) -> None:
    swarm, policies = policies_at(tmp_path, qwen=PolicyName.SWARM, nosuch=PolicyName.SWARM)
    (swarm_view,) = (view for view in policies.views() if view.modelcells)
    assert (swarm_view.modelcells, swarm_view.unknown) == (("nosuch", "qwen"), ("nosuch",))
    views = policies.use(PolicyChange(None, "qwen"))
    assert {view.name: view.modelcells for view in views if view.modelcells} == {"swarm": ("nosuch",)}
    assert swarm.router.policy_of(QWEN) is PolicyName.FORAGING
    policies.use(PolicyChange(None, "nosuch"))
    for change, refused in (
        (PolicyChange(None, "qwen"), ConflictError),
        (PolicyChange(None, "nosuch"), ModelNotFoundError),
        (PolicyChange(None), InvalidValueError),
    ):
        with pytest.raises(refused):
            policies.use(change)
