"""A later worker's events in an earlier one's framing, for every pair of the two, at every cut."""

from __future__ import annotations

import json

import pytest

from swarmesh.core.errors import EngineError, ResumeDivergedError
from swarmesh.net.request import Request
from swarmesh.queen.continuation import Continuation, is_all_shown
from swarmesh.queen.framing import Passage, passage_for
from swarmesh.wire.http1 import parse_response_head
from swarmesh.wire.openai import ChatRequest, CompletionRequest, StreamOptions
from swarmesh.wire.sse import PING, SseEvent, render
from swarmesh.wire.transcript import Replay, Transcript

CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8"
KNOWN_LENGTH = UNTIL_CLOSE + b"\r\ncontent-length: %d"


def passage(head: bytes, version: str = "1.1") -> Passage:
    request = Request("POST", b"/", [])
    request.http_1_0 = version == "1.0"
    return passage_for(parse_response_head(head), request)


def said(seq: int, text: str, finish: str | None = None) -> bytes:
    data = {"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}
    return render(SseEvent(json.dumps(data).encode(), seq=seq))


def chunks(data: bytes, size: int) -> bytes:
    parts = [data[place : place + size] for place in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


DONE = render(SseEvent(b"[DONE]", seq=4))
REST = said(2, " two") + PING + said(3, "", "stop") + DONE


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize("theirs", [CHUNKED, UNTIL_CLOSE, KNOWN_LENGTH % len(REST)], ids=["chunks", "close", "length"])
@pytest.mark.parametrize(("ours", "version"), [(CHUNKED, "1.1"), (UNTIL_CLOSE, "1.1"), (CHUNKED, "1.0")])
def test_events_come_through_whole_whatever_the_two_framings(
    ours: bytes, version: str, theirs: bytes, step: int
) -> None:
    promised = passage(ours, version)
    data = chunks(REST, 11) if theirs is CHUNKED else REST
    later = Continuation(parse_response_head(theirs), promised, None)
    shown = b""
    for place in range(0, len(data), step):
        shown += later.forward(data[place : place + step], ended=False)
        events = promised.payload(shown)
        assert REST.startswith(events)
        assert events.endswith((b"\n\n", PING)) or not events
    shown += later.forward(b"", ended=True)
    assert promised.payload(shown) == REST
    assert shown.endswith(b"0\r\n\r\n") or version == "1.0"


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_what_was_shown_is_left_out(step: int) -> None:
    promised = passage(CHUNKED)
    shown = Transcript.read(said(1, "one"))
    later = Continuation(parse_response_head(CHUNKED), promised, Replay(shown))
    data = chunks(said(1, "on") + PING + said(2, "e two") + said(3, "", "stop") + DONE, 13)
    pieces = [data[place : place + step] for place in range(0, len(data), step)]
    rest = promised.payload(b"".join(later.forward(piece, ended=False) for piece in pieces))
    assert Transcript.read(said(1, "one") + rest).choices[0].appended == {("delta", "content"): "one two"}
    assert rest.count(b"[DONE]") == rest.count(b"stop") == 1


def test_another_text_is_refused() -> None:
    later = Continuation(parse_response_head(CHUNKED), passage(CHUNKED), Replay(Transcript.read(said(1, "one"))))
    with pytest.raises(ResumeDivergedError):
        later.forward(chunks(said(1, "two"), 1000), ended=False)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\ncontent-length: 2", CHUNKED.replace(b"event-stream", b"plain")])
def test_something_else_than_events(head: bytes) -> None:
    with pytest.raises(EngineError, match="something else than events"):
        Continuation(parse_response_head(head), passage(CHUNKED), None)


@pytest.mark.parametrize(
    ("events", "wants_usage", "is_all"),
    [
        (b"", False, False),
        (said(1, "a"), False, False),
        (said(1, "a") + said(2, "", "stop"), False, True),
        (said(1, "a") + said(2, "", "stop"), True, False),
        (said(1, "a") + said(2, "", "stop") + b'data: {"choices":[],"usage":{"total_tokens":1}}\n\n', True, True),
        (said(1, "a") + DONE, True, True),
        (said(1, "a") + b'data: {"error":{"message":"m"}}\n\n', True, True),
    ],
)
def test_what_lacks_nothing_but_its_end_mark(events: bytes, wants_usage: bool, is_all: bool) -> None:  # noqa: FBT001 - columns of a table
    options = StreamOptions(include_usage=wants_usage)
    shown = Transcript.read(events)
    assert is_all_shown(shown, ChatRequest(messages=b"[]", stream_options=options)) is is_all  # type: ignore[arg-type]


@pytest.mark.parametrize(("prompt", "is_all"), [(b'"a"', True), (b'["a", "b"]', False), (b"[1, 2]", False)])
def test_of_a_list_of_prompts_nobody_knows_how_many_answers_there_are(prompt: bytes, is_all: bool) -> None:  # noqa: FBT001 - columns of a table
    shown = Transcript.read(b'data: {"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}\n\n')
    assert is_all_shown(shown, CompletionRequest(prompt=prompt)) is is_all  # type: ignore[arg-type]
