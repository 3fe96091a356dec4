"""Every engine goes on with an answer on OpenAI's routes; the real llama.cpp with the demo model too."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine_rig import LONG_TEXT, Running, collect, running_engine, spec_of
from resume_bed import ECHO, KINDS
from swarmesh.config.home import Home
from swarmesh.core.errors import BadInputError, EngineError
from swarmesh.engines.engine import Token
from swarmesh.net.exchange import Exchange
from swarmesh.net.server import HttpServer
from swarmesh.net.upstream import UpstreamPool
from swarmesh.wire.flow import ExecuteRequest
from swarmesh.wire.http1 import ChunkedFramer
from swarmesh.wire.sse import DONE_MARK, SseEvent, SseReader
from swarmesh.worker.meter import Meter
from swarmesh.worker.passthrough import Passthrough


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    return home


@pytest.fixture(params=KINDS)
async def running(request: pytest.FixtureRequest, home: Home) -> AsyncIterator[Running]:
    async with running_engine(spec_of(request.param, home)) as running:
        yield running


@pytest.fixture
async def llama(home: Home) -> AsyncIterator[Running]:
    async with running_engine(spec_of("llama_cpp", home)) as running:
        yield running


@pytest.fixture
async def fake(home: Home) -> AsyncIterator[Running]:
    async with running_engine(spec_of("fake", home, class_path="tokens=40")) as running:
        yield running


class Agent:
    """OpenAI's routes of an engine as an agent has them."""

    def __init__(self, running: Running, path: Path) -> None:
        self.running = running
        self.path = str(path)
        self.meter = Meter()
        self.why = "engine_died"
        self.passing: set[Passthrough] = set()
        self._server = HttpServer(self._answer)

    async def listen(self) -> None:
        await self._server.listen(path=self.path)

    async def close(self) -> None:
        await self._server.close()

    def _answer(self, exchange: Exchange) -> None:
        door = self.running.engine.door
        assert door is not None
        try:
            passing = Passthrough(exchange, self.meter, self.passing.discard, self._why)
        except BadInputError as error:
            exchange.fail(error)
            return
        self.passing.add(passing)
        passing.start(UpstreamPool(door.address, idle_ttl_s=4.0), door)

    async def _why(self) -> str:
        return self.why

    @asynccontextmanager
    async def connection(self, target: str, body: dict[str, Any]) -> AsyncIterator[asyncio.StreamReader]:
        reader, writer = await asyncio.open_unix_connection(self.path)
        data = msgspec.json.encode(body)
        writer.write(b"POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" % target.encode())
        writer.write(b"content-length: %d\r\n\r\n%s" % (len(data), data))
        yield reader
        writer.close()

    async def chunks(self, target: str, body: dict[str, Any]) -> list[bytes]:
        """The HTTP chunks of a whole answer."""
        async with self.connection(target, body) as reader:
            head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), (head, rest)
        payload: list[bytes] = []
        assert ChunkedFramer().feed(rest, payload) == len(rest)
        return payload

    async def events(self, target: str, body: dict[str, Any]) -> list[SseEvent]:
        return SseReader().feed(b"".join(await self.chunks(target, body)))


@asynccontextmanager
async def agent_of(running: Running, folder: Path) -> AsyncIterator[Agent]:
    agent = Agent(running, folder / "agent.sock")
    await agent.listen()
    try:
        yield agent
    finally:
        await agent.close()


def text_in(event: SseEvent) -> str:
    if event.data == DONE_MARK:
        return ""
    choices = msgspec.json.decode(event.data)["choices"]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)


def resume_in(events: list[SseEvent]) -> dict[str, Any]:
    first = msgspec.json.decode(events[0].data)
    return {
        "last_seq": events[-1].seq,
        "text": "".join(map(text_in, events)),
        "token_ids": [token_id for event in events for token_id in event.token_ids],
        **{name: first[name] for name in ("id", "created", "model", "system_fingerprint") if name in first},
    }


def shape_of(event: SseEvent) -> Any:
    """A chunk without what differs from one run to the next, its fields in their order."""
    if event.data == DONE_MARK:
        return "done"
    chunk = msgspec.json.decode(event.data)
    if chunk.get("usage"):
        chunk["usage"].pop("prompt_tokens_details", None)
    chunk.pop("timings", None)
    return list(chunk), {name: value for name, value in chunk.items() if name not in {"id", "created"}}


KILLS_MAX = 3
"""An engine is fast, and may be done before it is killed."""
ASKED: dict[str, Any] = {"temperature": 0, "max_tokens": 30, "stream": True}
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": LONG_TEXT}]},
    "/v1/completions": {"prompt": "One small bee"},
}


class TestOpenAi:
    """On OpenAI's routes."""

    @pytest.mark.parametrize("target", list(ROUTES))
    @pytest.mark.parametrize("usage", [True, False])
    async def test_from_every_event_the_rest_is_the_same(
        self,
        running: Running,
        tmp_path: Path,
        target: str,
        usage: bool,  # noqa: FBT001 - a test's case
    ) -> None:
        body: dict[str, Any] = {**ROUTES[target], **ASKED}
        if running.spec.engine == "python_class":
            body |= {"messages": [{"role": "user", "content": ECHO}], "prompt": ECHO}
        if usage:
            body["stream_options"] = {"include_usage": True}
        async with agent_of(running, tmp_path) as agent:
            whole = await agent.events(target, body)
            texts = sum(bool(text_in(event)) for event in whole)
            for cut in range(1, len(whole) - 1 - usage):
                resume = resume_in(whole[:cut])
                events = await agent.events(target, {**body, "swarmesh_resume": resume})
                assert [event.seq for event in events] == [event.seq for event in whole[cut:]]
                assert [event.token_ids for event in events] == [event.token_ids for event in whole[cut:]]
                assert [shape_of(event) for event in events] == [shape_of(event) for event in whole[cut:]]
                assert msgspec.json.decode(events[0].data)["id"] == resume["id"]
        assert texts > 5
        known = all(event.token_ids for event in whole if text_in(event))
        assert known is (running.spec.engine != "python_class")

    async def test_the_end_is_one_chunk(self, running: Running, tmp_path: Path) -> None:
        body = {**ROUTES["/v1/chat/completions"], **ASKED, "stream_options": {"include_usage": True}}
        async with agent_of(running, tmp_path) as agent:
            *others, last = await agent.chunks("/v1/chat/completions", body)
        end = [event.data for event in SseReader().feed(last)]
        assert end[-1] == DONE_MARK
        assert msgspec.json.decode(end[0])["choices"][0]["finish_reason"]
        assert msgspec.json.decode(end[-2])["usage"]["completion_tokens"]
        assert all(other.endswith(b"\n\n") for other in others)
        assert b'"finish_reason":"' not in b"".join(others)

    @pytest.mark.parametrize("kind", ["fake", "llama_cpp"])
    async def test_an_engine_that_breaks_off_is_told_with_its_code_and_no_end(
        self, kind: str, home: Home, tmp_path: Path
    ) -> None:
        for _ in range(KILLS_MAX):
            async with running_engine(spec_of(kind, home)) as running, agent_of(running, tmp_path) as agent:
                agent.why = "engine_crashed"
                body = {**ROUTES["/v1/chat/completions"], "stream": True, "temperature": 0}
                async with agent.connection("/v1/chat/completions", body) as reader:
                    seen = await reader.readuntil(b'"delta":{"content"')
                    os.kill(running.engine.pid, signal.SIGKILL)
                    seen += await reader.read()
            if DONE_MARK not in seen:
                break
        assert seen.endswith(b"\r\n: broken engine_crashed\n\r\n")
        assert b'"finish_reason":"' not in seen
        assert agent.meter.busy == 0
        assert not agent.passing

    async def test_a_client_that_leaves_while_the_break_is_told_hurts_nobody(
        self, home: Home, tmp_path: Path, until: Any
    ) -> None:
        slow = spec_of("fake", home, class_path="tokens=400,tokens_per_s=20")
        async with running_engine(slow) as running, agent_of(running, tmp_path) as agent:
            asked = asyncio.Event()

            async def slowly() -> str:
                asked.set()
                await asyncio.Event().wait()
                return "never"

            agent._why = slowly  # type: ignore[method-assign]  # The end of an engine that nobody learns of.
            body = {**ROUTES["/v1/chat/completions"], "stream": True}
            async with agent.connection("/v1/chat/completions", body) as reader:
                await reader.readuntil(b'"delta":{"content"')
                os.kill(running.engine.pid, signal.SIGKILL)
                await asked.wait()
            await until(lambda: not agent.passing, "the stream is forgotten")
            assert agent.meter.busy == 0

    @pytest.mark.parametrize(
        "changes",
        [
            {"n": 2},
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            {"stream": False},
            {"swarmesh_resume": "x"},
        ],
    )
    async def test_what_cannot_be_resumed_is_refused(
        self, fake: Running, tmp_path: Path, changes: dict[str, Any]
    ) -> None:
        body = {**ROUTES["/v1/chat/completions"], **ASKED, "swarmesh_resume": {"last_seq": 2}, **changes}
        async with agent_of(fake, tmp_path) as agent, agent.connection("/v1/chat/completions", body) as reader:
            assert (await reader.read()).startswith(b"HTTP/1.1 400")
            assert agent.meter.busy == 0

    async def test_a_class_that_begins_otherwise_now_is_told(self, home: Home, tmp_path: Path) -> None:
        body = {"prompt": ECHO, "stream": True, "swarmesh_resume": {"last_seq": 1, "text": "two"}}
        async with running_engine(spec_of("python_class", home)) as running, agent_of(running, tmp_path) as agent:
            connection = agent.connection("/v1/completions", body)
            async with connection as reader:
                answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 502")
        assert b'"code":"resume_diverged"' in answer


class TestLlama:
    """What llama.cpp gives and takes beside the text."""

    async def test_telling_ids_changes_no_byte_that_a_client_sees(self, llama: Running, tmp_path: Path) -> None:
        asked = {"temperature": 0.9, "seed": 7, "repeat_penalty": 1.2, "max_tokens": 60, "stream": True}
        async with agent_of(llama, tmp_path) as agent:
            for target, question in ROUTES.items():
                told = await agent.events(target, {**question, **asked})
                # A grammar that allows anything makes the request one that goes to the engine as it is.
                plain = await agent.events(target, {**question, **asked, "grammar": "root ::= [^\\x00]*"})
                assert [shape_of(event) for event in told] == [shape_of(event) for event in plain]
                assert all(event.token_ids for event in told if text_in(event))
                assert not any(event.token_ids for event in plain)

    async def test_probabilities_that_were_asked_for_are_seen(self, llama: Running, tmp_path: Path) -> None:
        body = {**ROUTES["/v1/chat/completions"], **ASKED, "logprobs": True, "top_logprobs": 2}
        async with agent_of(llama, tmp_path) as agent:
            events = await agent.events("/v1/chat/completions", body)
        logprobs = msgspec.json.decode(events[1].data)["choices"][0]["logprobs"]["content"]
        assert len(logprobs[0]["top_logprobs"]) == 2

    async def test_a_list_of_token_ids_is_a_prompt_too(self, llama: Running, tmp_path: Path) -> None:
        body = {"prompt": [5, 60, 7], **ASKED, "max_tokens": 10}
        async with agent_of(llama, tmp_path) as agent:
            whole = await agent.events("/v1/completions", body)
            events = await agent.events("/v1/completions", {**body, "swarmesh_resume": resume_in(whole[:3])})
        assert [shape_of(event) for event in events] == [shape_of(event) for event in whole[3:]]

    async def test_penalties_reach_back_over_the_cut(self, llama: Running) -> None:
        agent_body = {**ROUTES["/v1/chat/completions"], **ASKED, "repeat_penalty": 1.5, "frequency_penalty": 0.5}
        async with agent_of(llama, Path(llama.spec.work_dir)) as agent:
            whole = await agent.events("/v1/chat/completions", agent_body)
            events = await agent.events(
                "/v1/chat/completions", {**agent_body, "swarmesh_resume": resume_in(whole[:15])}
            )
        assert [shape_of(event) for event in events] == [shape_of(event) for event in whole[15:]]

    async def test_errors_are_the_engines_own(self, llama: Running, tmp_path: Path) -> None:
        long = {"messages": [{"role": "user", "content": "bee " * 3000}], "stream": True}
        async with agent_of(llama, tmp_path) as agent:
            for resume in ({}, {"swarmesh_resume": {"last_seq": 2, "text": "x"}}):
                async with agent.connection("/v1/chat/completions", {**long, **resume}) as reader:
                    answer = await reader.read()
                assert answer.startswith(b"HTTP/1.1 400")
                assert b"context" in answer


class TestFake:
    """Shapes of answers that no test can be exact about with a model."""

    async def test_a_poisoned_conversation_crashes_it_where_it_was_told_to(self, home: Home) -> None:
        async with running_engine(spec_of("fake", home, class_path="tokens=20,crash_at=5")) as running:
            assert len(await collect(running.engine, ExecuteRequest(prompt="a fine day"))) == 21
            events = running.engine.execute(ExecuteRequest(prompt="some poison"))
            assert [isinstance(await anext(events), Token) for _ in range(5)] == [True] * 5
            with pytest.raises(EngineError):
                await anext(events)
            assert "SIGABRT" in (await running.engine.wait_exit()).message

    async def test_choices_differ_and_are_answers_to_seeds_of_their_own(self, fake: Running, tmp_path: Path) -> None:
        body = {**ROUTES["/v1/chat/completions"], "stream": True, "n": 3, "seed": 5, "temperature": 0.7}
        async with agent_of(fake, tmp_path) as agent:
            streamed = await agent.events("/v1/chat/completions", body)
            alone = await agent.events("/v1/chat/completions", {**body, "n": 1, "seed": 7})
            *others, last = await agent.chunks("/v1/chat/completions", body)
        texts = ["", "", ""]
        for event in streamed[:-1]:
            for choice in msgspec.json.decode(event.data)["choices"]:
                texts[choice["index"]] += choice["delta"].get("content") or ""
        assert len(set(texts)) == 3
        assert texts[2] == "".join(map(text_in, alone))
        assert not any(event.token_ids for event in streamed)
        assert last.count(b'"finish_reason":"') == 1
        assert b"".join(others).count(b'"finish_reason":"') == 2

    async def test_a_tool_is_called_the_same_way_each_time(self, fake: Running, tmp_path: Path) -> None:
        parameters = {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
        tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
        body = {**ROUTES["/v1/chat/completions"], "stream": True, "tools": [tool]}
        async with agent_of(fake, tmp_path) as agent:
            runs = [await agent.events("/v1/chat/completions", body) for _ in range(2)]
        first, second = ([shape_of(event) for event in run] for run in runs)
        assert first == second
        calls = [
            call
            for event in runs[0][:-1]
            for choice in msgspec.json.decode(event.data)["choices"]
            for call in choice["delta"].get("tool_calls", [])
        ]
        assert len(calls) > 4
        assert calls[0]["function"]["name"] == "weather"
        arguments = msgspec.json.decode("".join(call["function"]["arguments"] for call in calls))
        assert set(arguments) == {"city", "days"}
        assert '"finish_reason":"tool_calls"' in runs[0][-2].data.decode()

    async def test_json_keeps_to_its_schema(self, fake: Running, tmp_path: Path) -> None:
        schema = {"type": "object", "properties": {"bees": {"type": "array", "items": {"enum": ["a", "b"]}}}}
        shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        body = {**ROUTES["/v1/chat/completions"], "stream": True, "response_format": shape}
        async with agent_of(fake, tmp_path) as agent:
            events = await agent.events("/v1/chat/completions", body)
        value = msgspec.json.decode("".join(map(text_in, events)))
        assert set(value["bees"]) <= {"a", "b"}
        assert len(value["bees"]) == 2
