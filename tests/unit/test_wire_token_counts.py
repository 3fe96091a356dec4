"""Counts at the end of an answer, in the shapes that servers give them."""

from __future__ import annotations

import json

import pytest

from swarmesh.wire.sse import DONE_MARK, SseEvent, SseReader, render
from swarmesh.wire.token_counts import (
    NOT_TOLD,
    TokenCounts,
    answer_id,
    counted,
    has_content,
    shown_tokens,
    told_at_end,
    told_in_whole,
)

USAGE = {"completion_tokens": 5, "prompt_tokens": 9, "total_tokens": 14}


def whole(**more: object) -> bytes:
    choice = {"index": 0, "message": {"content": 'he said "usage":{"prompt_tokens":1}\n: u 7,7,7\n'}}
    return json.dumps({"id": "chatcmpl-a1", "choices": [choice], **more}).encode()


@pytest.mark.parametrize(
    ("tail", "counts"),
    [
        (b"", NOT_TOLD),
        (whole(), NOT_TOLD),
        (whole(usage=None), NOT_TOLD),
        (whole(usage=USAGE), TokenCounts(9, -1, 5)),
        (whole(usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 8}}), TokenCounts(9, 8, 5)),
        (whole(usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 80}}), TokenCounts(9, 9, 5)),
        (whole(usage=USAGE, timings={"cache_n": 3, "prompt_n": 6, "predicted_n": 5}), TokenCounts(9, -1, 5)),
        (whole(timings={"cache_n": 3, "prompt_n": 6, "prompt_ms": 1.5, "predicted_n": 5}), TokenCounts(9, 3, 5)),
        (whole(timings={"prompt_n": 6, "predicted_n": 5}), TokenCounts(6, -1, 5)),
        (b'{"data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}', TokenCounts(8, -1, 0)),
        (b"data: x\n\nid: 4\n: u 12,-1,7\ndata: [DONE]\n\n\r\n0\r\n\r\n", TokenCounts(12, -1, 7)),
        (b'data: {"usage":{"prompt_tokens":1}}\n\n: u 12,4,7\ndata: [DONE]\n\n', TokenCounts(12, 4, 7)),
        (b": u 12,4,7", NOT_TOLD),
        (b": u 12,4\ndata: [DONE]\n\n", NOT_TOLD),
        (b": u 12,4,-7\ndata: [DONE]\n\n", NOT_TOLD),
        (b": u 12,4,7777777777777\ndata: [DONE]\n\n", NOT_TOLD),
    ],
)
def test_counts_at_the_end(tail: bytes, counts: TokenCounts) -> None:
    assert told_at_end(tail) == counts


@pytest.mark.parametrize(
    ("body", "counts"),
    [
        (whole(usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 80}}), TokenCounts(9, 9, 5)),
        (whole(usage={**USAGE, "prompt_tokens_details": {"audio_tokens": 0}}), TokenCounts(9, -1, 5)),
        (whole(usage={**USAGE, "prompt_tokens_details": None}), TokenCounts(9, -1, 5)),
        (whole(usage={"prompt_tokens": 8, "total_tokens": 8}), TokenCounts(8, -1, 0)),
        (whole(), NOT_TOLD),
        (whole(usage={"prompt_tokens": "9"}), None),
        (b"2\r\n{}\r\n0\r\n\r\n", None),
        (b"\xff", None),
        (b"", None),
        (b"[" * 100_000, None),
    ],
)
def test_counts_in_a_whole_answer(body: bytes, counts: TokenCounts | None) -> None:
    told = told_in_whole(body)
    assert told == (None if counts is None else (counts, "chatcmpl-a1"))


def test_the_line_is_a_comment_of_its_event() -> None:
    event = SseEvent(DONE_MARK, seq=9, counts=TokenCounts(812, 768, 96))
    rendered = render(event)
    assert rendered == b"id: 9\n: u 812,768,96\ndata: [DONE]\n\n"
    assert SseReader().feed(rendered) == [event]
    assert SseReader().feed(rendered.replace(b"812", b"-812")) == [SseEvent(DONE_MARK, seq=9)]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (whole(), "chatcmpl-a1"),
        (b'data: {"choices":[{"delta":{"tool_calls":[{"id":"call_1"}]}}],"id":"cmpl-x_2:3.4"}\n\n', "cmpl-x_2:3.4"),
        (b'{"id":"chatcmpl-' + b"x" * 200 + b'"}', ""),
        (b'{"id": "resp_1"}', ""),
    ],
)
def test_the_id_of_an_answer(data: bytes, name: str) -> None:
    assert answer_id(data) == name


@pytest.mark.parametrize(
    ("delta", "has"),
    [
        ({"role": "assistant", "content": ""}, False),
        ({"role": "assistant", "content": None}, False),
        ({"content": "H"}, True),
        ({"content": "\n"}, True),
        ({"reasoning_content": "Hm"}, True),
        ({"tool_calls": [{"index": 0, "function": {"name": "look", "arguments": ""}}]}, True),
    ],
)
def test_content_is_told_from_an_opening(delta: dict[str, object], *, has: bool) -> None:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], "id": "chatcmpl-1"}
    for said in (json.dumps(chunk), json.dumps(chunk, separators=(",", ":"))):
        assert has_content(f"data: {said}\n\n".encode()) is has
    assert not has_content(b": ping\n")
    assert has_content(b'data: {"choices":[{"text":"a"}]}')


HUGE = 10**400


@pytest.mark.parametrize("absurd", [{"completion_tokens": HUGE}, {"completion_tokens": -5}, {"prompt_tokens": 10**11}])
def test_what_cannot_be_is_not_told(absurd: dict[str, int]) -> None:
    body = whole(usage={**USAGE, **absurd})
    assert told_in_whole(body) == (NOT_TOLD, "chatcmpl-a1")
    assert told_at_end(body).completion in (0, 5)
    assert told_at_end(body).prompt in (0, 9)
    assert told_at_end(b": u 12,4,999999999999\ndata: [DONE]\n\n") == NOT_TOLD
    assert counted(9, 80, 5) == TokenCounts(9, 9, 5)
    assert counted(9, -7, 5) == TokenCounts(9, -1, 5)


def event(text: str, field: str = "content") -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {field: text}}]}).encode() + b"\n\n"


def test_what_was_shown_is_about_a_token_in_each_event() -> None:
    opening = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
    ending = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    assert shown_tokens(opening + ending) == shown_tokens(b"") == 0
    assert shown_tokens(opening + event("tok ") * 50 + ending) == 50
    assert shown_tokens(event('"') + event("\\") + event("hm", "reasoning_content")) == 3
    assert shown_tokens(event("four" * 25)) == 25, "some servers send many at once"
