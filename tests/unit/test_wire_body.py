"""A body that nobody vouches for: what is wrong with it is said with its place."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from swarmesh.core.errors import InvalidValueError, MalformedJsonError, SwarmeshError
from swarmesh.wire.body import JSON_DEPTH_MAX, decode_body
from swarmesh.wire.flow import Submission
from swarmesh.wire.openai import ChatRequest, EmbeddingRequest


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    count: Annotated[int, msgspec.Meta(ge=0)] = 0


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    share: Annotated[float, msgspec.Meta(le=1.0)] = 0.0
    inner: Inner | None = None
    many: list[Inner] = []
    anything: Any = None


DECODER = msgspec.json.Decoder(Shape)


def refusal(body: bytes) -> SwarmeshError:
    with pytest.raises(SwarmeshError) as raised:
        decode_body(DECODER, body)
    assert raised.value.status == 400
    return raised.value


def test_a_good_body() -> None:
    assert decode_body(DECODER, b'{"name": "a", "inner": {"count": 2}}') == Shape("a", inner=Inner(2))


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "byte 0"),
        (b'{"name":', "byte 8"),
        (b'{"name": nul}', "byte 13"),
        (b"\xef\xbb\xbf{}", "byte 0"),
        (b'{"name": "a"} x', "byte 15"),
        (b'{"name": "\xff"}', "byte 10"),
        (b'{"name": "ok", "anything": "ab\xe4"}', "byte 30"),
        (b"hello", "byte 0"),
    ],
)
def test_what_is_no_json_is_said_with_its_position(body: bytes, place: str) -> None:
    error = refusal(body)
    assert isinstance(error, MalformedJsonError)
    assert place in error.message
    assert error.param is None


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"{}", "name", "the field `name` is missing"),
        (b'{"name": 1}', "name", "must be a text, not a whole number"),
        (b'{"name": "a", "share": 2}', "share", "must be 1 or less"),
        (b'{"name": "a", "inner": {"count": -1}}', "inner.count", "must be 0 or more"),
        (b'{"name": "a", "many": [{}, {"count": "x"}]}', "many[1].count", "must be a whole number, not a text"),
        (b'{"name": "a", "extra": 1}', "extra", "there is no field `extra`"),
        (b'{"name": "a", "inner": {"extra": 1}}', "inner", "there is no field `extra`"),
        (b"[]", None, "the body: must be an object, not a list"),
    ],
)
def test_a_wrong_field_is_named(body: bytes, param: str | None, words: str) -> None:
    error = refusal(body)
    assert isinstance(error, InvalidValueError)
    assert error.param == param
    assert words in error.message


def nested(depth: int) -> bytes:
    return b'{"name": "a", "anything": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_nesting_has_a_limit() -> None:
    assert decode_body(DECODER, nested(JSON_DEPTH_MAX)).name == "a"
    error = refusal(nested(JSON_DEPTH_MAX + 1))
    assert f"more than {JSON_DEPTH_MAX} levels deep, at byte 89" in error.message


def test_nesting_far_beyond_any_stack_is_refused_alike() -> None:
    assert "levels deep" in refusal(nested(1_000_000)).message


def test_many_brackets_that_are_not_deep_are_no_trouble() -> None:
    body = b'{"name": "a", "many": [' + b",".join([b"{}"] * 1000) + b"]}"
    assert len(decode_body(DECODER, body).many) == 1000


def test_brackets_in_strings_are_text() -> None:
    body = msgspec.json.encode({"name": '[{"\\' * 1000, "anything": "\\" + "[" * 1000})
    assert decode_body(DECODER, body).name == '[{"\\' * 1000


@pytest.mark.parametrize("tail", [b'\\"', b'"', b"\\", b'\\\\"'])
def test_no_body_takes_long_to_refuse(tail: bytes) -> None:
    body = b"[{" * 30 + b"}]" * 30 + b"[" * 10 + b'"' + tail * 500_000
    started_s = time.process_time()
    refusal(body)
    assert time.process_time() - started_s < 2.0


class Taste(StrEnum):
    SWEET = "sweet"
    SOUR = "sour"


class Meal(msgspec.Struct):
    taste: Taste | msgspec.UnsetType = msgspec.UNSET
    size: Literal["small", "large"] | None = None
    courses: list[Meal] = []
    drinks: dict[str, Meal] = {}


@pytest.mark.parametrize(
    ("body", "param", "hint"),
    [
        (b'{"taste": "salty"}', "taste", "It is one of sweet, sour."),
        (b'{"size": "huge"}', "size", "It is one of large, small."),
        (b'{"courses": [{}, {"taste": "x"}]}', "courses[1].taste", "It is one of sweet, sour."),
        (b'{"drinks": {"a": {"size": "x"}}}', "drinks[...].size", "It is one of large, small."),
        (b'{"taste": 3}', "taste", ""),
    ],
)
def test_what_may_stand_there_is_told(body: bytes, param: str, hint: str) -> None:
    with pytest.raises(InvalidValueError) as raised:
        decode_body(msgspec.json.Decoder(Meal), body)
    assert (raised.value.param, raised.value.hint) == (param, hint)


@pytest.mark.parametrize("kind", [ChatRequest, EmbeddingRequest, Submission])
def test_an_unknown_priority_names_those_there_are(kind: type[msgspec.Struct]) -> None:
    with pytest.raises(InvalidValueError) as raised:
        decode_body(msgspec.json.Decoder(kind), b'{"priority": "urgent"}')
    assert raised.value.message.startswith("priority: ")
    assert raised.value.hint == "It is one of high, medium, low."
