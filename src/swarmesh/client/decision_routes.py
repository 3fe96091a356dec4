"""Requests about how the swarm decides, and why it did; see `swarmesh.client.routes`."""

from __future__ import annotations

import msgspec

from swarmesh.client.call import Call
from swarmesh.client.routes import BASE, reader, segment
from swarmesh.wire.explain import RefusalExplained, TaskExplained
from swarmesh.wire.policies import PolicyChange, PolicyList, PolicyView
from swarmesh.wire.swarmscale import PlacementExplained, ScaleExplained


def policies() -> Call[list[PolicyView]]:
    """Every policy by which rustbees can be chosen, and which one holds for what."""
    return Call("GET", f"{BASE}/policies", _read_policies)


def use_policy(policy: str, *, modelcell: str = "") -> Call[list[PolicyView]]:
    """Choose by another policy from the next task on, for one modelcell or for all that have none of their own.

    It holds until the queennode is started anew; ``[routing]`` in her ``swarmesh.toml`` says it for good.
    """
    body = msgspec.json.encode(PolicyChange(policy, modelcell))
    return Call("PUT", f"{BASE}/policies", _read_policies, body=body)


def unset_policy(modelcell: str) -> Call[list[PolicyView]]:
    """Take a modelcell's own policy away: that of all others holds for it from the next task on."""
    return Call("PUT", f"{BASE}/policies", _read_policies, body=msgspec.json.encode(PolicyChange(None, modelcell)))


def explain_task(task_id: str) -> Call[TaskExplained]:
    """Why a task went where it went, and what would have changed that.

    ``task_id`` is a nectarflow's job id, what the ``x-swarmesh-task`` header of a relayed answer said, or the id of
    that answer.
    """
    return Call("GET", f"{BASE}/explain/task/{segment(task_id, 'task_id')}", reader(TaskExplained))


def explain_refusal(task_id: str) -> Call[RefusalExplained]:
    """Why a task was refused or given up, and what would have let it in.

    ``task_id`` is what the ``x-swarmesh-task`` header of the refusal said, or a nectarflow's job id.
    """
    return Call("GET", f"{BASE}/explain/refusal/{segment(task_id, 'task_id')}", reader(RefusalExplained))


def explain_placement(modelcell: str, *, last: bool = False) -> Call[PlacementExplained]:
    """Where the next rustbee of a modelcell would be started, or the ``last`` one was placed, and why there."""
    path, query = f"{BASE}/explain/placement/{segment(modelcell, 'modelcell')}", {"now": "false"} if last else {}
    return Call("GET", path, reader(PlacementExplained), query=query)


def explain_scale(modelcell: str) -> Call[ScaleExplained]:
    """How many rustbees a modelcell has, and why not more or fewer."""
    return Call("GET", f"{BASE}/explain/scale/{segment(modelcell, 'modelcell')}", reader(ScaleExplained))


def _read_policies(body: bytes) -> list[PolicyView]:
    return reader(PolicyList)(body).policies
