"""Characters whose bytes are several tokens, from a real llama.cpp with a model that has a token for every byte."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gguf_writer import Gguf, Typed, write
from rustbee_rig import make_spec
from swarmesh.config.home import Home
from swarmesh.engines.bounded_log import BoundedLog
from swarmesh.engines.engine import Done, Engine, EngineEvent, Token
from swarmesh.engines.kinds import make_engine
from swarmesh.engines.llama_http import LlamaAnswer, LlamaHttp
from swarmesh.net.client import HttpClient
from swarmesh.wire.spec import EngineKind
from swarmesh.wire.sse import SseReader

WIDTH, FEED_FORWARD = 32, 64
UNKNOWN, CONTROL, BYTE = 2, 3, 6
F16, F32 = 1, 0


def byte_model() -> Gguf:
    """One block of zeros, so that every token is as likely as any other; a grammar decides which one comes."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    keys = {
        "general.architecture": Typed("str", "llama"),
        "llama.context_length": Typed("u32", 256),
        "llama.block_count": Typed("u32", 1),
        "llama.embedding_length": Typed("u32", WIDTH),
        "llama.feed_forward_length": Typed("u32", FEED_FORWARD),
        "llama.attention.head_count": Typed("u32", 1),
        "llama.attention.layer_norm_rms_epsilon": Typed("f32", 1e-5),
        "tokenizer.ggml.model": Typed("str", "llama"),
        "tokenizer.ggml.tokens": Typed("arr", tokens, of="str"),
        "tokenizer.ggml.scores": Typed("arr", [0.0] * len(tokens), of="f32"),
        "tokenizer.ggml.token_type": Typed("arr", [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256, of="i32"),
        "tokenizer.ggml.bos_token_id": Typed("u32", 1),
        "tokenizer.ggml.eos_token_id": Typed("u32", 2),
    }
    square = [f"blk.0.attn_{name}.weight" for name in ("q", "k", "v", "output")]
    tensors = [
        ("token_embd.weight", (WIDTH, len(tokens)), F16),
        ("output.weight", (WIDTH, len(tokens)), F16),
        *((name, (WIDTH,), F32) for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")),
        *((name, (WIDTH, WIDTH), F16) for name in square),
        ("blk.0.ffn_gate.weight", (WIDTH, FEED_FORWARD), F16),
        ("blk.0.ffn_up.weight", (WIDTH, FEED_FORWARD), F16),
        ("blk.0.ffn_down.weight", (FEED_FORWARD, WIDTH), F16),
    ]
    return Gguf(keys, tensors)


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
