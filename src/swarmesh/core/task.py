"""One task as the core sees it: sizes and places, never its text."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId, WorkerId

TIMED_READING_MS: Final = 100
"""A prompt that is expected to be read in less is not worth a word."""


class TaskStatus(StrEnum):
    """Where a task is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    PREEMPTED = "preempted"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True when nothing can happen to the task any more."""
        return self in _FINAL


_FINAL = frozenset({TaskStatus.DONE, TaskStatus.FAILED, TaskStatus.CANCELLED})


class TaskFact(StrEnum):
    """What can happen to a task."""

    DISPATCHED = "dispatched"
    REQUEUED = "requeued"
    PREEMPTED = "preempted"
    ENDED = "ended"
    FAILED = "failed"
    CANCELLED = "cancelled"


TASK_TABLE: dict[tuple[TaskStatus, TaskFact], TaskStatus] = {
    (TaskStatus.QUEUED, TaskFact.DISPATCHED): TaskStatus.RUNNING,
    (TaskStatus.QUEUED, TaskFact.FAILED): TaskStatus.FAILED,
    (TaskStatus.QUEUED, TaskFact.CANCELLED): TaskStatus.CANCELLED,
    (TaskStatus.RUNNING, TaskFact.REQUEUED): TaskStatus.QUEUED,
    (TaskStatus.RUNNING, TaskFact.PREEMPTED): TaskStatus.PREEMPTED,
    (TaskStatus.RUNNING, TaskFact.ENDED): TaskStatus.DONE,
    (TaskStatus.RUNNING, TaskFact.FAILED): TaskStatus.FAILED,
    (TaskStatus.RUNNING, TaskFact.CANCELLED): TaskStatus.CANCELLED,
    (TaskStatus.PREEMPTED, TaskFact.DISPATCHED): TaskStatus.RUNNING,
    (TaskStatus.PREEMPTED, TaskFact.FAILED): TaskStatus.FAILED,
    (TaskStatus.PREEMPTED, TaskFact.CANCELLED): TaskStatus.CANCELLED,
}


class IllegalTransitionError(ValueError):
    """A fact that cannot happen in this state; the state is left as it was."""


class Task(msgspec.Struct, gc=False):
    """A task between its submission and its end; final tasks leave the core.

    Attributes:
        durable: The task is in the hivecomb, so its changes must be recorded there.
        prompt_chars: Size of what is asked as JSON, the base of the predicted work.
        max_tokens: Upper bound of generated tokens, 0 when the client set none.
        resumable: What was shown of it can be gone on with, so that it may be preempted.
        fingerprint: Equal for requests that ask the same; 0 when nobody knows.
        band: Where it waits: its priority, or a higher one when it has waited too long.
        attempt: How often the task was dispatched; names the stream that may speak for it.
        moves: How often a worker failed it.
        kills: Engines that crashed because of it, as far as anybody can tell.
        cleared: It has produced something since the last crash it may have caused.
        watched_to_end: Producing something does not clear it: it crashed an engine late before.
        kept: A script kept it from every worker when it was last asked.
        tried: Workers that failed it, not picked again while there are others.
        barred: Those of them that would answer the same again, never picked again.
        prefix: Hashes of the prompt's first blocks, each chained to the one before.
        started_at_ms: Of its present attempt.
        uncached_tokens: Of the prompt, what the worker is thought to have to read.
        believed_blocks: Of ``prefix``, what the worker was thought to have read before.
        crowd_ms: `Pace.crowd_ms` of the worker when it was given this task.
        reads_at_once: The worker had no other prompt to read when it was given this one.
        reading_ms: How long the worker was expected to read of the prompt what it does not know.
        read_mark_ms: `Pace.read_sum_ms` of the worker with this prompt.
        charge: Predicted work in token-equivalents on the ledger of ``worker_id``.
        serial: Rises with every dispatch of any task; the highest is the newest.
        engine_pid: The engine it was dispatched to, as the worker had reported it.
        preempted_at_ms: When its slot was taken; 0 while nobody has.
    """

    task_id: TaskId
    model: ModelName
    priority: Priority
    key_id: KeyId
    durable: bool
    prompt_chars: int
    max_tokens: int
    submitted_at_ms: int
    band: Priority
    resumable: bool = False
    fingerprint: int = 0
    status: TaskStatus = TaskStatus.QUEUED
    attempt: int = 0
    worker_id: WorkerId | None = None
    queued_at_ms: int = 0
    queue_ms: int = 0
    charge: float = 0.0
    serial: int = 0
    engine_pid: int = 0
    moves: int = 0
    kills: int = 0
    cleared: bool = False
    watched_to_end: bool = False
    preemptions: int = 0
    preempted_at_ms: int = 0
    kept: bool = False
    tried: set[WorkerId] = msgspec.field(default_factory=set)
    barred: set[WorkerId] = msgspec.field(default_factory=set)
    prefix: tuple[int, ...] = ()
    started_at_ms: int = 0
    uncached_tokens: float = 0.0
    believed_blocks: int = 0
    reads_at_once: bool = False
    reading_ms: int = 0
    read_mark_ms: int = 0
    crowd_ms: int = 0

    @property
    def is_timed(self) -> bool:
        """Its first token is news: it says when its worker can read another prompt."""
        return self.reading_ms >= TIMED_READING_MS

    @property
    def on_probation(self) -> bool:
        """It may have crashed an engine, and has not shown yet that it did not."""
        return self.kills > 0 and not self.cleared

    def apply(self, fact: TaskFact) -> None:
        """Move to the next state.

        Raises:
            IllegalTransitionError: The table has no such move; nothing changed.
        """
        following = TASK_TABLE.get((self.status, fact))
        if following is None:
            raise IllegalTransitionError(f"task {self.task_id} is {self.status} and cannot be {fact}")
        self.status = following
