"""OpenAI's requests: what is documented passes, what is not never reaches an engine, ranges hold."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from swarmesh.core.errors import InvalidValueError
from swarmesh.core.ids import Priority
from swarmesh.wire.body import decode_body
from swarmesh.wire.openai import ChatRequest, CompletionRequest, EmbeddingRequest

SAMPLING: dict[str, Any] = {
    "model": "m",
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_tokens": 5,
    "temperature": 0.5,
    "top_p": 0.9,
    "n": 2,
    "stop": ["a", "b"],
    "seed": -7,
    "presence_penalty": -2.0,
    "frequency_penalty": 2.0,
    "logit_bias": {"50256": -100},
    "user": "me",
    "top_k": 40,
    "min_p": 0.05,
    "repeat_penalty": 1.1,
}
MESSAGES = [
    {"role": "system", "content": "be kind"},
    {
        "role": "user",
        "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:,"}}],
    },
]
CHAT: dict[str, Any] = {
    **SAMPLING,
    "messages": MESSAGES,
    "max_completion_tokens": 6,
    "logprobs": True,
    "top_logprobs": 3,
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning_effort": "low",
    "chat_template_kwargs": {"enable_thinking": False},
}
COMPLETION: dict[str, Any] = {**SAMPLING, "prompt": ["one", [1, 2]], "suffix": "end", "echo": True, "logprobs": 2}
EMBEDDING: dict[str, Any] = {
    "model": "m",
    "input": ["a", [1, 2]],
    "encoding_format": "base64",
    "dimensions": 128,
    "user": "me",
}
KINDS = [(ChatRequest, CHAT), (CompletionRequest, COMPLETION), (EmbeddingRequest, EMBEDDING)]
SHORTEST = {ChatRequest: {"messages": []}, CompletionRequest: {"prompt": ""}, EmbeddingRequest: {"input": ""}}

Kind = type[ChatRequest] | type[CompletionRequest] | type[EmbeddingRequest]


def passed_on(kind: Kind, body: dict[str, Any]) -> Any:
    """What an engine would get."""
    request = decode_body(msgspec.json.Decoder(kind), json.dumps(body).encode())
    request.priority = msgspec.UNSET
    return json.loads(msgspec.json.encode(request))


@pytest.mark.parametrize(("kind", "whole"), KINDS)
def test_every_documented_field_passes_as_it_is(kind: Kind, whole: dict[str, Any]) -> None:
    assert passed_on(kind, whole) == whole
    fields = {field.name for field in msgspec.structs.fields(kind)} - {"priority", "background", "resume"}
    assert fields == set(whole), "this test knows every field there is"


@pytest.mark.parametrize(("kind", "whole"), KINDS)
def test_what_is_not_on_the_list_never_goes_on(kind: Kind, whole: dict[str, Any]) -> None:
    sneaked = {"slot_id": 3, "cache_prompt": False, "grammar": "root ::= .", "lora": [1], "__proto__": {}, "timings": 1}
    assert passed_on(kind, {**whole, **sneaked}) == whole


@pytest.mark.parametrize("kind", SHORTEST)
def test_what_was_not_said_is_not_said_for_the_client(kind: Kind) -> None:
    assert passed_on(kind, SHORTEST[kind]) == SHORTEST[kind]


def test_null_means_not_said() -> None:
    nulls = {name: None for name in CHAT if name not in {"model", "messages"}}
    request = decode_body(msgspec.json.Decoder(ChatRequest), json.dumps({**nulls, "messages": []}).encode())
    assert (request.bound_tokens(), request.choices()) == (0, 1)


@pytest.mark.parametrize("kind", SHORTEST)
def test_our_own_field_is_read_and_taken_out(kind: Kind) -> None:
    body = json.dumps({**SHORTEST[kind], "priority": "high"}).encode()
    assert decode_body(msgspec.json.Decoder(kind), body).priority is Priority.HIGH
    assert passed_on(kind, {**SHORTEST[kind], "priority": "low"}) == SHORTEST[kind]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", "hot"),
        ("top_p", 1.1),
        ("n", 0),
        ("n", 17),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", 1_000_001),
        ("max_tokens", 1.5),
        ("max_completion_tokens", 0),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("seed", 2**63),
        ("seed", -(2**63) - 1),
        ("stop", ""),
        ("stop", ["x"] * 17),
        ("stop", ["x" * 257]),
        ("stop", [1]),
        ("model", "x" * 129),
        ("model", 5),
        ("stream", "yes"),
        ("stream_options", True),
        ("top_logprobs", 21),
        ("reasoning_effort", "extreme"),
        ("priority", "urgent"),
        ("user", "x" * 513),
        ("top_k", -2),
        ("repeat_penalty", -1),
    ],
)
def test_ranges_hold_and_the_field_is_named(field: str, value: object) -> None:
    with pytest.raises(InvalidValueError) as raised:
        decode_body(msgspec.json.Decoder(ChatRequest), json.dumps({"messages": [], field: value}).encode())
    assert (raised.value.param or "").startswith(field)
    assert raised.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("kind", "field"), [(ChatRequest, "messages"), (CompletionRequest, "prompt"), (EmbeddingRequest, "input")]
)
def test_the_one_field_that_must_be_there(kind: Kind, field: str) -> None:
    with pytest.raises(InvalidValueError) as raised:
        decode_body(msgspec.json.Decoder(kind), b'{"model": "m"}')
    assert raised.value.param == field


def test_what_the_ledger_predicts_from() -> None:
    chat = decode_body(msgspec.json.Decoder(ChatRequest), b'{"messages": "12345678", "max_tokens": 5, "n": 3}')
    assert (chat.prompt_chars(), chat.bound_tokens(), chat.choices()) == (10, 5, 3)
    newer = decode_body(
        msgspec.json.Decoder(ChatRequest), b'{"messages": 1, "max_tokens": 5, "max_completion_tokens": 7}'
    )
    assert newer.bound_tokens() == 7
    completion = decode_body(msgspec.json.Decoder(CompletionRequest), b'{"prompt": "1234"}')
    assert (completion.prompt_chars(), completion.bound_tokens(), completion.choices()) == (6, 0, 1)
    embedding = decode_body(msgspec.json.Decoder(EmbeddingRequest), b'{"input": "1234"}')
    assert (embedding.prompt_chars(), embedding.bound_tokens(), embedding.choices()) == (6, 1, 1)
