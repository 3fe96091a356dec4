"""Agents that say nothing: a stream, a whole host, a client that only reads slowly. Ticks are short here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from queen_rig import FLOW, RUSTBEES, TOKENS, Rig, running_queen
from scripted_worker import ScriptedAgent, ScriptedWorker, chat_chunk, completion, delta, done, end_mark, holds, token
from swarmesh.queen import control_links, process, vigil
from swarmesh.wire.sse import SseReader

NewAgent = Callable[[str], Awaitable[ScriptedAgent]]
NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]
Turn = Callable[[], Awaitable[None]]

TICK_S = 0.05


@pytest.fixture
async def quick_rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """A queen to whom 0.3 s are a silent stream, and 0.5 s a silent agent."""
    monkeypatch.setattr(vigil, "TICK_S", TICK_S)
    monkeypatch.setattr(control_links, "RETRY_S", 0.02)
    monkeypatch.setattr(process, "AMNESTY_MS", 0)
    async with running_queen(tmp_path / "home") as running:
        yield running


async def one_agent(rig: Rig, new_agent: NewAgent, number: int, **fields: Any) -> ScriptedAgent:
    agent = await new_agent(f"rustbee-{number}")
    agent.behaviour = holds
    await rig.register(agent, **fields)
    return agent


async def statuses(rig: Rig) -> dict[str, str]:
    listed = (await rig.json("GET", RUSTBEES))["rustbees"]
    return {rustbee["rustbee_id"]: rustbee["status"] for rustbee in listed}


async def alarms(rig: Rig, codes: list[str]) -> bool:
    """Whether these are all there are; they are on disk a moment after they were raised."""
    return [alarm["code"] for alarm in (await rig.json("GET", "/v2/swarmesh/alarms"))["alarms"]] == codes


async def test_a_silent_stream_moves_and_its_agent_is_told(quick_rig: Rig, new_agent: NewAgent, until: Until) -> None:
    rig = quick_rig
    first, second = await one_agent(rig, new_agent, 1), await one_agent(rig, new_agent, 2)
    second.pings = True
    client = await rig.start_chat(stream=True)
    call = await first.call()
    call.events(chat_chunk(1, "one", 1, first=True))
    await client.read_head()
    read = await client.read_chunk()
    await call.wait_gone()
    again = await second.call()
    assert again.resume is not None
    assert again.resume["last_seq"] == 1
    assert (await statuses(rig))["rustbee-1"] == "suspect", "its control link lives"
    again.events(chat_chunk(2, " two", 2))
    for _ in range(20):  # A whole second of nothing but pings: a long prompt, say.
        read += await client.read_chunk()
    again.last(chat_chunk(3, "", finish="stop"), end_mark(4))
    while part := await client.read_chunk():
        read += part
    assert [event.seq for event in SseReader().feed(read)] == [1, 2, 3, 4]
    assert len(second.calls) == 1
    await until(rig.is_idle)


async def test_an_agent_that_never_answers_is_silent_too(quick_rig: Rig, new_agent: NewAgent, until: Until) -> None:
    first, second = await one_agent(quick_rig, new_agent, 1), await one_agent(quick_rig, new_agent, 2)
    client = await quick_rig.start_chat(stream=True)
    await (await first.call()).wait_gone()
    (await second.call()).last(chat_chunk(1, "", finish="stop"), end_mark(2))
    assert (await client.read_answer()).headers["x-swarmesh-attempts"] == "2"
    await until(quick_rig.is_idle)


async def test_who_promises_no_signs_of_life_may_be_silent(
    quick_rig: Rig, new_agent: NewAgent, new_worker: NewWorker, until: Until
) -> None:
    agent, foreign = await one_agent(quick_rig, new_agent, 1, slots=1), await new_worker()
    foreign.behaviour = holds
    whole = await quick_rig.start_chat()  # Not a stream: an agent answers it when it is whole.
    await agent.call()
    await quick_rig.adopt(foreign)
    stream = await quick_rig.start_chat(stream=True)
    theirs = await foreign.call()
    ticks = 0
    original = quick_rig.queen._vigil._tick

    def count() -> None:
        nonlocal ticks
        ticks += 1
        original()

    quick_rig.queen._vigil._tick = count  # type: ignore[method-assign]
    await until(lambda: ticks > 2 * vigil.SILENT_TICKS_MAX)
    agent.calls[0].json(200, completion())
    theirs.tokens("one")
    theirs.end()
    assert (await whole.read_answer()).headers["x-swarmesh-attempts"] == "1"
    answer = await stream.read_answer()
    assert (answer.headers["x-swarmesh-attempts"], delta("one") in answer.body) == ("1", True)
    await until(quick_rig.is_idle)


async def test_a_slow_client_is_not_a_silent_agent(
    quick_rig: Rig, new_agent: NewAgent, until: Until, turn: Turn
) -> None:
    agent, other = await one_agent(quick_rig, new_agent, 1), await one_agent(quick_rig, new_agent, 2)
    client = await quick_rig.start_chat(stream=True)
    call = await agent.call()
    answers = [watch for watch in quick_rig.queen._vigil._watched if not isinstance(watch, control_links.ControlLink)]
    seq = 0
    while not answers[0]._paused:  # type: ignore[attr-defined]
        seq += 1
        call.events(chat_chunk(seq, "x" * 60_000, seq, first=seq == 1))
        await turn()
        assert seq < 5000
    ticks = [0]
    original = answers[0].tick

    class Counted:
        def tick(self) -> None:
            ticks[0] += 1
            original()

    quick_rig.queen._vigil.remove(answers[0])
    quick_rig.queen._vigil.add(Counted())
    await until(lambda: ticks[0] > 2 * vigil.SILENT_TICKS_MAX)
    call.last(chat_chunk(seq + 1, "", finish="stop"), end_mark(seq + 2))
    await client.read_head()
    events = [event async for event in client.events()]
    assert [event.seq for event in events] == list(range(1, seq + 3))
    assert not other.calls


async def test_a_silent_nectarflow_moves(quick_rig: Rig, new_agent: NewAgent, until: Until) -> None:
    first, second = await one_agent(quick_rig, new_agent, 1), await one_agent(quick_rig, new_agent, 2)
    job_id = (await quick_rig.json("POST", FLOW, {"prompt": "hi"}))["job_id"]
    call = await first.call()
    call.events(token(1, "one", 1))
    again = await second.call()
    assert again.resume == {"last_seq": 1, "text": "one", "token_ids": [1]}
    again.last(token(2, " two", 2), done(3, job_id, 3, 2))
    await until(quick_rig.is_idle)
    assert (await quick_rig.json("GET", f"{TOKENS}/{job_id}"))["text"] == "one two"
    await until(lambda: first.deleted == [(job_id, "1")])


async def test_a_silent_host_is_dead_until_it_is_heard(quick_rig: Rig, new_agent: NewAgent, until: Until) -> None:
    rig = quick_rig
    first, second = await one_agent(rig, new_agent, 1), await one_agent(rig, new_agent, 2)
    first.pings = second.pings = True
    await until(lambda: first.watchers and second.watchers)
    client = await rig.start_chat(stream=True)
    call = await first.call()
    call.events(chat_chunk(1, "one", 1, first=True))
    await client.read_head()
    read = await client.read_chunk()
    first.mute = True  # Only the control link: the stream is pinged as before.
    again = await second.call()
    again.events()  # It is pinged from here on, however long the rest takes.
    await call.wait_gone()
    assert (await statuses(rig))["rustbee-1"] == "dead"
    await until(lambda: alarms(rig, ["rustbee_silent"]))
    again.last(chat_chunk(2, "", finish="stop"), end_mark(3))
    while part := await client.read_chunk():
        read += part
    assert [event.seq for event in SseReader().feed(read)] == [1, 2, 3]
    opened = len(first.watchers)
    await until(lambda: len(first.watchers) > opened, "it is tried again, also when nothing says that it broke")
    await rig.report("/waggle", first, status="healthy")
    assert rig.swarm.fleet.get(first.worker_id).silent  # type: ignore[arg-type,union-attr]
    first.mute = False
    await until(lambda: not rig.swarm.fleet.get(first.worker_id).silent)  # type: ignore[arg-type,union-attr]
    await rig.report("/waggle", first, status="healthy")
    assert (await statuses(rig))["rustbee-1"] == "healthy"
    clients = [await rig.start_chat() for _ in range(4)]  # One that is busy leaves them to the one heard again.
    await until(lambda: len(first.calls) + len(second.calls) == 6)
    assert len(first.calls) > 1
    for call in (*first.calls[1:], *second.calls[1:]):
        call.json(200, completion())
    assert {(await client.read_answer()).status for client in clients} == {200}
    await until(rig.is_idle)


async def test_a_host_that_cannot_be_reached_is_silent_too(quick_rig: Rig, new_agent: NewAgent, until: Until) -> None:
    agent = await one_agent(quick_rig, new_agent, 1)
    await until(lambda: agent.watchers)
    await agent.stop()
    await until(lambda: [worker.status.value for worker in quick_rig.swarm.fleet] == ["dead"])
    await agent.start()
    await until(lambda: not quick_rig.swarm.fleet.get(agent.worker_id).silent)  # type: ignore[arg-type,union-attr]


async def test_a_cut_is_noticed_at_once_and_heals(quick_rig: Rig, new_agent: NewAgent, until: Until) -> None:
    rig = quick_rig
    first, second = await one_agent(rig, new_agent, 1), await one_agent(rig, new_agent, 2)
    await until(lambda: first.watchers)
    client = await rig.start_chat(stream=True)
    call = await first.call()
    call.events(chat_chunk(1, "one", 1, first=True))
    await client.read_head()
    read = await client.read_chunk()
    await rig.json("POST", f"{RUSTBEES}/rustbee-1/cut", {"seconds": 300.0})
    again = await second.call()
    again.last(chat_chunk(2, "", finish="stop"), end_mark(3))
    while part := await client.read_chunk():
        read += part
    assert [event.seq for event in SseReader().feed(read)] == [1, 2, 3]
    await until(lambda: rig.swarm.fleet.get(first.worker_id).status.value == "dead")  # type: ignore[arg-type,union-attr]
    await rig.json("POST", f"{RUSTBEES}/rustbee-1/cut", {"seconds": 0.1})  # In place of the one before.
    await until(lambda: not rig.swarm.fleet.get(first.worker_id).silent)  # type: ignore[arg-type,union-attr]
    await until(rig.is_idle)


async def test_nothing_stays_under_watch_of_a_worker_that_is_gone(
    quick_rig: Rig, new_agent: NewAgent, until: Until
) -> None:
    agent = await one_agent(quick_rig, new_agent, 1)
    await until(lambda: agent.watchers)
    assert len(quick_rig.queen._vigil._watched) == len(quick_rig.queen._control._links) == 1
    quick_rig.queen._workers.goodbye(agent.worker_id, "it ended")  # type: ignore[arg-type]
    await until(lambda: not quick_rig.queen._vigil._watched and not quick_rig.queen._control._links)
    await until(lambda: all(watcher.finished for watcher in agent.watchers))
    assert json.dumps((await quick_rig.json("GET", RUSTBEES))["rustbees"]) == "[]"


async def test_a_suspect_that_lives_is_asked_how_it_is(quick_rig: Rig, new_agent: NewAgent, until: Until) -> None:
    rig = quick_rig
    first = await one_agent(rig, new_agent, 1)
    await until(lambda: len(first.watchers) == 1)
    client = await rig.start_chat(stream=True)
    call = await first.call()
    call.cut()
    await until(lambda: rig.swarm.fleet.get(first.worker_id).status.value == "suspect")  # type: ignore[arg-type,union-attr]
    await until(lambda: len(first.watchers) == 2, "who begins to watch is told at once")
    await client.close()
