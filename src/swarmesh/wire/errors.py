"""Errors as every surface shows them: OpenAI's envelope with ours inside."""

from __future__ import annotations

import msgspec

from swarmesh.core.errors import SwarmeshError


class ErrorBody(msgspec.Struct, frozen=True):
    """What went wrong, for scripts (``code``) and for people (``message``, ``hint``)."""

    code: str
    message: str
    hint: str = ""
    type: str = "server_error"
    param: str | None = None


class ErrorEnvelope(msgspec.Struct, frozen=True):
    """The body of every answer that is not a success."""

    error: ErrorBody


def error_body(error: SwarmeshError) -> ErrorBody:
    """The wire form of an error."""
    return ErrorBody(code=error.code, message=error.message, hint=error.hint, type=error.type, param=error.param)


def envelope(error: SwarmeshError) -> bytes:
    """The JSON body that tells a client about ``error``."""
    return msgspec.json.encode(ErrorEnvelope(error_body(error)))


class RemoteError(SwarmeshError):
    """An error that another process reported, with that process's own code.

    Attributes:
        task_id: What the answer called the task that it refuses; empty when it named none.
    """

    def __init__(self, body: ErrorBody, status: int, task_id: str = "") -> None:
        super().__init__(body.message, hint=body.hint, param=body.param)
        self.code, self.type, self.status = body.code, body.type, status
        self.task_id = task_id


def remote_error(status: int, body: bytes, task_id: str = "") -> RemoteError:
    """Read an error answer; one that is no envelope is quoted in part, never raised as a parse error."""
    try:
        return RemoteError(msgspec.json.decode(body, type=ErrorEnvelope).error, status, task_id)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = body[:200].decode("utf-8", "replace").strip() or "nothing"
        return RemoteError(ErrorBody(code="unexpected_answer", message=f"HTTP {status}, saying {said!r}"), status)
