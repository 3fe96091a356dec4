"""One nectarflow while it lives: its events in order, and everybody who follows them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Protocol

import msgspec

from swarmesh.core.decision import Decision
from swarmesh.core.errors import SwarmeshError
from swarmesh.core.ids import KeyId, TaskId
from swarmesh.core.task import TaskStatus
from swarmesh.net.event_stream import EventStream
from swarmesh.net.exchange import Exchange
from swarmesh.queen.decision_book import NOBODY
from swarmesh.store.records import TaskRecord, TokenRow
from swarmesh.wire.errors import ErrorBody, error_body
from swarmesh.wire.flow import DoneData, ErrorData, FlowView, ProgressData, TokenData, TokensView, Usage
from swarmesh.wire.http1 import Headers
from swarmesh.wire.sse import PING, SseEvent, render

JSON_TYPE = "application/json"


def token_data(row: TokenRow) -> TokenData:
    """A stored row as clients see it."""
    if row.data is None:
        return TokenData(text=row.text)
    if row.media_type == JSON_TYPE:
        return TokenData(text=row.text, value=msgspec.json.decode(row.data))
    return TokenData(
        text=row.text, media_type=row.media_type or "", base64=base64.standard_b64encode(row.data).decode()
    )


def token_event(row: TokenRow) -> bytes:
    """A stored row as an event."""
    return render(SseEvent(msgspec.json.encode(token_data(row)), "token", row.seq, row.token_ids))


def final_event(record: TaskRecord) -> bytes:
    """The last event of a task that is over."""
    if record.status == TaskStatus.DONE:
        usage = usage_of(record) or Usage()
        done = DoneData(record.task_id, record.finish_reason or "stop", usage)
        return render(SseEvent(msgspec.json.encode(done), "done"))
    body = error_of(record) or ErrorBody("cancelled", "the task was cancelled")
    return render(SseEvent(msgspec.json.encode(ErrorData(body)), "error"))


def is_shown_to(key_id: KeyId | None, record: TaskRecord) -> bool:
    """Whether a key may know of a task; None for one that may know of all. What is nobody's is everybody's."""
    return key_id is None or record.key_id in (key_id, NOBODY)


def shown_tokens(flow: Flow) -> int:
    """About how much of its answer there is; an engine that does not name its tokens gives one at a time."""
    return sum(len(row.token_ids) or 1 for row in flow.rows)


def usage_of(record: TaskRecord) -> Usage | None:
    """Tokens read and written, once they are known."""
    if record.prompt_tokens is None and record.completion_tokens is None:
        return None
    prompt, completion = record.prompt_tokens or 0, record.completion_tokens or 0
    return Usage(prompt, completion, prompt + completion)


def error_of(record: TaskRecord) -> ErrorBody | None:
    """Why it failed, if it did."""
    if record.error_code is None:
        return None
    return ErrorBody(record.error_code, record.error_message or "", record.error_hint or "")


def flow_view(record: TaskRecord, decision: Decision | None = None, waiting_because: str | None = None) -> FlowView:
    """A task as its owner sees it."""
    return FlowView(
        job_id=record.task_id,
        status=record.status,
        modelcell=record.modelcell,
        priority=record.priority,
        attempts=record.attempts,
        rustbee_id=record.worker_id,
        created_at=record.created_at_ms / 1000,
        finished_at=record.finished_at_ms / 1000 if record.finished_at_ms is not None else None,
        usage=usage_of(record),
        error=error_of(record),
        decision=decision.in_words() if decision is not None else None,
        waiting_because=waiting_because,
    )


def tokens_view(record: TaskRecord, rows: list[TokenRow]) -> TokensView:
    """What a task produced so far."""
    return TokensView(
        job_id=record.task_id,
        status=record.status,
        text="".join(row.text for row in rows),
        last_seq=rows[-1].seq if rows else 0,
        usage=usage_of(record),
        outputs=tuple(token_data(row) for row in rows if row.data is not None),
    )


class Dialect(Protocol):
    """How the events of a task are said to one kind of client."""

    def opening(self, record: TaskRecord) -> bytes:
        """What comes before the first token."""

    def token(self, row: TokenRow) -> bytes:
        """One token."""

    def closing(self, record: TaskRecord) -> bytes:
        """What comes after the last one, when the task is over."""

    def progress(self, progress: ProgressData) -> bytes:
        """What the task waits for; no part of its answer, so it is never said again."""


class FlowDialect:
    """``event: token``, ``event: done``, ``event: error``, and ``event: progress`` before them."""

    def opening(self, record: TaskRecord) -> bytes:  # noqa: ARG002 - the protocol's signature
        """See `Dialect`."""
        return b""

    def token(self, row: TokenRow) -> bytes:
        """See `Dialect`."""
        return token_event(row)

    def closing(self, record: TaskRecord) -> bytes:
        """See `Dialect`."""
        return final_event(record)

    def progress(self, progress: ProgressData) -> bytes:
        """See `Dialect`; without an id, so that a client who comes back names the last token all the same."""
        return render(SseEvent(msgspec.json.encode(progress), "progress"))


FLOW_DIALECT = FlowDialect()


class Flow:
    """A task that is queued or running.

    Attributes:
        record: Its present state; replaced, never changed.
        rows: What it produced so far, by rising seq.
        is_over: Nothing will follow.
    """

    def __init__(self, record: TaskRecord, rows: Sequence[TokenRow] = ()) -> None:
        self.record = record
        self.rows = list(rows)
        self.is_over = False
        self._followers: set[Follower] = set()
        self._events = [token_event(row) for row in rows]

    @property
    def task_id(self) -> TaskId:
        """Its name."""
        return self.record.task_id

    def append(self, row: TokenRow) -> None:
        """Add to the answer and let every follower see it at once."""
        assert row.seq == len(self.rows) + 1, "tokens are numbered without gaps"
        self.rows.append(row)
        self._events.append(token_event(row))
        for follower in list(self._followers):
            follower.pump()

    def over(self, record: TaskRecord) -> None:
        """The task has ended in ``record``; followers get the last event and their streams end."""
        self.record = record
        self.is_over = True
        for follower in list(self._followers):
            follower.pump()

    def follow(
        self,
        exchange: Exchange,
        *,
        after_seq: int,
        first: bytes = b"",
        dialect: Dialect = FLOW_DIALECT,
        headers: Headers | None = None,
    ) -> None:
        """Answer an exchange with the events from ``after_seq`` on, those to come included."""
        first += dialect.opening(self.record) if not after_seq else b""
        stream = EventStream(exchange, headers)
        if first:
            stream.send(first)
        follower = Follower(self, exchange, stream, after_seq=after_seq, dialect=dialect)
        self._followers.add(follower)
        follower.pump()

    def ping(self) -> None:
        """Keep quiet streams open."""
        for follower in list(self._followers):
            follower.ping()

    def tell(self, progress: ProgressData) -> None:
        """Let every follower know what the task waits for."""
        for follower in list(self._followers):
            follower.tell(progress)

    @property
    def is_followed(self) -> bool:
        """Somebody listens."""
        return bool(self._followers)

    def events_from(self, index: int, dialect: Dialect) -> bytes:
        """Events of tokens from an index on, in one piece."""
        if dialect is FLOW_DIALECT:  # Rendered once for everybody.
            return b"".join(self._events[index:])
        return b"".join(map(dialect.token, self.rows[index:]))

    def dismiss(self, follower: Follower) -> None:
        """A follower has left or has everything."""
        self._followers.discard(follower)


class Follower:
    """One client that follows a flow. A slow one waits by itself; it holds an index, not a copy."""

    def __init__(
        self, flow: Flow, exchange: Exchange, stream: EventStream, *, after_seq: int, dialect: Dialect
    ) -> None:
        self._flow = flow
        self._dialect = dialect
        self._next = after_seq  # seq starts at 1, so the event after seq N stands at index N.
        self._paused = False
        self._stream = stream
        exchange.on_abort = self._left
        exchange.on_pause = self._slow

    def pump(self) -> None:
        """Send what is new."""
        if self._paused:
            return
        count = len(self._flow.rows)
        if self._next < count:
            events = self._flow.events_from(self._next, self._dialect)
            self._next = count
            self._stream.send(events)
        if self._flow.is_over and not self._paused:
            self._flow.dismiss(self)
            self._stream.send(self._dialect.closing(self._flow.record))
            self._stream.end()

    def ping(self) -> None:
        """Send a comment."""
        if not self._paused:
            self._stream.send(PING)

    def tell(self, progress: ProgressData) -> None:
        """Send what the task waits for."""
        if not self._paused:
            self._stream.send(self._dialect.progress(progress))

    def _left(self) -> None:
        self._flow.dismiss(self)

    def _slow(self, paused: bool) -> None:  # noqa: FBT001 - the two states of one signal
        self._paused = paused
        if not paused:
            self.pump()


def failed(record: TaskRecord, error: SwarmeshError, *, at_ms: int) -> TaskRecord:
    """The record of a task that ended in an error."""
    body = error_body(error)
    return msgspec.structs.replace(
        record,
        status=TaskStatus.FAILED.value,
        finished_at_ms=at_ms,
        error_code=body.code,
        error_message=body.message,
        error_hint=body.hint,
    )
