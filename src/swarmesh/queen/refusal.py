"""An engine's answer of 400 and above, read whole and told in our envelope."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from swarmesh.core.errors import EngineError, SwarmeshError, TaskRefusedError
from swarmesh.core.poison import ENGINE_CRASHED
from swarmesh.core.refusals import NOT_READY
from swarmesh.core.way_on import way_on
from swarmesh.wire.http1 import ResponseHead

REFUSAL_BYTES_MAX: Final = 64 * 1024
"""More of an error's body is not read for its message."""

BROKEN_MARK: Final = b": broken "
"""Begins the comment in which an agent says why it cuts a stream."""

_KEPT_OUT = frozenset({401, 403, 409})
"""Among them an agent that obeys a later queen, or a later attempt."""
_PASSING = frozenset({409, 502, 503, 504})
_NOT_IMPLEMENTED = 501
_TOLD = frozenset({NOT_READY, ENGINE_CRASHED})


class Refusal:
    """Collects the body of one error answer.

    Attributes:
        status: The engine's HTTP status.
    """

    __slots__ = ("_framer", "_kept", "_payload", "status")

    def __init__(self, head: ResponseHead) -> None:
        self.status = head.status
        self._framer = head.framer()
        self._payload: list[bytes] = []
        self._kept = 0

    @property
    def is_workers_fault(self) -> bool:
        """Whether the same task may go well elsewhere: the worker does not let the queen in, or it failed.

        What it has not learned (501) none of its kind has; that is told to the client.
        """
        return self.status in _KEPT_OUT or (self.status >= 500 and self.status != _NOT_IMPLEMENTED)

    @property
    def is_final(self) -> bool:
        """Whether the same worker would answer the same again; one that restarts its engine would not."""
        return self.status not in _PASSING

    @property
    def is_full(self) -> bool:
        """No more of it is read; an error that never ends must not hold its request for ever."""
        return self._kept > REFUSAL_BYTES_MAX

    @property
    def code(self) -> str:
        """Of the broken stream that this is to the core: the agent's own where the core knows what it means."""
        told = _error_of(b"".join(self._payload)).get("code")
        return told if told in _TOLD else "engine_unavailable"

    def feed(self, data: bytes) -> None:
        """Take in bytes of the answer, framing included."""
        if self._framer is None or self.is_full:
            return
        self._framer.feed(data, self._payload)
        self._kept += len(data)

    def error(self) -> SwarmeshError:
        """What the engine said, with a code of ours; its own text stays the message."""
        message = _message(b"".join(self._payload)) or f"the engine answered {self.status} and said nothing"
        if self.status >= 500 and self.status != _NOT_IMPLEMENTED:
            return EngineError(message, hint="The rustbee's log has more: its work directory is in SWARMESH_HOME.")
        error = TaskRefusedError(message, hint=way_on(message))
        error.status = self.status
        return error


def _message(body: bytes) -> str:
    try:
        said: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body[:500].decode("utf-8", "replace").strip()
    if isinstance(said, dict):
        error = said.get("error", said)
        if isinstance(error, dict):
            error = error.get("message", error)
        return str(error)[:2000]
    return str(said)[:2000]


def _error_of(body: bytes) -> dict[str, Any]:
    try:
        error = msgspec.json.decode(body, type=dict[str, Any]).get("error")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return error if isinstance(error, dict) else {}


def told_code(last: bytes) -> str:
    """Why an agent cut its stream, as it says in the last bytes; empty when it does not."""
    _, found, told = last.rpartition(BROKEN_MARK)
    return told.partition(b"\n")[0].decode("ascii", "replace")[:64] if found else ""
