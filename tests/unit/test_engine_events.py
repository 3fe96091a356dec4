"""Engine events on the wire, and what error answers mean."""

from __future__ import annotations

import pytest

from swarmesh.core.errors import EngineError, SwarmeshError, TaskRefusedError
from swarmesh.engines.engine import Done, EngineEvent, Token
from swarmesh.engines.errors import TaskFailedError
from swarmesh.engines.events import read_event, render_error, render_event
from swarmesh.engines.refusal import engine_error
from swarmesh.wire.flow import Usage
from swarmesh.wire.sse import SseEvent, SseReader


def over_the_wire(data: bytes) -> SseEvent:
    (event,) = SseReader().feed(data)
    return event


@pytest.mark.parametrize(
    "event",
    [
        Token("häh 🐝", (1, 2)),
        Token(media_type="image/png", base64="aGk="),
        Token(value={"a": [1, None]}),
        Token(value=False),
        Done("length", Usage(1, 2, 3)),
    ],
)
def test_events_survive_the_wire(event: EngineEvent) -> None:
    read = over_the_wire(render_event(event, 5, "job-1"))
    assert read.seq == 5
    assert read_event(read) == event


@pytest.mark.parametrize(
    "error", [TaskRefusedError("no"), TaskFailedError("ValueError: x", hint="look"), EngineError("dead")]
)
def test_errors_survive_the_wire(error: SwarmeshError) -> None:
    with pytest.raises(type(error)) as caught:
        read_event(over_the_wire(render_error(error, 1)))
    assert (caught.value.message, caught.value.code, caught.value.hint) == (error.message, error.code, error.hint)


@pytest.mark.parametrize("data", [SseEvent(b"{}", "surprise"), SseEvent(b"[]", "token")])
def test_other_events_are_the_engines_fault(data: SseEvent) -> None:
    with pytest.raises(EngineError):
        read_event(data)


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (400, b'{"error":{"code":400,"message":"too long","type":"x"}}', TaskRefusedError, "too long"),
        (501, b'{"error":{"code":501,"message":"no rerank"}}', TaskRefusedError, "no rerank"),
        (422, b'{"error":{"code":"task_failed","message":"ValueError: x"}}', TaskFailedError, "ValueError: x"),
        (503, b'{"error":{"message":"loading"}}', EngineError, "503: loading"),
        (401, b'{"error":{"message":"Invalid API Key"}}', EngineError, "401: Invalid"),
        (500, b'{"error":{"message":"input (524 tokens) is too large to process"}}', TaskRefusedError, "524 tokens"),
        (400, b"<html>", TaskRefusedError, "<html>"),
        (500, b"", EngineError, "500: nothing"),
    ],
)
def test_an_error_answer_says_whose_fault_it_is(status: int, body: bytes, kind: type[SwarmeshError], said: str) -> None:
    error = engine_error(status, body)
    assert type(error) is kind
    assert said in error.message
    if kind is not EngineError:
        assert error.status == (400 if status == 500 else status)
