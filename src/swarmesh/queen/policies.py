"""Which policy chooses the rustbees of which modelcell."""

from __future__ import annotations

import difflib

import structlog

from swarmesh.config.settings import RoutingSettings
from swarmesh.core.errors import ConflictError, InvalidValueError
from swarmesh.core.ids import ModelName
from swarmesh.core.policies import DESCRIPTIONS, PolicyName
from swarmesh.core.swarm import Swarm
from swarmesh.queen.known_models import KnownModels
from swarmesh.wire.policies import PolicyChange, PolicyView

log = structlog.get_logger("policies")


class Policies:
    """Begins with the settings' choice; what is changed here holds until the queen is started anew."""

    def __init__(self, swarm: Swarm, models: KnownModels, settings: RoutingSettings) -> None:
        self._swarm = swarm
        self._models = models
        self._active = settings.policy
        self._of_models = {ModelName(name): policy for name, policy in settings.modelcells.items()}
        for name in settings.modelcells:
            if not models.resolve(name)[1]:
                log.warning("policy_of_unknown_modelcell", modelcell=name, table="[routing.modelcells]")

    def views(self) -> list[PolicyView]:
        """Every policy there is."""
        return [self._view(policy, description) for policy, description in DESCRIPTIONS.items()]

    def use(self, change: PolicyChange) -> list[PolicyView]:
        """Choose by another policy from the next task on.

        Raises:
            InvalidValueError: There is no such policy.
            ConflictError: The modelcell has none of its own that could be taken away.
            ModelNotFoundError: There is no such modelcell.
        """
        if change.policy is None:
            return self._unset(change.modelcell)
        policy = policy_named(change.policy)
        if not change.modelcell:
            self._active = policy
            self._swarm.set_policy(None, policy)
            return self.views()
        model = self._named(change.modelcell)
        self._of_models[model] = policy
        self._swarm.set_policy(model, policy)
        return self.views()

    def _view(self, policy: PolicyName, description: str) -> PolicyView:
        names = sorted(name for name, own in self._of_models.items() if own is policy)
        unknown = tuple(name for name in names if not self._models.has(name))
        return PolicyView(policy.value, description, policy is self._active, tuple(names), unknown)

    def _unset(self, modelcell: str) -> list[PolicyView]:
        if not modelcell:
            raise InvalidValueError(
                "what holds for every other modelcell cannot be taken away",
                hint="Choose another: 'swarmesh policy use NAME'.",
                param="policy",
            )
        model = ModelName(modelcell) if modelcell in self._of_models else self._named(modelcell)
        if self._of_models.pop(model, None) is None:
            raise ConflictError(
                f"{model!r} has no policy of its own", hint="'swarmesh policy list' shows who has.", param="modelcell"
            )
        self._swarm.set_policy(model, None)
        return self.views()

    def _named(self, modelcell: str) -> ModelName:
        model, known = self._models.resolve(modelcell)
        if not known:
            raise self._models.not_found(modelcell, param="modelcell")
        return model


def policy_named(name: str) -> PolicyName:
    """The policy of that name.

    Raises:
        InvalidValueError: There is none; the hint names the nearest.
    """
    if name in set(PolicyName):
        return PolicyName(name)
    near = difflib.get_close_matches(name, [each.value for each in PolicyName], n=1, cutoff=0.0)
    raise InvalidValueError(f"no policy is called {name!r}", hint=f"Did you mean {near[0]!r}?", param="policy")
