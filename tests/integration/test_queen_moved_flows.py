"""Nectarflows on our own agents: moved, taken up again by the next queen, and kept while the disk takes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from queen_rig import CHAT, FLOW, TOKENS, Rig, chat, running_queen
from scripted_worker import Call, ScriptedAgent, completion, done, holds, numbered, token
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.refusals import MOVES_MAX
from swarmesh.core.task import TaskStatus
from swarmesh.hosts.agent_file import AgentFile
from swarmesh.queen import flow_saver, flows, hosts, workers
from swarmesh.store.errors import StoreFullError
from swarmesh.store.sqlite import SqliteStore
from swarmesh.wire.waggle import Registration

NewAgent = Callable[[str], Awaitable[ScriptedAgent]]
Until = Callable[..., Awaitable[Any]]
Turn = Callable[[], Awaitable[None]]


async def agents(rig: Rig, new_agent: NewAgent, count: int, **fields: Any) -> list[ScriptedAgent]:
    made = [await new_agent(f"rustbee-{number}") for number in range(1, count + 1)]
    for agent in made:
        agent.behaviour = holds
        await rig.register(agent, **fields)
    return made


async def submit(rig: Rig, **fields: Any) -> str:
    return str((await rig.json("POST", FLOW, {"prompt": "hi", **fields}))["job_id"])


async def rows(rig: Rig, job_id: str, count: int, until: Until) -> None:
    await until(lambda: len(rig.queen._flows._flows[job_id].rows) == count)


async def text(rig: Rig, job_id: str) -> tuple[str, str]:
    tokens = await rig.json("GET", f"{TOKENS}/{job_id}")
    return tokens["status"], tokens["text"]


@pytest.mark.parametrize("ids", [(12, 13), ()], ids=["ids known", "ids unknown"])
async def test_another_agent_is_told_where_it_stands(
    rig: Rig, new_agent: NewAgent, until: Until, ids: tuple[int, ...]
) -> None:
    first, second = await agents(rig, new_agent, 2)
    asked = {"max_tokens": 9, "temperature": 0.5, "seed": 7, "stop": ["x"]}
    job_id = await submit(rig, **asked)
    call = await first.call()
    assert (call.path, call.resume) == ("/execute", None)
    assert {name: call.body[name] for name in asked} == asked
    call.events(token(1, "o", 11), token(2, "ne", *ids))
    await rows(rig, job_id, 2, until)
    call.raw(b"5\r\nhalf")
    call.cut()
    again = await second.call()
    known = {"token_ids": [11, 12, 13]} if ids else {}
    assert again.resume == {"last_seq": 2, "text": "one", **known}
    assert {**again.body, "resume": None} == call.body
    assert (again.headers["x-swarmesh-task"], again.headers["x-swarmesh-attempt"]) == (job_id, "2")
    assert int(again.headers["x-swarmesh-linger-s"]) > 0
    again.last(token(3, " two", 14), done(4, job_id, 3, 4))
    await until(rig.is_idle)
    assert await text(rig, job_id) == ("done", "one two")
    shown = await rig.json("GET", f"{FLOW}/{job_id}")
    assert (shown["attempts"], shown["usage"]["completion_tokens"]) == (2, 4)
    await until(lambda: first.deleted == [(job_id, "1")], "it may be there still, and go on alone")
    assert not second.deleted


async def test_events_that_were_seen_are_passed_over_and_a_gap_is_garbage(
    rig: Rig, new_agent: NewAgent, until: Until
) -> None:
    first, second = await agents(rig, new_agent, 2)
    job_id = await submit(rig)
    call = await first.call()
    call.events(token(1, "a", 1), token(1, "a", 1), token(2, "b", 2), token(4, "d", 4))
    again = await second.call()
    assert again.resume is not None
    assert again.resume["text"] == "ab"
    again.last(token(2, "b", 2), token(3, "c", 3), done(4, job_id, 1, 3))
    await until(rig.is_idle)
    assert await text(rig, job_id) == ("done", "abc")


async def test_it_is_given_up_after_three_moves(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    all_five = await agents(rig, new_agent, 5)
    job_id = await submit(rig)
    for number, agent in enumerate(all_five[: MOVES_MAX + 1], start=1):
        call = await agent.call()
        call.events(token(number, str(number), number))
        await rows(rig, job_id, number, until)
        call.cut()
    await until(rig.is_idle)
    shown = await rig.json("GET", f"{FLOW}/{job_id}")
    assert (shown["status"], shown["error"]["code"], shown["attempts"]) == ("failed", "rustbee_lost", MOVES_MAX + 1)
    assert await text(rig, job_id) == ("failed", "1234")
    assert not all_five[-1].calls


@pytest.mark.parametrize("code", ["stale_epoch", "stale_attempt"])
async def test_an_agent_that_obeys_a_later_queen_is_not_the_tasks_end(
    rig: Rig, new_agent: NewAgent, until: Until, code: str
) -> None:
    first, second = await agents(rig, new_agent, 2)
    first.behaviour = lambda call: call.json(409, {"error": {"code": code, "message": "too late"}})
    second.behaviour = lambda call: (
        call.last(token(1, "one", 1), done(2, call.headers["x-swarmesh-task"], 1, 1))
        if call.path == "/execute"
        else call.json(200, completion())
    )
    job_id = await submit(rig)
    await until(rig.is_idle)
    assert await text(rig, job_id) == ("done", "one")
    assert (await rig.ask("POST", CHAT, chat())).status == 200
    assert (await rig.ask("POST", CHAT, chat())).status == 200


async def test_an_error_of_the_task_is_its_end(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    first, second = await agents(rig, new_agent, 2)
    error = {"code": "task_failed", "message": "ValueError", "hint": "", "type": "invalid_request_error"}
    job_id = await submit(rig)
    (await first.call()).last(token(1, "one", 1), numbered(2, {"error": error}, name="error"))
    await until(rig.is_idle)
    shown = await rig.json("GET", f"{FLOW}/{job_id}")
    assert (shown["status"], shown["error"]["code"]) == ("failed", "task_refused")
    assert not second.calls


async def test_who_was_given_up_is_not_listened_to(rig: Rig, new_agent: NewAgent, until: Until, turn: Turn) -> None:
    first, second = await agents(rig, new_agent, 2)
    job_id = await submit(rig)
    call = await first.call()
    call.events(token(1, "one", 1))
    await rows(rig, job_id, 1, until)
    await rig.report("/callback/error", first, code="engine_died", message="it was killed", returning=True)
    call.events(token(2, "late", 2), done(3, job_id, 1, 2))
    again = await second.call()
    await call.wait_gone()
    await turn()
    again.last(token(2, " two", 2), done(3, job_id, 1, 2))
    await until(rig.is_idle)
    assert await text(rig, job_id) == ("done", "one two")


async def test_an_attempt_is_on_disk_before_it_begins(
    rig: Rig, new_agent: NewAgent, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    (agent,) = await agents(rig, new_agent, 1)
    gate, waiting = asyncio.Event(), []
    original = SqliteStore.finish_task

    async def slow(self: SqliteStore, *arguments: Any) -> None:
        waiting.append(arguments)
        await gate.wait()
        await original(self, *arguments)

    monkeypatch.setattr(SqliteStore, "finish_task", slow)
    job_id = await submit(rig)
    await until(lambda: waiting)
    for _ in range(20):
        assert (await rig.ask("GET", "/v1/models")).status == 200
    assert not agent.calls
    gate.set()
    call = await agent.call()
    kept = await rig.queen._store.task(job_id)  # type: ignore[arg-type]
    assert kept is not None
    assert (kept.status, kept.attempts) == (TaskStatus.RUNNING, 1)
    call.last(done(1, job_id, 1, 0))
    await until(rig.is_idle)


async def test_one_that_is_cancelled_before_its_attempt_is_on_disk_never_begins(
    rig: Rig, new_agent: NewAgent, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    (agent,) = await agents(rig, new_agent, 1)
    gate = asyncio.Event()
    original = SqliteStore.finish_task

    async def slow(self: SqliteStore, *arguments: Any) -> None:
        await gate.wait()
        await original(self, *arguments)

    monkeypatch.setattr(SqliteStore, "finish_task", slow)
    job_id = await submit(rig)
    cancelling = asyncio.create_task(rig.ask("DELETE", f"{FLOW}/{job_id}"))
    await until(lambda: not rig.busy_slots)
    gate.set()
    assert (await cancelling).json()["status"] == "cancelled"
    await until(rig.is_idle)
    assert not agent.calls


async def test_one_that_is_cancelled_is_dropped_by_its_agent(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    (agent,) = await agents(rig, new_agent, 1)
    job_id = await submit(rig)
    call = await agent.call()
    assert (await rig.json("DELETE", f"{FLOW}/{job_id}"))["status"] == "cancelled"
    await call.wait_gone()
    await until(lambda: agent.deleted == [(job_id, "1")])
    await until(rig.is_idle)


# The next queen


class HomeOfAgents:
    """The host as a queen finds it again: these agents live there."""

    def __init__(self, living: list[ScriptedAgent]) -> None:
        self.living = living

    async def workers(self) -> list[AgentFile]:
        nowhere = {"pid": 1, "started_at": 1.0, "boot_id": "b", "engine_socket_path": ""}
        return [
            AgentFile(rustbee_id=agent.worker_id, modelcell="fake", socket_path=agent.url, **nowhere)  # type: ignore[arg-type]
            for agent in self.living
        ]

    async def reach(self, _worker_id: str, location: str) -> str:
        return location.removeprefix("unix:")

    async def wait_exit(self, _worker_id: str) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def living(monkeypatch: pytest.MonkeyPatch) -> list[ScriptedAgent]:
    """Agents in this list are found by queens that start."""
    found: list[ScriptedAgent] = []

    async def ask_who(agent: AgentFile, _location: str, _key: str) -> Registration:
        told = {"modelcell": "fake", "location": agent.socket_path, "status": WorkerStatus.HEALTHY, "slots": 4}
        return Registration(rustbee_id=agent.rustbee_id, **told)  # type: ignore[arg-type]

    monkeypatch.setattr(hosts, "LocalHost", lambda _home, _name: HomeOfAgents(found))
    monkeypatch.setattr(workers, "ask_who", ask_who)
    return found


async def begun(home: Path, agent: ScriptedAgent, until: Until) -> tuple[str, str]:
    """A queen lives and dies; her task has shown one token, and was at its first attempt. Its name, and her epoch."""
    async with running_queen(home) as rig:
        job_id = await submit(rig)
        call = await agent.call()
        call.events(token(1, "one", 1))
        await rows(rig, job_id, 1, until)
        await rig.queen._flows.settle()
    await call.wait_gone()
    return job_id, call.headers["x-swarmesh-epoch"]


async def test_the_next_queen_takes_up_the_stream(
    tmp_path: Path, new_agent: NewAgent, until: Until, living: list[ScriptedAgent]
) -> None:
    agent, other = await new_agent("rustbee-1"), await new_agent("rustbee-2")
    living += [agent, other]
    agent.behaviour = other.behaviour = holds
    job_id, epoch = await begun(tmp_path / "home", agent, until)
    async with running_queen(tmp_path / "home") as rig:
        call = await agent.call(1)
        assert (call.method, call.path, call.query) == ("GET", f"/execute/{job_id}", "after=1")
        assert int(call.headers["x-swarmesh-epoch"]) > int(epoch)
        call.last(token(2, " two", 2), done(3, job_id, 1, 2))
        await until(rig.is_idle)
        assert await text(rig, job_id) == ("done", "one two")
        assert (await rig.json("GET", f"{FLOW}/{job_id}"))["attempts"] == 2
    assert (len(agent.calls), other.calls) == (2, [])


@pytest.mark.parametrize("status", [404, 409])
async def test_an_agent_that_has_it_no_more_is_told_where_it_stands(
    tmp_path: Path, new_agent: NewAgent, until: Until, living: list[ScriptedAgent], status: int
) -> None:
    def forgot(call: Call) -> None:
        if call.method == "GET":
            call.json(status, {"error": {"code": "not_found", "message": "no such task"}})

    agent = await new_agent("rustbee-1")
    living.append(agent)
    agent.behaviour = forgot
    job_id, _ = await begun(tmp_path / "home", agent, until)
    async with running_queen(tmp_path / "home") as rig:
        call = await agent.call(2)
        assert [one.method for one in agent.calls] == ["POST", "GET", "POST"]
        assert call.resume == {"last_seq": 1, "text": "one", "token_ids": [1]}
        assert call.headers["x-swarmesh-attempt"] == "2"
        call.last(token(2, " two", 2), done(3, job_id, 1, 2))
        await until(rig.is_idle)
        assert await text(rig, job_id) == ("done", "one two")


async def test_a_stream_that_was_taken_up_again_may_break_too(
    tmp_path: Path, new_agent: NewAgent, until: Until, living: list[ScriptedAgent]
) -> None:
    agent, other = await new_agent("rustbee-1"), await new_agent("rustbee-2")
    living += [agent, other]
    agent.behaviour = other.behaviour = holds
    job_id, _ = await begun(tmp_path / "home", agent, until)
    async with running_queen(tmp_path / "home") as rig:
        call = await agent.call(1)
        call.events(token(2, " two", 2))
        await rows(rig, job_id, 2, until)
        call.cut()
        again = await other.call()
        assert again.resume is not None
        assert (again.method, again.resume["text"]) == ("POST", "one two")
        again.last(done(3, job_id, 1, 2))
        await until(rig.is_idle)
        assert await text(rig, job_id) == ("done", "one two")


async def test_an_agent_that_died_with_the_queen(
    tmp_path: Path, new_agent: NewAgent, until: Until, living: list[ScriptedAgent]
) -> None:
    agent, other = await new_agent("rustbee-1"), await new_agent("rustbee-2")
    agent.behaviour = other.behaviour = holds
    living.append(agent)
    job_id, _ = await begun(tmp_path / "home", agent, until)
    living[:] = [other]
    async with running_queen(tmp_path / "home") as rig:
        again = await other.call()
        assert (again.method, again.resume) == ("POST", {"last_seq": 1, "text": "one", "token_ids": [1]})
        again.last(token(2, " two", 2), done(3, job_id, 1, 2))
        await until(rig.is_idle)
        assert await text(rig, job_id) == ("done", "one two")


async def test_clients_come_back_to_the_next_queen(
    tmp_path: Path, new_agent: NewAgent, until: Until, living: list[ScriptedAgent]
) -> None:
    agent = await new_agent("rustbee-1")
    agent.behaviour = holds
    living.append(agent)
    job_id, _ = await begun(tmp_path / "home", agent, until)
    async with running_queen(tmp_path / "home") as rig:
        call = await agent.call(1)
        client = await rig.connect()
        head = {**rig.auth, "accept": "text/event-stream", "last-event-id": "1"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        client.send(f"GET {TOKENS}/{job_id} HTTP/1.1\r\nhost: t\r\n{lines}\r\n".encode())
        await client.read_head()
        call.last(token(2, " two", 2), done(3, job_id, 1, 2))
        assert [(event.seq, event.name) async for event in client.events()] == [(2, "token"), (None, "done")]


# The disk


class Disk:
    """Full while it is set; asked for every write of tasks and tokens."""

    def __init__(self) -> None:
        self.full = False
        self.refused = 0

    def check(self) -> None:
        if self.full:
            self.refused += 1
            raise StoreFullError("no space left")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(flow_saver, "RETRY_S", 0.05)
    monkeypatch.setattr(flow_saver, "FLUSH_S", 0.02)
    monkeypatch.setattr(flows, "RETRY_S", 0.05)
    for name in ("insert_task", "finish_task", "append_tokens", "update_task"):
        original = getattr(SqliteStore, name)

        def checked(original: Callable[..., Awaitable[Any]] = original) -> Callable[..., Awaitable[Any]]:
            async def write(self: SqliteStore, *arguments: Any) -> Any:
                made.check()
                return await original(self, *arguments)

            return write

        monkeypatch.setattr(SqliteStore, name, checked())
    return made


async def test_a_full_disk_stops_nothing_that_runs(
    tmp_path: Path, new_agent: NewAgent, until: Until, disk: Disk
) -> None:
    async with running_queen(tmp_path / "home") as rig:
        agent, other = await agents(rig, new_agent, 2)
        running = await submit(rig)
        calls = {running: await agent.call()}
        moving = await submit(rig)
        calls[moving] = await other.call()
        calls[running].events(token(1, "one", 1))
        await rows(rig, running, 1, until)
        await rig.queen._flows.settle()
        disk.full = True
        calls[running].events(token(2, " two", 2))
        await rows(rig, running, 2, until)
        await until(lambda: disk.refused > 1)
        refused = await rig.ask("POST", FLOW, {"prompt": "hi"}, {"idempotency-key": "k"})
        assert (refused.status, refused.error["code"]) == (507, "hivecomb_full")
        assert int(refused.headers["retry-after"]) > 0
        calls[moving].cut()
        again = await agent.call(1)  # Its attempt cannot be counted; it is made all the same.
        again.last(token(1, "moved", 1), done(2, moving, 1, 1))
        calls[running].last(done(3, running, 1, 2))
        agent.behaviour = other.behaviour = lambda call: call.json(200, completion())
        assert (await rig.ask("POST", CHAT, chat())).status == 200, "what need not be kept is served as ever"
        assert [(await text(rig, job_id))[1] for job_id in (running, moving)] == ["one two", "moved"]
        asked = disk.refused
        await until(lambda: disk.refused > asked + 3, "it is tried again and again")
        kept = await rig.queen._store.task(running)  # type: ignore[arg-type]
        assert kept is not None
        assert kept.status == TaskStatus.RUNNING
        disk.full = False
        await until(rig.is_idle)
        for job_id, said in [(running, "one two"), (moving, "moved")]:
            assert await text(rig, job_id) == ("done", said)
            assert [row.seq for row in await rig.queen._store.tokens(job_id)] == list(  # type: ignore[arg-type]
                range(1, len(said.split()) + 1)
            )
        agent.behaviour = other.behaviour = holds
        answer = await rig.ask("POST", FLOW, {"prompt": "hi"}, {"idempotency-key": "k"})
        assert answer.status == 202, "what was refused has not used up its key"
        await rig.json("DELETE", f"{FLOW}/{answer.json()['job_id']}")
        await until(rig.is_idle)
