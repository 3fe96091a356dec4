"""Tasks that go on in an agent for nobody, because it could not be told in time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from queen_rig import FLOW, Rig, running_queen
from scripted_worker import ScriptedAgent, done, holds, token
from swarmesh.queen import control_links, vigil

NewAgent = Callable[[str], Awaitable[ScriptedAgent]]
Until = Callable[..., Awaitable[Any]]
CUT = "/v2/swarmesh/rustbees/rustbee-1/cut"


@pytest.fixture
async def quick_rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """A queen to whom 0.3 s are a silent stream, and 0.5 s a silent agent."""
    monkeypatch.setattr(vigil, "TICK_S", 0.05)
    monkeypatch.setattr(control_links, "RETRY_S", 0.02)
    async with running_queen(tmp_path / "home") as running:
        yield running


async def test_an_agent_is_told_when_it_is_heard_again(quick_rig: Rig, new_agent: NewAgent, until: Until) -> None:
    rig = quick_rig
    first = await new_agent("rustbee-1")
    first.behaviour, first.pings = holds, True
    await rig.register(first)
    job_id = (await rig.json("POST", FLOW, {"prompt": "hi", "modelcell": "fake"}))["job_id"]
    (await first.call()).events(token(1, "one", 1))
    second = await new_agent("rustbee-2")
    second.behaviour, second.pings = holds, True
    await rig.register(second)
    await rig.json("POST", CUT, {"seconds": 300.0})
    again = await second.call()
    again.last(token(2, " two", 2), done(3, job_id, 1, 2))
    await until(lambda: rig.swarm.fleet.get(first.worker_id).silent)  # type: ignore[arg-type,union-attr]
    assert first.deleted == [], "it cannot be told"
    await rig.json("POST", CUT, {"seconds": 0.1})  # In place of the one before.
    await until(lambda: first.deleted == [(job_id, "1")], "and now it does")
    await until(rig.is_idle)
    assert second.deleted == []
    link = rig.queen._driver.links.get(first.worker_id)  # type: ignore[arg-type]
    assert link is not None
    await until(lambda: not link._abandoned, "it is told once")


async def test_an_agent_that_was_out_of_reach_for_a_moment_is_told_too(
    quick_rig: Rig, new_agent: NewAgent, until: Until
) -> None:
    rig = quick_rig
    first, second = await new_agent("rustbee-1"), await new_agent("rustbee-2")
    for agent in (first, second):
        agent.behaviour, agent.pings = holds, True
    await rig.register(first)
    await until(lambda: first.watchers)
    job_id = (await rig.json("POST", FLOW, {"prompt": "hi", "modelcell": "fake"}))["job_id"]
    (await first.call()).events(token(1, "one", 1))
    await until(lambda: rig.queen._flows._flows[job_id].rows)
    await rig.register(second)
    await rig.json("POST", CUT, {"seconds": 0.1})  # Too short for the silence of a host.
    (await second.call()).last(token(2, " two", 2), done(3, job_id, 1, 2))
    await until(lambda: first.deleted == [(job_id, "1")], "what did not arrive is said again")
    await until(rig.is_idle)
