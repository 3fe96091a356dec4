"""One request to the queen, described once for every transport."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import msgspec

from swarmesh.core.errors import QueenUnreachableError, SwarmeshError
from swarmesh.wire.errors import remote_error
from swarmesh.wire.hosts import Step

T = TypeVar("T")

IDEMPOTENCY_KEY: Final = "idempotency-key"
"""The header that makes a submission safe to repeat: the same key gets the same task."""


TASK_HEADER: Final = "x-swarmesh-task"
"""The header by which an answer names its task, also one that refuses it."""
SLOW_TIMEOUT_S: Final = 300.0
"""What hosts get to look through their disks, or to measure themselves, before an answer is given up."""


class UnexpectedAnswerError(SwarmeshError):
    """The queennode answered something this version cannot read."""

    code = "unexpected_answer"
    status = 502
    default_hint = "Compare 'swarmesh version' with the 'version' of 'swarmesh queennode status --json'."


class ConnectionBrokenError(QueenUnreachableError):
    """The connection to the queennode broke after the request had gone out: she may have acted on it."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """What to send, and how to read the body of a success.

    Attributes:
        read: Turns the body of a 2xx answer into the result; may raise ``msgspec.DecodeError``.
        slow: The queen asks other machines before she answers; such a request waits for `SLOW_TIMEOUT_S` at least.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    slow: bool = False

    def result(self, status: int, body: bytes, task_id: str = "") -> T:
        """The result of an answer; ``task_id`` is what its `TASK_HEADER` says.

        Raises:
            RemoteError: The queen reported an error.
            UnexpectedAnswerError: The body is not what was agreed on.
        """
        if not 200 <= status < 300:
            raise remote_error(status, body, task_id)
        try:
            return self.read(body)
        except msgspec.DecodeError as error:
            raise UnexpectedAnswerError(f"{self.method} {self.path}: {error}") from error

    def all_headers(self) -> dict[str, str]:
        """The headers this request needs beside the key."""
        return self.headers if self.body is None else {"content-type": "application/json", **self.headers}


@dataclass(frozen=True, slots=True)
class StreamCall:
    """A request whose answer is a stream of events.

    Attributes:
        job_id: The task's id where it is known before the answer, so that a first connection may be tried again.
        after: Number of the last token the caller has already.
    """

    call: Call[None]
    job_id: str = ""
    after: int = 0

    @property
    def repeatable(self) -> bool:
        """Whether the request may be sent again when nobody knows what became of it."""
        return bool(self.job_id) or IDEMPOTENCY_KEY in self.call.headers


@dataclass(frozen=True, slots=True)
class StepsCall(Generic[T]):
    """A request whose answer is a stream of steps, and at its end the result.

    Attributes:
        call: Reads the result from the data of the stream's ``done``.
        on_step: Told of each step as it comes.
    """

    call: Call[T]
    on_step: Callable[[Step], None]
