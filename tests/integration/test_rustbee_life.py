"""A real agent process from its spawn to its goodbye, with a little queen to talk to."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rustbee_rig import DEMO_GGUF, KEY, Bee, LittleQueen, make_spec, running_bee, text_of
from swarmesh.config.home import Home
from swarmesh.hosts.local import LocalHost
from swarmesh.hosts.process_identity import identify
from swarmesh.net.client import UpstreamError
from swarmesh.wire.spec import EngineKind
from swarmesh.wire.sse import SseEvent
from swarmesh.wire.waggle import Registration, Waggle

LLAMA: dict[str, Any] = {"engine": EngineKind.LLAMA_CPP, "model_path": str(DEMO_GGUF), "context_tokens": 1024}
SONG = {"prompt": "Recite the song of the hive.", "temperature": 0}


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


async def serving(queen: LittleQueen, bee: Bee) -> int:
    """Wait until it serves; the pid of its engine."""
    await queen.wait_status("healthy")
    return int((await bee.health())["engine_pid"])


async def test_it_introduces_itself_then_waggles_at_once_when_it_serves(home: Home, queen: LittleQueen) -> None:
    async with running_bee(home, make_spec(home, class_path="start_ms=1000")) as bee:
        first = await queen.wait_for(lambda heard: True)
        assert (first.method, first.target) == ("POST", "/v2/swarmesh/rustbee")
        assert first.key == f"Bearer {KEY}".encode()
        registration = msgspec.convert(first.body, Registration)
        assert registration.status == "starting"
        assert registration.location == f"unix:{bee.spec.socket_path}"
        assert (registration.pid, registration.slots, registration.modelcell) == (bee.pid, 4, "demo")
        assert registration.boot_id
        assert registration.nonce
        # The queen said "in 30 s"; that the engine serves is news, and news is told at once.
        healthy = await queen.wait_status("healthy", timeout_s=10)
        waggle = msgspec.convert(healthy.body, Waggle)
        assert (waggle.rustbee_id, waggle.modelcell, waggle.backend) == ("rustbee-1", "demo", "cpu")
        assert (waggle.slots, waggle.slots_busy, waggle.load, waggle.quality) == (4, 0, 0.0, 1.0)
        assert waggle.vram_used > 0
        assert waggle.engine_pid > 0


async def test_it_waggles_as_often_as_the_queen_says(home: Home, queen: LittleQueen) -> None:
    queen.next_waggle = 0.1
    async with running_bee(home, make_spec(home)) as bee:
        await serving(queen, bee)
        queen.forget()
        began_s = time.monotonic()
        await queen.wait_for(lambda _: len(queen.heard) >= 5)
        assert time.monotonic() - began_s > 0.3
        assert all(heard.body["last_rtt_ms"] > 0 for heard in queen.heard)


@pytest.mark.parametrize("engine", [{"engine": EngineKind.FAKE}, LLAMA], ids=["fake", "llama_cpp"])
async def test_a_killed_engine_is_told_at_once_and_serves_again(
    home: Home, queen: LittleQueen, engine: dict[str, Any]
) -> None:
    told_after_s: list[float] = []
    async with running_bee(home, make_spec(home, **engine)) as bee:
        while not told_after_s or (told_after_s[-1] >= 0.5 and len(told_after_s) < 3):  # One may be held up.
            pid = await serving(queen, bee)
            queen.forget()
            killed_at_s = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            alarm = await queen.wait_alarm()
            told_after_s.append(alarm.at_s - killed_at_s)
        assert told_after_s[-1] < 0.5, told_after_s
        assert (alarm.body["code"], alarm.body["returning"]) == ("engine_died", True)
        assert "SIGKILL" in alarm.body["message"]
        back = await queen.wait_status("healthy")
        assert queen.heard.index(alarm) < queen.heard.index(back)
        assert back.body["engine_pid"] not in {0, pid}
        assert text_of(await bee.execute({"prompt": "Hello", "temperature": 0}))


async def test_streams_of_a_killed_engine_are_cut_never_ended(home: Home, queen: LittleQueen) -> None:
    spec = make_spec(home, class_path="tokens=1000,tokens_per_s=100")
    async with running_bee(home, spec) as bee:
        pid = await serving(queen, bee)
        chat = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        task, openai = bee.events("POST", "/execute", SONG), bee.events("POST", "/v1/chat/completions", chat)
        first = [await anext(task), await anext(openai)]
        assert [event.seq for event in first] == [1, 1]
        os.kill(pid, signal.SIGKILL)
        of_task, of_openai = await until_broken(task), await until_broken(openai)
        assert of_task[-1].name == "error"
        assert msgspec.json.decode(of_task[-1].data)["error"]["code"] == "engine_died"
        assert all(event.data != b"[DONE]" for event in of_openai)


async def test_after_three_restarts_it_gives_up_loudly(home: Home, queen: LittleQueen) -> None:
    async with running_bee(home, make_spec(home)) as bee:
        for death in range(4):
            pid = await serving(queen, bee)
            queen.forget()
            os.kill(pid, signal.SIGKILL)
            alarm = await queen.wait_alarm()
            assert alarm.body["returning"] is (death < 3)
        async with asyncio.timeout(10):
            await bee.host.wait_exit("rustbee-1")
        assert await bee.host.workers() == []
        assert not os.listdir(home.sockets_dir)  # noqa: PTH208 - not async


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({**LLAMA, "model_path": "/nowhere/lost.gguf"}, "/nowhere/lost.gguf does not exist"),
        ({"engine": EngineKind.PYTHON_CLASS, "class_path": "no_such:Thing"}, "No module named 'no_such'"),
    ],
)
async def test_an_engine_that_cannot_start_is_an_alarm_and_the_end(
    home: Home, queen: LittleQueen, changes: dict[str, Any], said: str
) -> None:
    async with running_bee(home, make_spec(home, **changes)) as bee:
        alarm = await queen.wait_alarm()
        assert (alarm.body["code"], alarm.body["returning"]) == ("engine_start_failed", False)
        assert said in alarm.body["message"]
        async with asyncio.timeout(10):
            await bee.host.wait_exit("rustbee-1")


async def test_a_worker_without_a_queen_looks_for_her_and_then_frees_its_memory(home: Home, queen: LittleQueen) -> None:
    async with running_bee(home, make_spec(home, orphan_ttl_s=1.0)) as bee:
        engine = identify(await serving(queen, bee))
        assert engine is not None
        await queen.stop()
        async with asyncio.timeout(10):
            await bee.host.wait_exit("rustbee-1")
            await engine.wait_exit()
        assert '"orphaned"' in (home.worker_dir("rustbee-1") / "agent.log").read_text()


async def test_it_finds_a_queen_that_came_back_elsewhere(home: Home, queen: LittleQueen) -> None:
    queen.next_waggle = 0.2
    async with running_bee(home, make_spec(home)) as bee:
        pid = await serving(queen, bee)
        await queen.stop()
        another = LittleQueen(home)
        await another.start()
        registration = await another.wait_for(lambda heard: heard.target == "/v2/swarmesh/rustbee")
        assert (registration.body["pid"], registration.body["engine_pid"]) == (bee.pid, pid)
        assert registration.body["status"] == "healthy"
        await another.stop()


async def test_a_queen_that_forgot_it_is_told_again(home: Home, queen: LittleQueen) -> None:
    queen.next_waggle = 0.2
    async with running_bee(home, make_spec(home)) as bee:
        await serving(queen, bee)
        queen.forget()
        queen.known.clear()
        await queen.wait_for(lambda heard: heard.target == "/v2/swarmesh/rustbee")


async def test_asked_to_end_it_lets_tasks_end_and_says_goodbye(home: Home, queen: LittleQueen) -> None:
    spec = make_spec(home, class_path="tokens=30,tokens_per_s=40")
    async with running_bee(home, spec) as bee:
        pid = await serving(queen, bee)
        events = bee.events("POST", "/execute", {"prompt": "hi"})
        await anext(events)
        os.kill(bee.pid, signal.SIGTERM)
        rest = [event async for event in events]
        assert rest[-1].name == "done"
        async with asyncio.timeout(10):
            await bee.host.wait_exit("rustbee-1")
        goodbye = queen.heard[-1]
        assert (goodbye.method, goodbye.target) == ("DELETE", "/v2/swarmesh/rustbee/rustbee-1")
        assert identify(pid) is None
        assert not os.listdir(home.sockets_dir)  # noqa: PTH208 - not async


async def test_stop_by_http(home: Home, queen: LittleQueen) -> None:
    async with running_bee(home, make_spec(home)) as bee:
        await serving(queen, bee)
        assert (await bee.post("/stop", {}))[0] == 202
        async with asyncio.timeout(10):
            await bee.host.wait_exit("rustbee-1")


async def test_a_spec_that_is_none_is_explained(home: Home) -> None:
    host = LocalHost(home)
    await host.spawn(make_spec(home, slots="many"))
    async with asyncio.timeout(10):
        await host.wait_exit("rustbee-1")
    assert "the worker's spec cannot be read" in await host.tail("rustbee-1")
    await host.stop("rustbee-1", grace_s=0.0)


async def until_broken(events: AsyncIterator[SseEvent]) -> list[SseEvent]:
    seen: list[SseEvent] = []
    try:
        async for event in events:
            seen.append(event)  # noqa: PERF401 - what came before the break is wanted
    except UpstreamError:
        return seen
    pytest.fail("the stream looked whole")
