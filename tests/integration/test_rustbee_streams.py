"""Streams through a real agent from a real llama.cpp with the demo model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest

from rustbee_rig import DEMO_GGUF, KEY, Bee, LittleQueen, make_spec, running_bee, text_of
from swarmesh.config.home import Home
from swarmesh.wire.spec import EngineKind

SONG = {"prompt": "Recite the song of the hive.", "temperature": 0}
CHAT = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0}


@pytest.fixture
async def bee(tmp_path: Path) -> AsyncIterator[Bee]:
    home = Home(tmp_path / "home")
    home.make()
    queen = LittleQueen(home)
    await queen.start()
    spec = make_spec(
        home, engine=EngineKind.LLAMA_CPP, model_path=str(DEMO_GGUF), slots=2, context_tokens=1024, modelcell="demo"
    )
    async with running_bee(home, spec) as bee:
        await queen.wait_status("healthy")
        yield bee
    await queen.stop()


@pytest.fixture
async def client(bee: Bee) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = httpx.AsyncHTTPTransport(uds=bee.spec.socket_path)
    async with (
        httpx.AsyncClient(transport=transport) as http,
        openai.AsyncOpenAI(base_url="http://rustbee/v1", api_key=KEY, http_client=http) as client,
    ):
        yield client


async def busy(bee: Bee) -> int:
    return int((await bee.health())["slots_busy"])


async def test_a_task_comes_whole_numbered_and_with_ids(bee: Bee) -> None:
    events = await bee.execute({**SONG, "max_tokens": 100}, task="job-7")
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert sum(len(event.token_ids) for event in events) == 100
    done = msgspec.json.decode(events[-1].data)
    assert (done["job_id"], done["finish_reason"], done["usage"]["completion_tokens"]) == ("job-7", "length", 100)
    assert await busy(bee) == 0


async def test_two_streams_at_once_on_two_slots(bee: Bee) -> None:
    first, second = await asyncio.gather(bee.execute(SONG), bee.execute(SONG))
    assert text_of(first)[:200] == text_of(second)[:200]
    health = await bee.health()
    assert health["quality"] == 1.0
    assert health["tokens_per_s"] > 0


async def test_leaving_frees_the_engines_slot(bee: Bee) -> None:
    for target, body in (("/execute", SONG), ("/v1/chat/completions", {**CHAT, "stream": True, "max_tokens": 900})):
        for _ in range(5):
            events = bee.events("POST", target, body)
            await anext(events)
            await events.aclose()  # type: ignore[attr-defined]  # An async generator, to its caller an iterator.
        async with asyncio.timeout(15):
            while await busy(bee):
                continue
    async with asyncio.timeout(10):
        assert (await bee.execute({"prompt": "Hello", "max_tokens": 1}))[-1].name == "done"


async def test_a_refusal_is_in_our_words(bee: Bee) -> None:
    for target, body in (
        ("/execute", {"prompt": "bee " * 3000}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "bee " * 3000}]}),
        ("/v1/embeddings", {"input": "bee " * 3000}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "bee " * 3000}], "stream": True}),
    ):
        status, answer = await bee.post(target, body)
        assert status == 400
        assert answer["error"]["code"] == "task_refused"
        assert any(word in answer["error"]["message"] for word in ("context", "too large"))
        assert answer["error"]["type"] == "invalid_request_error"
    assert (await bee.health())["quality"] == 1.0


async def test_the_openai_client_speaks_to_a_rustbee(client: openai.AsyncOpenAI) -> None:
    models = await client.models.list()
    assert [model.id for model in models.data] == ["demo"]
    messages: Any = CHAT["messages"]
    whole = await client.chat.completions.create(model="demo", messages=messages, temperature=0)
    text = whole.choices[0].message.content
    assert text
    assert whole.usage is not None
    pieces, usages = [], []
    stream = await client.chat.completions.create(
        model="demo", messages=messages, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        pieces += [choice.delta.content or "" for choice in chunk.choices]
        usages += [chunk.usage] if chunk.usage else []
    assert "".join(pieces) == text
    assert usages[-1].completion_tokens == whole.usage.completion_tokens
    twice = await client.chat.completions.create(model="demo", messages=messages, n=2, max_tokens=5)
    assert len(twice.choices) == 2
    embedding = await client.embeddings.create(model="demo", input=["bee", "hive"])
    assert len(embedding.data) == 2
    completion = await client.completions.create(model="demo", prompt="The hive", max_tokens=4)
    assert completion.choices[0].finish_reason == "length"


async def test_json_schema_is_kept_to(client: openai.AsyncOpenAI) -> None:
    schema: Any = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer = await client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "What is 2 plus 2?"}],
        max_tokens=60,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    )
    content = answer.choices[0].message.content
    assert content is not None
    assert content.lstrip().startswith("{")
