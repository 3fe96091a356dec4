"""Every engine keeps the same promises to its agent; the real llama.cpp with the real demo model too."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from engine_rig import KINDS, LONG_TEXT, Running, collect, running_engine, spec_of, text_of
from rustbee_rig import DEMO_GGUF
from swarmesh.config.home import Home
from swarmesh.core.errors import EngineStartError, SwarmeshError, TaskRefusedError
from swarmesh.engines.bounded_log import BoundedLog
from swarmesh.engines.engine import Done, EngineEvent, Token
from swarmesh.engines.errors import EngineDiedError, TaskFailedError
from swarmesh.engines.kinds import make_engine
from swarmesh.hosts.process_identity import identify
from swarmesh.net.client import HttpClient
from swarmesh.wire.flow import ExecuteRequest, Message
from swarmesh.wire.spec import Backend, EngineKind, WorkerSpec
from swarmesh.wire.sse import SseReader

KILLS_MAX = 3
"""An engine may be done before it is killed, and what else the machine does at a moment may make its end known late."""
KNOWN_WITHIN_S = 0.5


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    return home


@pytest.fixture(params=KINDS)
def spec(request: pytest.FixtureRequest, home: Home) -> WorkerSpec:
    return spec_of(request.param, home)


@pytest.fixture
async def running(spec: WorkerSpec) -> AsyncIterator[Running]:
    async with running_engine(spec) as running:
        yield running


def leave_socket(spec: WorkerSpec) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(spec.engine_socket_path)


async def exhaust(events: AsyncIterator[EngineEvent], into: list[EngineEvent] | None = None) -> None:
    async for event in events:
        if into is not None:
            into.append(event)


async def test_tells_what_it_is(running: Running) -> None:
    assert running.info.slots == 3
    assert running.info.pid == running.engine.pid
    assert psutil.pid_exists(running.info.pid)
    assert running.info.backend is (Backend.PYTHON if running.spec.engine is EngineKind.PYTHON_CLASS else Backend.CPU)
    assert running.engine.memory_mib() > 0
    assert await running.engine.healthy()


async def test_no_secret_is_in_argv_and_nobody_else_can_connect(running: Running) -> None:
    door = running.engine.door
    assert door is not None
    key = door.headers[0][1].decode().removeprefix("Bearer ")
    argv = " ".join(psutil.Process(running.engine.pid).cmdline())
    assert key not in argv
    assert running.spec.key not in argv
    assert running.spec.key not in str(psutil.Process(running.engine.pid).environ())
    assert stat.S_IMODE(os.stat(running.spec.engine_socket_path).st_mode) & 0o077 == 0  # noqa: PTH116 - not async
    stranger = HttpClient(door.address)
    status, _ = await stranger.request("POST", "/v1/chat/completions", b'{"messages":[]}')
    stranger.close()
    assert status == 401


async def test_a_task_is_tokens_and_then_one_end(running: Running) -> None:
    events = await collect(running.engine, ExecuteRequest(prompt="What is a rustbee?", temperature=0.0))
    assert all(isinstance(event, Token) for event in events[:-1])
    assert isinstance(events[-1], Done)
    assert len(events) > 2
    assert text_of(events)
    usage = events[-1].usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert events[-1].finish_reason == "stop" or running.spec.engine is EngineKind.FAKE


async def test_the_same_task_gives_the_same_answer(running: Running) -> None:
    request = ExecuteRequest(prompt="Hello", temperature=0.0, max_tokens=12)
    assert text_of(await collect(running.engine, request)) == text_of(await collect(running.engine, request))


async def test_a_prompt_is_one_user_message(running: Running) -> None:
    message = Message("user", msgspec.Raw(b'"Hello there"'))
    asked = [ExecuteRequest(prompt="Hello there", temperature=0.0), ExecuteRequest(messages=[message], temperature=0.0)]
    first, second = [text_of(await collect(running.engine, request)) for request in asked]
    assert first == second


async def test_max_tokens_bounds_the_answer(running: Running) -> None:
    request = ExecuteRequest(prompt="Recite the song of the hive.", max_tokens=3, temperature=0.0)
    events = await collect(running.engine, request)
    assert isinstance(events[-1], Done)
    assert events[-1].usage.completion_tokens == 3
    if running.spec.engine is not EngineKind.PYTHON_CLASS:  # The user's class alone knows why it stopped.
        assert events[-1].finish_reason == "length"


async def test_tasks_run_side_by_side(running: Running) -> None:
    requests = [ExecuteRequest(prompt=f"Hello number {n}", temperature=0.0, max_tokens=20) for n in range(6)]
    alone = [text_of(await collect(running.engine, request)) for request in requests]
    together = await asyncio.gather(*(collect(running.engine, request) for request in requests))
    if running.spec.engine in {EngineKind.FAKE, EngineKind.PYTHON_CLASS}:
        assert [text_of(events) for events in together] == alone
    assert all(isinstance(events[-1], Done) for events in together)


async def test_leaving_a_task_frees_the_engine_for_the_next(running: Running) -> None:
    prompt = "say wait now" if running.spec.engine is EngineKind.PYTHON_CLASS else LONG_TEXT
    for _ in range(running.info.slots * 3):
        async with aclosing(running.engine.execute(ExecuteRequest(prompt=prompt, temperature=0.0))) as events:
            assert isinstance(await anext(events), Token)
    async with asyncio.timeout(60):
        await collect(running.engine, ExecuteRequest(prompt="Hello", max_tokens=2))


async def test_killed_in_the_middle_it_says_so(spec: WorkerSpec) -> None:
    for _ in range(KILLS_MAX):
        async with running_engine(spec) as running:
            known_after_s = await known_after_kill_s(running)
        if known_after_s is not None and known_after_s < KNOWN_WITHIN_S:
            return
    pytest.fail(f"of {KILLS_MAX} engines that were killed none was known to be in time: {known_after_s}")


async def known_after_kill_s(running: Running) -> float | None:
    """Kill an engine at its first token and see what is said of that; None when it had written the last one by then."""
    prompt = "say wait now" if running.spec.engine is EngineKind.PYTHON_CLASS else LONG_TEXT
    loop, seen = asyncio.get_running_loop(), list[EngineEvent]()
    async with aclosing(running.engine.execute(ExecuteRequest(prompt=prompt, temperature=0.0))) as events:
        assert isinstance(await anext(events), Token)
        os.kill(running.engine.pid, signal.SIGKILL)
        killed_at_s = loop.time()
        how = (await running.engine.wait_exit()).message
        known_after_s = loop.time() - killed_at_s
        with suppress(EngineDiedError):
            await exhaust(events, seen)
    assert "SIGKILL" in how
    assert f"pid {running.info.pid}" in how
    assert not await running.engine.healthy()
    return None if seen and isinstance(seen[-1], Done) else known_after_s


async def test_stopping_leaves_nothing(spec: WorkerSpec) -> None:
    engine = make_engine(spec, BoundedLog(Path(spec.work_dir) / "engine.log"))
    info = await engine.start()
    await engine.stop()
    assert not psutil.pid_exists(info.pid)
    assert not os.path.exists(spec.engine_socket_path)  # noqa: ASYNC240, PTH110 - one look at a local file
    await engine.stop()


async def test_a_socket_of_an_earlier_life_is_no_obstacle(spec: WorkerSpec) -> None:
    leave_socket(spec)
    engine = make_engine(spec, BoundedLog(Path(spec.work_dir) / "engine.log"))
    try:
        assert (await engine.start()).pid
    finally:
        await engine.stop()


async def test_openai_chat_streams_and_does_not(running: Running) -> None:
    door = running.engine.door
    assert door is not None
    client = HttpClient(door.address, headers=door.headers)
    body = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 40}
    status, answer = await client.request("POST", "/v1/chat/completions", msgspec.json.encode(body))
    assert status == 200
    whole = msgspec.json.decode(answer)
    stream_body = msgspec.json.encode({**body, "stream": True, "stream_options": {"include_usage": True}})
    async with client.stream("POST", "/v1/chat/completions", stream_body) as response:
        reader = SseReader()
        events = [event for data in [chunk async for chunk in response.chunks()] for event in reader.feed(data)]
    client.close()
    assert events[-1].data == b"[DONE]"
    chunks = [msgspec.json.decode(event.data) for event in events[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == whole["choices"][0]["message"]["content"]
    assert whole["model"] == chunks[0]["model"] == "demo"
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


class TestTokenEngines:
    """Engines that know tokens: the model and its fake."""

    @pytest.fixture(params=["fake", "llama_cpp", "llama_server"])
    def spec(self, request: pytest.FixtureRequest, home: Home) -> WorkerSpec:
        return spec_of(request.param, home)

    async def test_every_text_has_its_ids(self, running: Running) -> None:
        events = await collect(running.engine, ExecuteRequest(prompt=LONG_TEXT, temperature=0.0, max_tokens=50))
        tokens = [event for event in events if isinstance(event, Token)]
        assert all(token.text and token.token_ids for token in tokens)
        assert sum(len(token.token_ids) for token in tokens) == 50

    async def test_a_stop_text_ends_and_is_not_shown(self, running: Running) -> None:
        request = ExecuteRequest(prompt=LONG_TEXT, temperature=0.0, max_tokens=60)
        whole = text_of(await collect(running.engine, request))
        stop = whole[20:26]
        events = await collect(running.engine, msgspec.structs.replace(request, stop=[stop, "never said"]))
        assert text_of(events) == whole[: whole.index(stop)]
        assert isinstance(events[-1], Done)
        assert events[-1].finish_reason == "stop"

    async def test_a_prompt_beyond_the_context_is_the_tasks_fault(self, running: Running) -> None:
        with pytest.raises(TaskRefusedError, match="context"):
            await collect(running.engine, ExecuteRequest(prompt="bee " * 3000))


class TestLlama:
    """What only llama.cpp promises."""

    @pytest.fixture(params=["llama_cpp", "llama_server"])
    def spec(self, request: pytest.FixtureRequest, home: Home) -> WorkerSpec:
        return spec_of(request.param, home)

    async def test_chat_and_embeddings_from_one_server(self, running: Running) -> None:
        door = running.engine.door
        assert door is not None
        client = HttpClient(door.address, headers=door.headers)
        body = msgspec.json.encode({"input": ["a bee", "a bee", "arithmetic"], "model": "demo"})
        status, answer = await client.request("POST", "/v1/embeddings", body)
        client.close()
        assert status == 200
        vectors = [entry["embedding"] for entry in msgspec.json.decode(answer)["data"]]
        assert len({len(vector) for vector in vectors}) == 1
        assert vectors[0] == pytest.approx(vectors[1], abs=1e-3)
        assert vectors[0] != pytest.approx(vectors[2], abs=1e-2)
        assert "demo model" in text_of(await collect(running.engine, ExecuteRequest(prompt="Hello", temperature=0.0)))

    async def test_a_slot_is_free_when_its_task_is_left(self, running: Running, until: Callable[..., Any]) -> None:
        door = running.engine.door
        assert door is not None
        client = HttpClient(door.address, headers=door.headers)

        async def busy_slots() -> int:
            _, body = await client.request("GET", "/slots")
            return sum(slot["is_processing"] for slot in msgspec.json.decode(body))

        async def busy_after_a_token() -> bool:
            async with aclosing(running.engine.execute(ExecuteRequest(prompt=LONG_TEXT, temperature=0.0))) as events:
                await anext(events)
                return await busy_slots() == 1

        async def all_free() -> bool:
            return not await busy_slots()

        # The engine is fast: now and then it is done before it can be asked.
        await until(busy_after_a_token, "it was at work when its task was left")
        await until(all_free, "no slot is busy")
        client.close()

    async def test_input_is_for_python_classes(self, running: Running) -> None:
        with pytest.raises(TaskRefusedError, match="prompt"):
            await collect(running.engine, ExecuteRequest(input=msgspec.Raw(b"{}")))

    async def test_a_stuck_engine_is_not_healthy(
        self, running: Running, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Any]
    ) -> None:
        monkeypatch.setattr("swarmesh.engines.llama_http.HEALTH_TIMEOUT_S", 0.2)
        os.kill(running.engine.pid, signal.SIGSTOP)
        try:
            # Its threads stop one after the other; an answer may still come from one of them.
            tasks = Path(f"/proc/{running.engine.pid}/task")
            await until(lambda: all(stat.read_text().rpartition(") ")[2][0] == "T" for stat in tasks.glob("*/stat")))
            assert not await running.engine.healthy()
        finally:
            os.kill(running.engine.pid, signal.SIGCONT)

    async def test_a_missing_model_file_is_named(self, spec: WorkerSpec, home: Home) -> None:
        lost = msgspec.structs.replace(spec, model_path=str(home.root / "lost.gguf"))
        engine = make_engine(lost, BoundedLog(home.root / "engine.log"))
        with pytest.raises(EngineStartError, match=r"lost\.gguf does not exist"):
            await engine.start()
        await engine.stop()

    async def test_a_file_that_is_no_model_gives_the_engines_last_words(self, spec: WorkerSpec, home: Home) -> None:
        broken = home.root / "broken.gguf"
        broken.write_bytes(DEMO_GGUF.read_bytes()[:50_000])
        log = BoundedLog(home.root / "engine.log")
        engine = make_engine(msgspec.structs.replace(spec, model_path=str(broken)), log)
        with pytest.raises(EngineStartError) as caught:
            await engine.start()
        await engine.stop()
        assert "exited with code" in caught.value.message
        assert len(caught.value.message.splitlines()) > 1

    async def test_a_gpu_that_is_not_there_is_refused(self, spec: WorkerSpec, home: Home) -> None:
        engine = make_engine(msgspec.structs.replace(spec, backend=Backend.CUDA), BoundedLog(home.root / "engine.log"))
        with pytest.raises(EngineStartError, match="no cuda device"):
            await engine.start()
        await engine.stop()


class TestPythonClass:
    """What only a user's own class does."""

    @pytest.fixture
    def spec(self, home: Home) -> WorkerSpec:
        return spec_of("python_class", home)

    async def test_text_values_and_bytes_in_their_order(self, running: Running) -> None:
        events = await collect(running.engine, ExecuteRequest(prompt="a json bytes b"))
        assert events[:-1] == [
            Token("a"),
            Token(value={"n": [1, 2.5, None]}),
            Token(media_type="application/octet-stream", base64="iVBORw=="),
            Token(" b"),
        ]

    async def test_an_exception_is_the_tasks_fault_and_the_child_survives(self, running: Running) -> None:
        for prompt, shown in (("fail", []), ("say fail", [Token("say")])):
            seen: list[EngineEvent] = []
            with pytest.raises(TaskFailedError, match="ValueError: told to fail"):
                await exhaust(running.engine.execute(ExecuteRequest(prompt=prompt)), seen)
            assert seen == shown
        assert text_of(await collect(running.engine, ExecuteRequest(prompt="still here"))) == "still here"

    async def test_what_is_no_piece_is_named(self, running: Running) -> None:
        with pytest.raises(TaskFailedError, match="yielded NoneType"):
            await collect(running.engine, ExecuteRequest(prompt="nothing"))

    async def test_input_reaches_the_class(self, running: Running) -> None:
        events = await collect(running.engine, ExecuteRequest(input=msgspec.Raw(b'"from input"')))
        assert text_of(events) == "from input"

    async def test_what_it_started_ends_with_it(self, running: Running) -> None:
        events = await collect(running.engine, ExecuteRequest(prompt="child"))
        child = identify(int(text_of(events)))
        assert child is not None
        os.kill(running.engine.pid, signal.SIGKILL)
        await running.engine.wait_exit()
        async with asyncio.timeout(30):
            await child.wait_exit()

    async def test_its_prints_are_in_the_log(self, running: Running, until: Callable[..., Any]) -> None:
        await collect(running.engine, ExecuteRequest(prompt="x"))
        log = Path(running.spec.work_dir) / "engine.log"
        await until(lambda: log.exists() and "ready to echo" in log.read_text(), "what it printed is in its log")

    @pytest.mark.parametrize(
        ("class_path", "said"),
        [
            ("no_such_module:X", "No module named 'no_such_module'"),
            ("user_code:Missing", "has no class 'Missing'"),
            ("user_code:NoGenerator", "no async generator foragexec"),
            ("user_code:Broken", "RuntimeError: cannot be made"),
            ("user_code", "not of the form module:Class"),
        ],
    )
    async def test_a_class_that_cannot_serve_is_explained(self, home: Home, class_path: str, said: str) -> None:
        spec = spec_of("python_class", home, class_path=class_path)
        engine = make_engine(spec, BoundedLog(Path(spec.work_dir) / "engine.log"))
        with pytest.raises(EngineStartError) as caught:
            await engine.start()
        await engine.stop()
        assert said in caught.value.message

    @pytest.mark.parametrize("example", ["text_stats:TextStats", "png_image:CombImage"])
    async def test_the_examples_serve(self, home: Home, example: str) -> None:
        examples = Path(__file__).parents[2] / "examples"
        spec = spec_of("python_class", home, class_path=example, python_path=(str(examples),))
        engine = make_engine(spec, BoundedLog(Path(spec.work_dir) / "engine.log"))
        try:
            await engine.start()
            events = await collect(engine, ExecuteRequest(prompt="To bee or not to bee"))
        finally:
            await engine.stop()
        token = events[-2]
        assert isinstance(token, Token)
        if example.startswith("text_stats"):
            assert token.value["words"] == 6
            assert token.value["commonest"][:2] == [{"word": "bee", "count": 2}, {"word": "to", "count": 2}]
        else:
            assert token.media_type == "image/png"
            assert token.base64.startswith("iVBORw0KGgo")


async def test_a_llama_server_that_is_not_there_is_named(home: Home) -> None:
    spec = spec_of("llama_server", home, llama_server_path="/nowhere/llama-server")
    engine = make_engine(spec, BoundedLog(home.root / "engine.log"))
    with pytest.raises(SwarmeshError, match="/nowhere/llama-server is no program"):
        await engine.start()
    await engine.stop()


async def test_an_engine_ends_with_its_agent(home: Home) -> None:
    """The agent is killed in the hardest way; the kernel (or the end of stdin) takes the engine along."""
    code = """
import asyncio, sys, msgspec
from pathlib import Path
from swarmesh.engines.bounded_log import BoundedLog
from swarmesh.engines.kinds import make_engine
from swarmesh.wire.spec import WorkerSpec
async def main():
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerSpec)
    print((await make_engine(spec, BoundedLog(Path("/dev/null"))).start()).pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    for kind in KINDS:
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(msgspec.json.encode(spec_of(kind, home)) + b"\n")
        engine = identify(int(await parent.stdout.readline()))
        assert engine is not None
        parent.kill()
        await parent.wait()
        async with asyncio.timeout(30):
            await engine.wait_exit()
