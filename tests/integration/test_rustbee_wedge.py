"""How engines end under a real agent, and how soon that is known: crashed, killed, stopped, deaf."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median

import msgspec
import pytest

from rustbee_rig import DEMO_GGUF, Bee, LittleQueen, make_spec, running_bee
from swarmesh.config.home import Home
from swarmesh.engines.bounded_log import BoundedLog
from swarmesh.engines.kinds import make_engine
from swarmesh.net.client import UpstreamError
from swarmesh.wire.flow import ExecuteRequest
from swarmesh.wire.spec import EngineKind, WorkerSpec
from swarmesh.wire.sse import PING, SseEvent, SseReader
from swarmesh.worker.meter import Meter
from swarmesh.worker.supervisor import Supervisor
from swarmesh.worker.watchdog import WatchdogPolicy

DEAF = Path(__file__).parents[1] / "deaf_llama_server.py"
QUICK = WatchdogPolicy(look_interval_s=0.05, quiet_looks=2, canary_timeout_s=0.5)
CHAT = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
SLOW = "tokens=10000,tokens_per_s=100"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    return home


@pytest.fixture
async def queen(home: Home) -> AsyncIterator[LittleQueen]:
    queen = LittleQueen(home)
    await queen.start()
    yield queen
    await queen.stop()


@pytest.fixture
async def bee(home: Home, queen: LittleQueen) -> AsyncIterator[Bee]:
    async with running_bee(home, make_spec(home, class_path=SLOW, context_tokens=20_000)) as bee:
        await queen.wait_status("healthy")
        yield bee


async def until_cut(bee: Bee, target: str, body: object, begun: asyncio.Event) -> bytes:
    """All bytes of a stream that breaks."""
    seen: list[bytes] = []
    async with bee.client.stream("POST", target, msgspec.json.encode(body)) as response:
        try:
            async for chunk in response.chunks():
                seen.append(chunk)
                begun.set()
        except UpstreamError:
            return b"".join(seen)
    pytest.fail("the stream looked whole")


@pytest.mark.parametrize(
    ("signum", "code", "within_s"),
    [
        (signal.SIGKILL, "engine_died", 1.0),
        (signal.SIGABRT, "engine_crashed", 1.0),
        (signal.SIGSTOP, "engine_stuck", 12.0),
    ],
    ids=["killed", "crashed", "stopped"],
)
async def test_every_stream_is_told_how_its_engine_ended(
    bee: Bee, queen: LittleQueen, signum: signal.Signals, code: str, within_s: float
) -> None:
    took_s: list[float] = []
    while not took_s or (took_s[-1] >= within_s and len(took_s) < 2):  # This machine may have held one up.
        took_s.append(await hit(bee, queen, signum, code))
    assert took_s[-1] < within_s, took_s
    assert [event.seq for event in await first_events(bee, 2)] == [1, 2]


async def hit(bee: Bee, queen: LittleQueen, signum: signal.Signals, code: str) -> float:
    """Signal the engine of two streams; after how many seconds both, and the queen, were told of its end."""
    pid = int((await bee.health())["engine_pid"])
    begun = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(until_cut(bee, "/execute", {"prompt": "hi"}, begun[0]))
    openai = asyncio.create_task(until_cut(bee, "/v1/chat/completions", CHAT, begun[1]))
    for event in begun:
        await event.wait()
    queen.forget()
    os.kill(pid, signum)
    hit_at_s = time.monotonic()
    last = SseReader().feed(await task)[-1]
    assert (last.name, msgspec.json.decode(last.data)["error"]["code"]) == ("error", code)
    assert (await openai).endswith(f": broken {code}\n".encode())
    streams_told_s = time.monotonic() - hit_at_s
    alarm = await queen.wait_alarm()
    assert (alarm.body["code"], alarm.body["returning"]) == (code, True)
    await queen.wait_status("healthy")
    return max(streams_told_s, alarm.at_s - hit_at_s)


async def first_events(bee: Bee, count: int) -> list[SseEvent]:
    events = bee.events("POST", "/execute", {"prompt": "hi"})
    first = [await anext(events) for _ in range(count)]
    await events.aclose()  # type: ignore[attr-defined]  # An async generator, to its caller an iterator.
    return first


async def test_a_resumed_task_goes_on_with_its_numbers(bee: Bee) -> None:
    shown = await first_events(bee, 5)
    text = "".join(msgspec.json.decode(event.data)["text"] for event in shown)
    resume = {"last_seq": 5, "text": text, "token_ids": [number for event in shown for number in event.token_ids]}
    rest = bee.events("POST", "/execute", {"prompt": "hi", "resume": resume}, task="job-1", attempt="2")
    assert [(await anext(rest)).seq for _ in range(3)] == [6, 7, 8]
    status, body = await bee.client.request("GET", "/execute/job-1?after=4")
    assert (status, msgspec.json.decode(body)["error"]["code"]) == (409, "conflict")
    headers = [(b"x-swarmesh-task", b"job-1"), (b"x-swarmesh-attempt", b"2")]
    status, body = await bee.client.request("POST", "/execute", b'{"prompt":"hi"}', headers=headers)
    assert (status, msgspec.json.decode(body)["error"]["code"]) == (409, "stale_attempt")
    await rest.aclose()  # type: ignore[attr-defined]  # As above.


async def test_who_watches_hears_a_ping_each_second_until_the_agent_ends(bee: Bee) -> None:
    async with bee.client.stream("GET", "/watch") as watching:
        chunks = watching.chunks()
        assert await anext(chunks) == PING
        heard_at_s = [time.monotonic()]
        for _ in range(3):
            assert await anext(chunks) == PING
            heard_at_s.append(time.monotonic())
        # One of them may have been held up, and what came after it then seems early.
        assert 0.5 < median(later - before for before, later in pairwise(heard_at_s)) < 2.5
        assert (await bee.health())["slots_busy"] == 0
        os.kill(bee.pid, signal.SIGTERM)
        async with asyncio.timeout(15):
            assert {chunk async for chunk in chunks} <= {PING}


async def test_a_queen_who_is_lost_is_missed_at_once(bee: Bee, home: Home, queen: LittleQueen) -> None:
    """She said she would wait for a waggle for 30 s; that her watch broke off is news all the same."""
    async with bee.client.stream("GET", "/watch") as watching:
        assert watching.status == 200
        await queen.stop()
    another = LittleQueen(home)
    await another.start()
    back_at_s = time.monotonic()
    heard = await another.wait_for(lambda heard: heard.target == "/v2/swarmesh/rustbee")
    assert heard.at_s - back_at_s < 5.0, "who was lost long ago is looked for less often than that"
    await another.stop()


class Deaf:
    """A supervisor over an engine that gives no answer from its first task on."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.meter = Meter()
        self.told: list[tuple[str, str]] = []
        self.supervisor = Supervisor(
            lambda: make_engine(spec, BoundedLog(Path(spec.work_dir) / "engine.log")), self, self.meter, None, QUICK
        )

    def engine_changed(self) -> None:
        """Its status is looked at."""

    def engine_failed(self, code: str, message: str, *, returning: bool) -> None:
        self.told.append((code, message))


@asynccontextmanager
async def one_deaf(home: Home, modelcell: str) -> AsyncIterator[Deaf]:
    program = home.root / "llama-server"
    program.write_text(f"#!{sys.executable}\n{DEAF.read_text()}")
    program.chmod(0o700)
    spec = make_spec(
        home,
        engine=EngineKind.LLAMA_SERVER,
        model_path=str(DEMO_GGUF),
        llama_server_path=str(program),
        modelcell=modelcell,
    )
    home.worker_dir(spec.rustbee_id).mkdir(parents=True)
    deaf = Deaf(spec)
    supervising = asyncio.create_task(deaf.supervisor.run())
    try:
        yield deaf
    finally:
        supervising.cancel()
        await asyncio.gather(supervising, return_exceptions=True)


async def test_an_engine_that_accepts_and_never_answers_is_killed(
    home: Home, until: Callable[..., Awaitable[object]]
) -> None:
    async with one_deaf(home, "deaf") as deaf:
        await until(lambda: deaf.supervisor.serving, "it serves")
        engine = deaf.supervisor.serving
        assert engine is not None
        deaf.meter.busy = 1
        asking = asyncio.create_task(anext(engine.execute(ExecuteRequest(prompt="hi"))))
        await until(lambda: deaf.told, "it is killed")
        [(code, message)] = deaf.told
        assert code == "engine_stuck"
        assert "no answer to a question for 0.5 s" in message
        assert "SIGKILL" in message
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: deaf.supervisor.serving, "it serves again")


async def test_an_engine_that_computes_and_does_not_answer_meanwhile_is_left_alone(
    home: Home, until: Callable[..., Awaitable[object]]
) -> None:
    async with one_deaf(home, "deaf-burns") as deaf:
        await until(lambda: deaf.supervisor.serving, "it serves")
        engine = deaf.supervisor.serving
        assert engine is not None
        deaf.meter.busy = 1
        asking = asyncio.create_task(anext(engine.execute(ExecuteRequest(prompt="hi"))))
        await until(lambda: engine.cpu_s() > 2.0, "it has computed for longer than a canary is waited for")
        assert deaf.told == []
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_llama_sings_with_free_slots_and_without(home: Home) -> None:
    spec = make_spec(home, engine=EngineKind.LLAMA_CPP, model_path=str(DEMO_GGUF), slots=1, context_tokens=1024)
    home.worker_dir(spec.rustbee_id).mkdir(parents=True)
    engine = make_engine(spec, BoundedLog(home.worker_dir(spec.rustbee_id) / "engine.log"))
    try:
        await engine.start()
        assert await engine.canary()
        async with aclosing(engine.execute(ExecuteRequest(prompt="Recite the song of the hive."))) as events:
            await anext(events)
            assert await engine.canary()
        assert engine.cpu_s() > 0
        assert not engine.suspended()
        os.kill(engine.pid, signal.SIGKILL)
        await engine.wait_exit()
        assert not await engine.canary()
    finally:
        await engine.stop()
