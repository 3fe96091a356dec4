"""Nectarflows on the wire: a submission, its views, and the events of its stream (SPEC section 4)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from swarmesh.core.ids import Priority
from swarmesh.wire.errors import ErrorBody
from swarmesh.wire.prefix import prefix_of
from swarmesh.wire.resume import Resume

MaxTokens = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Temperature = Annotated[float, msgspec.Meta(ge=0.0, le=2.0)]
StopText = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
StopList = Annotated[list[StopText], msgspec.Meta(max_length=16)]


class Message(msgspec.Struct, frozen=True):
    """One turn of a chat. ``content`` is text, or OpenAI's list of parts, which is passed on unread."""

    role: Annotated[str, msgspec.Meta(max_length=32)]
    content: msgspec.Raw


class Submission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task as the client sends it: exactly one of ``prompt``, ``messages``, ``input``.

    A ``prompt`` is one user message; ``input`` is anything JSON can say, for a rustbee of the user's own class.
    """

    prompt: str | None = None
    messages: Annotated[list[Message], msgspec.Meta(min_length=1, max_length=1024)] | None = None
    input: msgspec.Raw | UnsetType = UNSET
    modelcell: Annotated[str, msgspec.Meta(max_length=128)] = ""
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: StopText | StopList | None = None
    priority: Priority = Priority.MEDIUM
    stream: bool = False

    def prefix(self) -> tuple[int, ...]:
        """How its prompt begins, see `swarmesh.wire.prefix`: the same as for a chat that says it in compact JSON."""
        if self.input is not UNSET:
            return prefix_of(bytes(self.input))
        messages: object = self.messages or [{"role": "user", "content": self.prompt}]
        return prefix_of(msgspec.json.encode(messages))


class ExecuteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A task as the queen gives it to a worker (``POST /execute``). Unknown fields are ignored."""

    prompt: str | None = None
    messages: list[Message] | None = None
    input: msgspec.Raw | UnsetType = UNSET
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    resume: Resume | None = None


class Usage(msgspec.Struct, frozen=True):
    """Tokens read and written."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class TokenData(msgspec.Struct, frozen=True, omit_defaults=True):
    """``event: token``: the next piece of the answer.

    Attributes:
        text: Text to append.
        media_type: Set for a piece that is not text, for example ``image/png``; then ``base64`` holds it.
        value: A JSON value, from a rustbee of the user's own class.
    """

    text: str
    media_type: str = ""
    base64: str = ""
    value: Any = None


class DoneData(msgspec.Struct, frozen=True):
    """``event: done``: the whole answer was sent."""

    job_id: str
    finish_reason: str
    usage: Usage


class ErrorData(msgspec.Struct, frozen=True):
    """``event: error``: the answer ends here, incomplete."""

    error: ErrorBody


class ProgressData(msgspec.Struct, frozen=True):
    """``event: progress``: what the task waits for; says nothing about its answer.

    Attributes:
        status: Of the task: ``queued`` or ``preempted``.
        phase: Of the start it waits for: ``seeking`` a place, ``making_room`` for the modelcell, or ``loading`` it;
            ``waiting`` while it waits for anything else: its key's limit, a policy script, a free slot, its turn.
        since_s: How long the start has been going on, or the task has waited.
        expected_s: How long loading took there before; null when it never did, and for ``waiting``.
        message: The same in a sentence.
    """

    job_id: str
    status: str
    modelcell: str
    phase: str
    since_s: float
    expected_s: float | None
    message: str


class Accepted(msgspec.Struct, frozen=True):
    """The answer to a submission without ``stream``."""

    job_id: str
    status: str


class FlowView(msgspec.Struct, frozen=True):
    """A task as ``GET /v2/swarmesh/nectarflow/{id}`` shows it; times are Unix seconds.

    Attributes:
        decision: Why it went where it went, in words; null when it has not gone yet, or the queen has forgotten.
        waiting_because: Why it waits, in words; null when it does not, and in lists.
    """

    job_id: str
    status: str
    modelcell: str
    priority: str
    attempts: int
    rustbee_id: str | None
    created_at: float
    finished_at: float | None
    usage: Usage | None
    error: ErrorBody | None
    decision: str | None = None
    waiting_because: str | None = None


class TokensView(msgspec.Struct, frozen=True):
    """What a task produced so far, as ``GET /v2/swarmesh/honeytokens/{id}`` shows it.

    ``outputs`` holds the pieces that are not plain text, in order.
    """

    job_id: str
    status: str
    text: str
    last_seq: int
    usage: Usage | None
    outputs: tuple[TokenData, ...] = ()
