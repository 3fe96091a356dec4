"""Engine events as server-sent events, and back."""

from __future__ import annotations

import msgspec

from swarmesh.core.errors import EngineError, ResumeDivergedError, SwarmeshError, TaskRefusedError
from swarmesh.engines.engine import Done, EngineEvent, Token
from swarmesh.engines.errors import TaskFailedError
from swarmesh.wire.errors import ErrorBody, error_body
from swarmesh.wire.flow import DoneData, ErrorData, TokenData
from swarmesh.wire.sse import SseEvent, render
from swarmesh.wire.token_counts import UNKNOWN

TASKS_FAULT: str = TaskRefusedError.type
"""The error type that says: sending this again elsewhere will not help."""


def render_event(event: EngineEvent, seq: int | None, job_id: str) -> bytes:
    """An event's bytes. Raises TypeError when a token's value has no JSON form."""
    if isinstance(event, Done):
        data = msgspec.json.encode(DoneData(job_id, event.finish_reason, event.usage))
        return render(SseEvent(data, "done", seq, counts=event.counts))
    token = TokenData(event.text, event.media_type, event.base64, event.value)
    return render(SseEvent(msgspec.json.encode(token), "token", seq, event.token_ids))


def render_error(error: SwarmeshError, seq: int | None) -> bytes:
    """The bytes of the event that ends an answer which is not whole."""
    return render(SseEvent(msgspec.json.encode(ErrorData(error_body(error))), "error", seq))


def read_event(event: SseEvent) -> EngineEvent:
    """The event that was rendered.

    Raises:
        SwarmeshError: It tells of an error (that one), or is none of ours (EngineError).
    """
    try:
        match event.name:
            case "token":
                token = msgspec.json.decode(event.data, type=TokenData)
                return Token(token.text, event.token_ids, token.media_type, token.base64, token.value)
            case "done":
                done = msgspec.json.decode(event.data, type=DoneData)
                cached = event.counts.cached if event.counts is not None else UNKNOWN
                return Done(done.finish_reason, done.usage, cached)
            case "error":
                raise error_of(msgspec.json.decode(event.data, type=ErrorData).error)
            case _:
                raise EngineError(f"the engine sent an event {event.name[:32]!r}")
    except msgspec.DecodeError as error:
        raise EngineError(f"the engine sent an event that cannot be read: {error}") from error


def error_of(body: ErrorBody) -> SwarmeshError:
    """The error that an engine's process reported."""
    if body.code == TaskFailedError.code:
        return TaskFailedError(body.message, hint=body.hint)
    if body.code == ResumeDivergedError.code:
        return ResumeDivergedError(body.message, hint=body.hint)
    if body.type == TASKS_FAULT:
        return TaskRefusedError(body.message, hint=body.hint)
    return EngineError(body.message, hint=body.hint)
