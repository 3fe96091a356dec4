"""The agent's surface, over a real unix socket; only its engine is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rustbee_rig import make_spec
from scripted_engine import ScriptedEngine
from swarmesh.config.home import Home
from swarmesh.core.errors import TaskRefusedError
from swarmesh.engines.engine import Done, Token
from swarmesh.engines.engine_exit import EndCode
from swarmesh.engines.errors import EngineDiedError
from swarmesh.hosts.process_identity import ProcessIdentity
from swarmesh.net.address import Address
from swarmesh.net.client import BUFFERED_BYTES_MAX, HttpClient, Response, UpstreamError
from swarmesh.net.server import HttpServer
from swarmesh.wire.flow import Usage
from swarmesh.wire.resume import Resume
from swarmesh.wire.sse import PING, SseEvent, SseReader
from swarmesh.wire.waggle import Registration, Waggle
from swarmesh.worker import pinged_stream, routes, supervisor, watch
from swarmesh.worker.meter import Meter
from swarmesh.worker.routes import Routes
from swarmesh.worker.self_report import SelfReport
from swarmesh.worker.supervisor import Supervisor
from swarmesh.worker.watchdog import WatchdogPolicy

DONE = Done("stop", Usage(1, 2, 3))
Until = Callable[..., Awaitable[Any]]
TASK = b'{"prompt":"hi"}'


def now_s() -> float:
    """The clock that the routes use."""
    return asyncio.get_running_loop().time()


class Desk:
    """An agent's routes with everything behind them."""

    def __init__(self, folder: Path, until: Until) -> None:
        self.until = until
        self.engine = ScriptedEngine()
        self.path = str(folder / "a.sock")
        self.meter = Meter()
        asleep = WatchdogPolicy(look_interval_s=10_000.0, ask_interval_s=10_000.0)
        self.supervisor = Supervisor(lambda: self.engine, self, self.meter, watchdog=asleep)
        spec = make_spec(Home(folder), key="the key")
        report = SelfReport(spec, ProcessIdentity(1, 1.0, "boot"), self.supervisor, self.meter)
        self.stopped = 0
        self.deserted = 0
        self.failed: list[str] = []
        self.ready = asyncio.Event()
        self.routes = Routes("the key", self.supervisor, self.meter, report, self.stop, self.desert)
        self.server = HttpServer(self.routes)
        self.client = HttpClient(Address(path=self.path), headers=[(b"authorization", b"Bearer the key")])

    def engine_changed(self) -> None:
        self.ready.set()

    def engine_failed(self, code: str, message: str, *, returning: bool) -> None:
        self.failed.append(code)

    def desert(self) -> None:
        self.deserted += 1

    def stop(self) -> None:
        self.stopped += 1

    async def free(self) -> None:
        await self.until(lambda: not self.meter.busy, "the slot is free")

    def give(self, *events: Any) -> None:
        for event in events:
            self.engine.events.put_nowait(event)

    @asynccontextmanager
    async def task(self, body: bytes = TASK, **headers: str) -> AsyncIterator[Response]:
        named = [(f"x-swarmesh-{name.replace('_', '-')}".encode(), value.encode()) for name, value in headers.items()]
        async with self.client.stream("POST", "/execute", body, named) as response:
            yield response

    async def ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        named = [(f"x-swarmesh-{name}".encode(), value.encode()) for name, value in headers.items()]
        status, answer = await self.client.request(method, target, body, headers=named)
        return status, msgspec.json.decode(answer)


@pytest.fixture
async def desk(tmp_path: Path, until: Until) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path, until)
    await desk.server.listen(path=desk.path)
    supervising = asyncio.create_task(desk.supervisor.run())
    await desk.ready.wait()
    yield desk
    desk.routes.cancel_all()
    desk.client.close()
    supervising.cancel()
    await asyncio.gather(supervising, return_exceptions=True)
    await desk.server.close()


async def read_into(response: Response, events: list[SseEvent]) -> None:
    reader = SseReader()
    async for data in response.chunks():
        events += reader.feed(data)


async def read(response: Response) -> list[SseEvent]:
    events: list[SseEvent] = []
    await read_into(response, events)
    return events


async def test_a_task_is_numbered_events_with_token_ids(desk: Desk) -> None:
    desk.give(Token("a", (5, 6)), Token("ä", (7,)), DONE, None)
    async with desk.task(task="job-1") as response:
        assert response.status == 200
        raw = await response.read()
    assert raw == (
        b'id: 1\n: t 5,6\nevent: token\ndata: {"text":"a"}\n\n'
        + 'id: 2\n: t 7\nevent: token\ndata: {"text":"ä"}\n\n'.encode()
        + b'id: 3\n: u 1,-1,2\nevent: done\ndata: {"job_id":"job-1","finish_reason":"stop",'
        b'"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'
    )
    assert desk.engine.requests[0].prompt == "hi"
    assert desk.meter.busy == 0
    assert desk.meter.quality(now_s()) == 1.0


async def test_every_route_asks_for_the_key(desk: Desk) -> None:
    stranger = HttpClient(Address(path=desk.path), headers=[(b"authorization", b"Bearer another")])
    for method, target in (("GET", "/health"), ("POST", "/execute"), ("GET", "/v1/models"), ("POST", "/stop")):
        status, body = await stranger.request(method, target)
        assert (status, msgspec.json.decode(body)["error"]["code"]) == (401, "invalid_api_key")
    stranger.close()
    assert desk.stopped == 0


async def test_health_can_be_read_as_a_waggle_and_as_a_registration(desk: Desk) -> None:
    for method in ("GET", "POST"):
        status, body = await desk.client.request(method, "/health")
        assert status == 200
        waggle = msgspec.json.decode(body, type=Waggle)
        assert (waggle.load, waggle.slots, waggle.vram_used, waggle.engine_pid) == (0.0, 2, 7, 100)
        assert msgspec.json.decode(body, type=Registration).boot_id == "boot"
    desk.supervisor.drain()
    status, health = await desk.ask("GET", "/health")
    assert (status, health["status"]) == (503, "draining")


async def test_busy_slots_are_load(desk: Desk) -> None:
    desk.give(Token("a"))
    async with desk.task():
        assert (await desk.ask("GET", "/health"))[1]["load"] == 0.5
    await desk.free()
    assert (await desk.ask("GET", "/health"))[1]["load"] == 0.0


async def test_a_client_that_leaves_frees_the_slot(desk: Desk) -> None:
    desk.give(Token("a"))
    async with desk.task(task="job-1"):
        assert desk.engine.running == 1
    await desk.free()
    assert (desk.engine.running, desk.engine.left) == (0, 1)
    assert desk.meter.quality(now_s()) == 1.0


async def test_a_task_is_cancelled_by_name(desk: Desk) -> None:
    desk.give(Token("a"))
    async with desk.task(task="job-1") as response:
        assert (await desk.ask("DELETE", "/execute/job-1"))[0] == 202
        with pytest.raises(UpstreamError):
            await response.read()
    await desk.free()
    assert desk.engine.left == 1


async def test_a_refusal_is_an_answer_with_its_own_status(desk: Desk) -> None:
    desk.give(TaskRefusedError("too long"))
    status, answer = await desk.ask("POST", "/execute", TASK)
    assert (status, answer["error"]["code"], answer["error"]["message"]) == (400, "task_refused", "too long")
    assert desk.meter.quality(now_s()) == 1.0


async def test_a_refusal_in_the_middle_ends_the_stream_properly(desk: Desk) -> None:
    desk.give(Token("a"), TaskRefusedError("cannot go on"))
    async with desk.task() as response:
        events = await read(response)
    assert [event.name for event in events] == ["token", "error"]
    assert msgspec.json.decode(events[-1].data)["error"]["message"] == "cannot go on"
    assert [event.seq for event in events] == [1, 2]


async def test_an_engine_that_dies_never_looks_like_a_whole_answer(desk: Desk) -> None:
    desk.give(Token("a"), EngineDiedError("the engine broke off"))
    events: list[SseEvent] = []
    async with desk.task() as response:
        with pytest.raises(UpstreamError):
            await read_into(response, events)
    assert [event.name for event in events] == ["token", "error"]
    assert msgspec.json.decode(events[-1].data)["error"]["code"] == "engine_died"
    assert desk.meter.quality(now_s()) == pytest.approx(0.5, abs=0.01)


async def test_a_task_whose_engine_crashed_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "END_WAIT_S", 30.0)  # However late this process has its turn.
    desk.give(Token("a"))
    async with desk.task() as response:
        desk.engine.die("killed by signal 6", EndCode.CRASHED)
        desk.give(EngineDiedError("the engine broke off"))
        events: list[SseEvent] = []
        with pytest.raises(UpstreamError):
            await read_into(response, events)
    error = msgspec.json.decode(events[-1].data)["error"]
    assert (events[-1].name, error["code"], error["message"]) == ("error", "engine_crashed", "the engine broke off")
    assert desk.failed[0] == "engine_crashed"


async def test_a_task_that_is_resumed_goes_on_with_its_numbers(desk: Desk) -> None:
    body = b'{"prompt":"hi","resume":{"last_seq":7,"text":"shown","token_ids":[1,2]}}'
    desk.give(Token("a"), Token("b"), DONE, None)
    async with desk.task(body, task="job-1", attempt="2") as response:
        assert [event.seq for event in await read(response)] == [8, 9, 10]
    assert desk.engine.requests[0].resume == Resume(last_seq=7, text="shown", token_ids=(1, 2))
    async with desk.client.stream("GET", "/execute/job-1?after=8") as again:
        assert [event.seq for event in await read(again)] == [9, 10]
    status, answer = await desk.ask("GET", "/execute/job-1?after=6")
    assert (status, answer["error"]["code"]) == (409, "conflict")
    assert "taken up here after event 7" in answer["error"]["message"]
    assert (await desk.ask("POST", "/execute", b'{"prompt":"hi","resume":{"last_seq":-1}}'))[0] == 400


async def test_a_higher_attempt_takes_the_place_of_the_one_that_runs(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinged_stream, "PING_INTERVAL_S", 0.01)
    desk.give(Token("a"))
    async with desk.task(task="job-1", attempt="1", linger_s="600", epoch="3") as old:
        assert old.status == 200
        for attempt in ("1", "0"):
            headers = {"task": "job-1", "attempt": attempt}
            status, answer = await desk.ask("POST", "/execute", TASK, **headers)
            assert (status, answer["error"]["code"]) == (409, "stale_attempt")
            assert "attempt 1 of task job-1 runs here, begun in epoch 3" in answer["error"]["message"]
        resumed = b'{"prompt":"hi","resume":{"last_seq":1,"text":"a"}}'
        async with desk.task(resumed, task="job-1", attempt="2") as new:
            with pytest.raises(UpstreamError):
                await old.read()
            await desk.until(lambda: desk.engine.running == 1, "the old one has left the engine")
            desk.give(Token("b"), DONE, None)
            assert [(event.seq, event.name) for event in await read(new)] == [(2, "token"), (3, "done")]
    assert desk.engine.left == 1
    async with desk.client.stream("GET", "/execute/job-1?after=1") as again:
        assert [event.seq for event in await read(again)] == [2, 3]


async def test_a_late_cancellation_does_not_reach_a_later_attempt(desk: Desk) -> None:
    desk.give(Token("a"))
    async with desk.task(task="job-1", attempt="2", epoch="3"):
        status, answer = await desk.ask("DELETE", "/execute/job-1", attempt="1")
        assert (status, answer["error"]["code"]) == (409, "stale_attempt")
        assert desk.engine.running == 1
        assert (await desk.ask("DELETE", "/execute/job-1", attempt="2", epoch="4"))[0] == 202
        await desk.free()


async def test_a_durable_task_ends_though_nobody_listens_and_stays_readable(desk: Desk) -> None:
    desk.give(Token("a"))
    async with desk.task(task="job-1", linger_s="600") as response:
        assert response.status == 200
    await desk.until(lambda: desk.deserted == 1, "the loss of a listener is told")
    desk.give(Token("b"), DONE, None)
    await desk.free()
    assert desk.engine.left == 0
    async with desk.client.stream("GET", "/execute/job-1") as again:
        assert [event.name for event in await read(again)] == ["token", "token", "done"]


async def test_watching_is_a_ping_at_once_and_no_work(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinged_stream, "PING_INTERVAL_S", 0.01)
    async with desk.client.stream("GET", "/watch") as one, desk.client.stream("GET", "/watch") as other:
        chunks = one.chunks()
        assert [await anext(chunks) for _ in range(3)] == [PING] * 3
        assert desk.meter.busy == 0
        async with desk.client.stream("GET", "/watch") as third:
            assert third.status == 200
        await desk.until(lambda: desk.deserted == 4, "that three have come and one has left is told")
        desk.routes.end_watches()
        assert set(await one.read() + await other.read()) == set(PING)  # Whole, not cut.
    status, answer = await desk.ask("GET", "/watch")
    assert (status, answer["error"]["code"]) == (503, "rustbee_not_ready")
    assert desk.deserted == 4


async def test_watchers_are_counted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WATCHERS_MAX", 1)
    async with desk.client.stream("GET", "/watch"):
        assert (await desk.ask("GET", "/watch"))[0] == 503
    await desk.until(lambda: desk.deserted == 2, "the first has come and has left")
    async with desk.client.stream("GET", "/watch") as again:
        assert again.status == 200


async def test_silence_is_broken_by_pings(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinged_stream, "PING_INTERVAL_S", 0.01)
    async with desk.task() as response:
        assert response.status == 200  # The head came although the engine has said nothing.
        chunks = response.chunks()
        assert await anext(chunks) == PING
        desk.give(Token("late"), DONE, None)
        rest = b"".join([chunk async for chunk in chunks])
    assert [event.name for event in SseReader().feed(rest)] == ["token", "done"]


async def test_a_refusal_after_a_ping_is_an_event(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinged_stream, "PING_INTERVAL_S", 0.01)
    async with desk.task() as response:
        desk.give(TaskRefusedError("too long"))
        assert [event.name for event in await read(response)] == ["error"]


async def test_a_stream_is_taken_up_again_where_it_was_left(desk: Desk) -> None:
    desk.give(Token("a"), Token("b"))
    async with desk.task(task="job-1", linger_s="30") as response:
        assert response.status == 200
    desk.give(Token("c"))
    async with desk.client.stream("GET", "/execute/job-1?after=1") as again:
        desk.give(Token("d"), DONE, None)
        events = await read(again)
    assert [event.seq for event in events] == [2, 3, 4, 5]
    assert events[-1].name == "done"
    async with desk.client.stream("GET", "/execute/job-1?after=4") as afterwards:
        assert [event.name for event in await read(afterwards)] == ["done"]
    assert desk.engine.left == 0


async def test_nobody_comes_back_in_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmesh.worker.execution.LINGER_MAX_S", 0.01)
    desk.give(Token("a"))
    async with desk.task(task="job-1", linger_s="30") as response:
        assert response.status == 200
    await desk.free()
    assert desk.engine.left == 1
    async with desk.client.stream("GET", "/execute/job-1?after=1") as again:
        assert again.status == 499


async def test_what_was_never_there_cannot_be_taken_up(desk: Desk) -> None:
    assert (await desk.ask("GET", "/execute/job-9"))[0] == 404
    desk.give(Token("a"), DONE, None)
    async with desk.task(task="job-1") as response:
        await response.read()
    assert (await desk.ask("GET", "/execute/job-1?after=7"))[0] == 409
    assert (await desk.ask("GET", "/execute/job-1?after=x"))[0] == 400


async def test_the_same_task_twice_at_once_is_refused(desk: Desk) -> None:
    desk.give(Token("a"))
    async with desk.task(task="job-1"):
        status, answer = await desk.ask("POST", "/execute", TASK, task="job-1")
    assert (status, answer["error"]["code"]) == (409, "stale_attempt")


async def test_an_older_queen_is_refused(desk: Desk) -> None:
    assert (await desk.ask("GET", "/health", epoch="7"))[0] == 200
    status, answer = await desk.ask("GET", "/health", epoch="6")
    assert (status, answer["error"]["code"]) == (409, "stale_epoch")
    assert (await desk.ask("GET", "/health", epoch="7"))[0] == 200
    assert (await desk.ask("GET", "/health"))[0] == 200
    assert (await desk.ask("GET", "/health", epoch="x"))[0] == 400


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("POST", "/execute", b"{", 400),
        ("POST", "/execute", b'{"max_tokens":0}', 400),
        ("GET", "/execute", None, 405),
        ("GET", "/nowhere", None, 404),
        ("GET", "/v1/models", None, 404),
        ("DELETE", "/v1/models", None, 405),
    ],
)
async def test_what_cannot_be_done_says_so(
    desk: Desk, method: str, target: str, body: bytes | None, status: int
) -> None:
    answered, answer = await desk.ask(method, target, body)
    assert (answered, bool(answer["error"]["message"])) == (status, True)


async def test_input_of_any_kind_reaches_the_engine(desk: Desk) -> None:
    for value in ({"n": [1]}, "text", 5, None):
        desk.give(DONE, None)
        async with desk.task(msgspec.json.encode({"input": value})) as response:
            await response.read()
        assert msgspec.json.decode(msgspec.json.encode(desk.engine.requests[-1]))["input"] == value


async def test_too_many_at_once_are_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "REQUESTS_OVER_SLOTS_MAX", -1)
    desk.give(Token("a"))
    async with desk.task():
        status, answer = await desk.ask("POST", "/execute", TASK)
    assert (status, answer["error"]["code"]) == (503, "rustbee_overloaded")


async def test_a_worker_that_drains_takes_nothing_new(desk: Desk) -> None:
    desk.supervisor.drain()
    status, answer = await desk.ask("POST", "/execute", TASK)
    assert (status, answer["error"]["code"]) == (503, "rustbee_not_ready")


async def test_it_can_be_asked_to_stop(desk: Desk) -> None:
    assert (await desk.ask("POST", "/stop"))[0] == 202
    assert desk.stopped == 1


async def test_a_slow_reader_holds_the_engine_back_and_loses_nothing(desk: Desk) -> None:
    piece = "x" * 100_000
    async with desk.task() as response:
        for _ in range(200):
            desk.give(Token(piece))
        desk.give(DONE, None)
        (execution,) = desk.routes._executions.values()

        def at_rest() -> bool:
            """Nothing is read here, so buffers fill and the engine's events stay in the queue."""
            full = response._buffered_bytes > BUFFERED_BYTES_MAX
            return full and all(listener.paused for listener in execution._listeners)

        await desk.until(at_rest, "all buffers are full")
        assert desk.engine.events.qsize() > 50
        events = await read(response)
    assert len(events) == 201
    assert events[-1].name == "done"
