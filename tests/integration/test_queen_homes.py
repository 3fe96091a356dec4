"""A host speaks for its own workers only, and a worker that was stopped before it ran does not come after all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from queen_rig import RUSTBEES, Rig
from raw_client import Answer, ask_once
from scripted_worker import ScriptedAgent
from swarmesh.config.worker_key import worker_key, worker_secret
from swarmesh.core.errors import ConflictError, ForbiddenError
from swarmesh.core.fleet import Fleet
from swarmesh.core.ids import WorkerId
from swarmesh.queen.worker_homes import WORKERS_PER_HOST_MAX, WorkerHomes

NewAgent = Callable[[str], Awaitable[ScriptedAgent]]
BEE = "rustbee-1"


async def as_host(rig: Rig, method: str, path: str, **body: Any) -> Answer:
    """What another host says with the key it makes for a worker's id."""
    keys = rig.queen._hosts._keys
    key = worker_key(keys.add_host("far", 7), BEE)
    return await ask_once(rig.url, method, path, body or None, {"authorization": f"Bearer {key}"})


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v2/swarmesh/rustbee", {"modelcell": "fake", "location": "unix:/tmp/mine.sock"}),
        ("POST", "/v2/swarmesh/waggleproto", {"load": 1.0}),
        ("POST", "/callback/error", {"code": "engine_crashed", "message": "dead"}),
        ("DELETE", f"/v2/swarmesh/rustbee/{BEE}", {}),
    ],
)
async def test_a_host_says_nothing_for_another_ones_worker(
    rig: Rig, new_agent: NewAgent, method: str, path: str, body: dict[str, Any]
) -> None:
    agent = await new_agent(BEE)
    await rig.register(agent)
    before = await rig.rustbee(BEE)
    answer = await as_host(rig, method, path, **({"rustbee_id": BEE, **body} if body else {}))
    assert (answer.status, answer.error["code"]) == (403, "forbidden")
    after = await rig.rustbee(BEE)
    assert {**before, "uptime_s": 0} == {**after, "uptime_s": 0}


async def test_an_epoch_beyond_all_queens_is_refused(rig: Rig, new_agent: NewAgent) -> None:
    agent = await new_agent(BEE)
    body = {"rustbee_id": BEE, "modelcell": "fake", "location": agent.url, "epoch": 10**30}
    key = worker_key(worker_secret(rig.home), BEE)
    answer = await ask_once(rig.url, "POST", "/v2/swarmesh/rustbee", body, {"authorization": f"Bearer {key}"})
    assert answer.status == 400
    assert (await rig.json("GET", RUSTBEES))["rustbees"] == []


def test_the_first_to_come_has_the_id_and_one_host_has_only_so_many() -> None:
    homes = WorkerHomes(Fleet())
    homes.settle(WorkerId("a"), "mac")
    homes.settle(WorkerId("a"), "mac")
    with pytest.raises(ForbiddenError):
        homes.settle(WorkerId("a"), "oak")
    homes.forget(WorkerId("a"))
    homes.settle(WorkerId("a"), "oak")
    for number in range(WORKERS_PER_HOST_MAX):
        homes.settle(WorkerId(f"m{number}"), "mac")
    with pytest.raises(ConflictError):
        homes.settle(WorkerId("one more"), "mac")
    homes.recall(WorkerId("known"), "mac")


async def test_a_worker_stopped_before_it_ran_is_sent_away(rig: Rig, new_agent: NewAgent, until: Any) -> None:
    agent = await new_agent(BEE)
    starts = rig.queen._starts
    starts._unwanted[WorkerId(BEE)] = None
    answer = await rig.ask(
        "POST", "/v2/swarmesh/rustbee", {"rustbee_id": BEE, "modelcell": "fake", "location": agent.url}
    )
    assert (answer.status, answer.error["code"]) == (409, "conflict")
    assert (await rig.json("GET", RUSTBEES))["rustbees"] == []
