"""An engine's error: whose fault it is, and what the client reads of it."""

from __future__ import annotations

import pytest

from swarmesh.core.errors import EngineError, TaskRefusedError
from swarmesh.engines.refusal import engine_error
from swarmesh.queen.refusal import REFUSAL_BYTES_MAX, Refusal
from swarmesh.wire.http1 import parse_response_head


def refusal(status: int, body: bytes, *, chunked: bool = False) -> Refusal:
    framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(body)
    refused = Refusal(parse_response_head(b"HTTP/1.1 %d X\r\n%s" % (status, framing)))
    framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    for place in range(0, len(framed), 7):
        refused.feed(framed[place : place + 7])
    return refused


@pytest.mark.parametrize(
    ("status", "workers_fault"),
    [(400, False), (404, False), (413, False), (422, False), (429, False), (501, False)]
    + [(status, True) for status in (401, 403, 500, 502, 503, 504, 529)],
)
def test_whose_fault_it_is(status: int, workers_fault: bool) -> None:  # noqa: FBT001 - a column of a table
    assert refusal(status, b"{}").is_workers_fault is workers_fault


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "too long", "type": "x"}}', "too long"),
        (b'{"error": {"code": 1}}', "{'code': 1}"),
        (b'{"error": "too long"}', "too long"),
        (b'{"detail": "too long"}', "{'detail': 'too long'}"),
        (b'{"message": "too long"}', "too long"),
        (b"too long", "too long"),
        (b'["too", "long"]', "['too', 'long']"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'{"error": "\xff"}', '{"error": "\ufffd"}'),
    ],
)
def test_its_own_text_is_the_message(body: bytes, message: str, chunked: bool) -> None:  # noqa: FBT001 - a column
    assert refusal(400, body, chunked=chunked).error().message == message


def test_silence_is_told_as_such() -> None:
    assert refusal(418, b"").error().message == "the engine answered 418 and said nothing"


def test_the_client_s_mistake_keeps_its_status() -> None:
    error = refusal(422, b"no").error()
    assert isinstance(error, TaskRefusedError)
    assert (error.status, error.code, error.type) == (422, "task_refused", "invalid_request_error")


def test_what_no_engine_of_this_kind_can_do_keeps_its_status() -> None:
    assert (refusal(501, b"no embeddings").error().status, refusal(501, b"x").error().code) == (501, "task_refused")


def test_an_engine_s_failure_is_ours_to_the_client() -> None:
    error = refusal(500, b"oops").error()
    assert isinstance(error, EngineError)
    assert error.status == 502


def test_a_long_tale_is_cut() -> None:
    told = refusal(400, b"x" * (10 * REFUSAL_BYTES_MAX))
    assert len(told.error().message) <= 2000
    assert sum(map(len, told._payload)) <= REFUSAL_BYTES_MAX + 7


def test_a_prompt_beyond_the_context_has_a_way_on() -> None:
    said = b"request (5009 tokens) exceeds the available context size (2048 tokens), try increasing it"
    assert "--context N" in refusal(400, said).error().hint
    assert refusal(400, b"no").error().hint == ""
    assert "--context N" in engine_error(400, said).hint
