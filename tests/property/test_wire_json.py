"""Whatever a client sends as a body, the answer is a value or an error of ours."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmesh.core.errors import BadInputError
from swarmesh.wire.body import JSON_DEPTH_MAX, decode_body
from swarmesh.wire.errors import remote_error
from swarmesh.wire.flow import Submission
from swarmesh.wire.openai import ChatRequest
from swarmesh.wire.waggle import Waggle

ANYTHING = msgspec.json.Decoder(Any)
SHAPES: list[msgspec.json.Decoder[Any]] = [msgspec.json.Decoder(kind) for kind in (ChatRequest, Submission, Waggle)]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["model", "messages", "prompt", "max_tokens", "stop", "rustbee_id", "load", "priority", "stream"]
)


@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
@settings(deadline=None)
def test_noise_is_a_value_or_an_error_of_ours(body: bytes) -> None:
    for decoder in [ANYTHING, *SHAPES]:
        try:
            decode_body(decoder, body)
        except BadInputError as error:
            assert error.message  # noqa: PT017 - both outcomes are fine, nothing else is


@given(st.dictionaries(FIELDS, VALUES, max_size=5))
@settings(deadline=None)
def test_a_wrong_value_is_an_error_that_names_a_field(fields: dict[str, Any]) -> None:
    for decoder in SHAPES:
        try:
            decode_body(decoder, json.dumps(fields).encode())
        except BadInputError as error:
            assert error.param  # noqa: PT017 - both outcomes are fine, nothing else is


@given(VALUES)
@settings(deadline=None)
def test_json_that_is_not_too_deep_is_decoded(value: Any) -> None:
    assert decode_body(ANYTHING, json.dumps(value).encode()) == value


@given(st.lists(st.sampled_from(["[", "{", '"[', '"}', '\\"']), min_size=1, max_size=300), st.integers(1, 130))
@settings(deadline=None)
def test_depth_is_what_is_counted_not_brackets(noise: list[str], depth: int) -> None:
    value: Any = "".join(noise)  # Text full of brackets and quotes, at the bottom of a real nest.
    for _ in range(depth):
        value = [value]
    body = json.dumps(value).encode()
    if depth <= JSON_DEPTH_MAX:
        assert decode_body(ANYTHING, body) == value
    else:
        with pytest.raises(BadInputError, match="levels deep"):
            decode_body(ANYTHING, body)


@given(st.integers(400, 599), st.binary(max_size=300))
@settings(deadline=None)
def test_any_error_answer_can_be_told(status: int, body: bytes) -> None:
    assert remote_error(status, body).message
