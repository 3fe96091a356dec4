"""Characters whose bytes are several tokens, from a real llama.cpp with a model that has a token for every byte."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from byte_model import byte_model
from gguf_writer import write
from rustbee_rig import make_spec
from swarmesh.config.home import Home
from swarmesh.engines.bounded_log import BoundedLog
from swarmesh.engines.engine import Done, Engine, EngineEvent, Token
from swarmesh.engines.kinds import make_engine
from swarmesh.engines.llama_answer import LlamaAnswer
from swarmesh.engines.llama_http import LlamaHttp
from swarmesh.engines.llama_tap import LlamaTap, asking_for_ids
from swarmesh.net.client import HttpClient
from swarmesh.wire.spec import EngineKind
from swarmesh.wire.sse import SseReader


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    home = Home(tmp_path / "home")
    home.make()
    model = write(tmp_path / "bytes.gguf", byte_model())
    spec = make_spec(home, engine=EngineKind.LLAMA_CPP, model_path=str(model), slots=1, context_tokens=256)
    engine = make_engine(spec, BoundedLog(tmp_path / "engine.log"))
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


async def test_they_come_whole_and_with_all_their_ids(engine: Engine) -> None:
    door = engine.door
    assert door is not None
    said = "a\N{HONEYBEE}\N{LATIN SMALL LETTER A WITH DIAERESIS}b"
    body = {"prompt": "x", "grammar": f'root ::= "{said}"', "stream": True, "return_tokens": True}
    client, server = HttpClient(door.address, headers=door.headers), LlamaHttp(door)
    answer = LlamaAnswer(server)
    events: list[EngineEvent] = []
    async with client.stream("POST", "/completion", msgspec.json.encode(body)) as response:
        reader = SseReader()
        async for data in response.chunks():
            for event in reader.feed(data):
                events += await answer.take(event.data)
    client.close()
    server.close()
    tokens = [event for event in events if isinstance(event, Token)]
    assert [token.text for token in tokens] == list(said)
    # A byte's token has its number and the three tokens before it.
    assert [token.token_ids for token in tokens] == [tuple(byte + 3 for byte in text.encode()) for text in said]
    assert isinstance(events[-1], Done)
    assert answer.whole


@pytest.mark.parametrize("target", ["/v1/chat/completions", "/v1/completions"])
async def test_openais_routes_tell_all_ids_of_held_text_too(engine: Engine, target: str) -> None:
    door = engine.door
    assert door is not None
    said = "a\N{HONEYBEE}s\N{LATIN SMALL LETTER U WITH DIAERESIS}abcd"
    body = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "grammar": f'root ::= "{said}"'}
    asked = asking_for_ids(msgspec.json.encode({**body, "stream": True, "stop": ["abcX"]}))
    client, server = HttpClient(door.address, headers=door.headers), LlamaHttp(door)
    tap = LlamaTap(server)
    ids: list[int] = []
    async with client.stream("POST", target, asked) as response:
        data = await response.read()
    for block in data.removesuffix(b"\n\n").split(b"\n\n"):
        tapped = tap.take(block)
        ids += await tap.look_up(tapped.lookup) if tapped.lookup is not None else tapped.token_ids
        assert b'"top_probs"' not in tapped.block
        assert b'"timings"' not in tapped.block or b'"finish_reason":"stop"' in tapped.block
    client.close()
    server.close()
    assert ids == [byte + 3 for byte in said.encode()]
