"""The last decisions about tasks, so that each can be explained afterwards: what it was made of, and how it ended."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from enum import StrEnum
from typing import Final

import msgspec

from swarmesh.core.commands import CancelStream, FailTask, PreemptStream, StartStream
from swarmesh.core.decision import Decision
from swarmesh.core.events import StreamBroke, StreamEnded
from swarmesh.core.ids import KeyId, ModelName, TaskId

DECISIONS_MAX: Final = 5_000
"""Of all tasks together; the tasks that were decided about the longest ago are forgotten first."""
ATTEMPTS_MAX: Final = 100
"""Decisions about one task; of more the oldest are forgotten."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Decision)


class Outcome(StrEnum):
    """What became of one attempt."""

    RUNNING = "running"
    ENDED = "ended"
    BROKE = "broke"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"


NOBODY: Final = KeyId("")
"""What no key is called."""
_RUNNING: Final = Outcome.RUNNING
_ENDED: Final = Outcome.ENDED


class Attempt(msgspec.Struct, gc=False, eq=False):
    """One decision and what became of it.

    Attributes:
        packed: Its decision; thousands of them as objects would cost more to let go of than to make.
        at_s: Unix seconds.
        before: The attempt that it took the place of.
        key_id: Whose task it is; empty when it was gone before it started.
        why: What broke it, or took its slot, in words.
        report: What its engine told at the end.
        name: What the answer calls itself, if that is known.
        error: Why the task failed after it, in words.
    """

    task_id: TaskId
    packed: bytes
    number: int
    model: ModelName
    queue_ms: int
    at_s: float
    before: Attempt | None = None
    key_id: KeyId = NOBODY
    outcome: Outcome = _RUNNING
    why: str = ""
    report: StreamEnded | None = None
    name: str = ""
    error: str = ""

    @property
    def decision(self) -> Decision:
        """Who was chosen, and why."""
        return _decoder.decode(self.packed)


class DecisionBook:
    """Written by the driver as it acts, read by whoever asks.

    Every relayed request passes here, so that writing is what has to be cheap.
    """

    def __init__(self, decisions_max: int = DECISIONS_MAX) -> None:
        self._decisions_max = decisions_max
        self._last: dict[TaskId, Attempt] = {}
        self._order: deque[Attempt] = deque()
        self._count = 0

    def started(self, command: StartStream, key_id: KeyId = NOBODY) -> None:
        """A task of that key goes to a worker."""
        task_id, number = command.task_id, command.attempt
        before = self._last.pop(task_id, None) if number > 1 else None
        packed = _encoder.encode(command.decision)
        attempt = Attempt(task_id, packed, number, command.model, command.queue_ms, time.time(), before, key_id)
        self._last[task_id] = attempt
        self._order.append(attempt)
        self._count += 1
        if before is not None and number > ATTEMPTS_MAX:
            self._cut(task_id)
        while self._count > self._decisions_max and len(self._last) > 1:
            self._forget_oldest()

    def ended(self, report: StreamEnded, name: str = "") -> None:
        """A stream came to its end; the answer can be asked for by its own name as well."""
        attempt = self._last.get(report.task_id)
        if attempt is None or attempt.number != report.attempt or attempt.outcome is not _RUNNING:
            return
        attempt.outcome = _ENDED
        attempt.report = report
        attempt.name = name

    def broke(self, event: StreamBroke) -> None:
        """A stream ended without its end mark."""
        attempt = self._running(event.task_id, event.attempt)
        if attempt is not None:
            attempt.outcome, attempt.why = Outcome.BROKE, f"{event.code}: {event.message}"

    def took_back(self, command: PreemptStream | CancelStream) -> None:
        """The core ended an attempt that ran."""
        attempt = self._running(command.task_id, command.attempt)
        if attempt is None:
            return
        if isinstance(command, PreemptStream):
            attempt.outcome, attempt.why = Outcome.PREEMPTED, "a task of high priority took its slot"
        else:
            attempt.outcome, attempt.why = Outcome.CANCELLED, "its client left, or asked for an end"

    def failed(self, command: FailTask) -> None:
        """There will be no further attempt."""
        attempt = self._last.get(command.task_id)
        if attempt is not None:
            attempt.error = f"{command.error.code}: {command.error.message}"

    def find(self, name: str, key_id: KeyId | None = None) -> list[Attempt]:
        """All attempts at a task in order, by its id or by that of its answer; none when it is not known.

        Args:
            name: See above.
            key_id: A task of another key counts as not known; None for those of all keys.
        """
        attempt = self._last.get(TaskId(name)) or (self._by_answer(name, key_id) if name else None)
        return _chain(attempt) if attempt is not None and key_id in (None, attempt.key_id) else []

    def latest(self, task_id: TaskId) -> Decision | None:
        """The last decision about a task."""
        attempt = self._last.get(task_id)
        return attempt.decision if attempt is not None else None

    def __len__(self) -> int:
        """How many decisions are kept."""
        return self._count

    def _running(self, task_id: TaskId, number: int) -> Attempt | None:
        attempt = self._last.get(task_id)
        if attempt is None or attempt.number != number or attempt.outcome is not _RUNNING:
            return None
        return attempt

    def _forget_oldest(self) -> None:
        # Of a task that was decided about again, only the last decision says how old it is.
        oldest = self._order.popleft()
        if self._last.get(oldest.task_id) is oldest:
            del self._last[oldest.task_id]
            self._count -= 1 if oldest.before is None else len(_chain(oldest))

    def _by_answer(self, name: str, key_id: KeyId | None) -> Attempt | None:
        # Seldom asked, and then soon after: so it is looked for, the newest first, and nothing else is kept for it.
        named = (attempt for attempt in reversed(self._last.values()) if attempt.name == name)
        return next((attempt for attempt in named if key_id in (None, attempt.key_id)), None)

    def _cut(self, task_id: TaskId) -> None:
        chain = _chain(self._last[task_id])
        if len(chain) > ATTEMPTS_MAX:
            with suppress(ValueError):  # It is not there any more when others have been forgotten since.
                self._order.remove(chain[0])
            chain[1].before = None
            self._count -= 1


def _chain(last: Attempt) -> list[Attempt]:
    chain = [last]
    while (before := chain[-1].before) is not None:
        chain.append(before)
    return chain[::-1]
