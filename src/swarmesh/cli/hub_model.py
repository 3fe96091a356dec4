"""A modelcell that is named by where it can be downloaded: the queen fetches it once, and gives it a name."""

from __future__ import annotations

from swarmesh.cli.waiting import step_lines
from swarmesh.client import Swarmesh
from swarmesh.core.ids import LOCAL_HOST
from swarmesh.models import hub


def downloaded(swarm: Swarmesh, modelcell: str) -> str:
    """The name of a modelcell; one that is an ``hf:`` reference is downloaded first, with its steps shown.

    Raises:
        RemoteError: It could not be downloaded.
    """
    if not modelcell.startswith(hub.SCHEME):
        return modelcell
    with step_lines() as show:
        return swarm.copy_model(modelcell, LOCAL_HOST, on_step=show).modelcell
