"""The seam to durable state: everything the queen can ask of a hivecomb."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from swarmesh.core.errors import InvalidValueError
from swarmesh.core.ids import HostName, KeyId, ModelName, TaskId, WorkerId
from swarmesh.store.records import (
    AlarmRecord,
    DecisionRecord,
    HostRecord,
    KeyRecord,
    LaunchRecord,
    LoadTimeRecord,
    ScaleRecord,
    TaskPatch,
    TaskRecord,
    TokenRow,
    WorkerRecord,
)

READ_LIMIT: Final = 10_000
"""Most rows one read returns; a larger ``limit`` is an InvalidValueError."""
READ_BYTES: Final = 16 * 1024 * 1024
"""A read of tokens or decisions that holds this much comes back with fewer rows than asked for."""
ALARMS_KEPT: Final = 1_000
"""Older alarms make room for newer ones."""
DECISIONS_KEPT: Final = 20_000
"""Older decisions make room for newer ones."""
DECISIONS_KEPT_MS: Final = 86_400_000
"""How long before the newest one a decision is kept."""
LOAD_TIMES_KEPT: Final = 1_000
"""Older ones make room for newer ones."""


def check_limit(limit: int) -> None:
    """Refuse to read without bound.

    Raises:
        InvalidValueError: ``limit`` is not in 1 … READ_LIMIT.
    """
    if not 1 <= limit <= READ_LIMIT:
        raise InvalidValueError(f"limit is {limit}; it is 1 to {READ_LIMIT}", param="limit")


class Store(Protocol):
    """Durable state, owned by one process.

    A write returns once it survives a crash; writes happen in the order they were called. A cancelled write
    may still happen. Any method raises StoreFullError (no room), StoreClosedError (after ``close``),
    StoreError (the medium failed) or InvalidValueError (cannot be held), and then has changed nothing.
    """

    async def insert_task(self, record: TaskRecord) -> TaskRecord:
        """Keep a new task; answers the earlier one when its key_id and idempotency_key were seen before.

        ConflictError: another task has this task_id.
        """

    async def update_task(self, task_id: TaskId, patch: TaskPatch) -> None:
        """Apply the patch; NotFoundError for an unknown task."""

    async def append_tokens(self, task_id: TaskId, rows: Sequence[TokenRow]) -> None:
        """Keep rows; a seq that is there already stays as it is. NotFoundError for an unknown task."""

    async def finish_task(self, task_id: TaskId, rows: Sequence[TokenRow], patch: TaskPatch) -> None:
        """Keep the rows and apply the patch as one write: whoever sees the patch sees the rows, after a crash too.

        NotFoundError for an unknown task.
        """

    async def task(self, task_id: TaskId) -> TaskRecord | None:
        """None for an unknown task."""

    async def task_by_idempotency_key(self, key_id: KeyId, idempotency_key: str) -> TaskRecord | None:
        """The task that ``insert_task`` would answer; None where this key is new."""

    async def tasks(
        self,
        *,
        statuses: Sequence[str] = (),
        limit: int = 100,
        before_ms: int | None = None,
        key_id: KeyId | None = None,
    ) -> list[TaskRecord]:
        """Newest first, without their ``request``; created strictly before ``before_ms``, and by ``key_id`` alone."""

    async def unfinished_tasks(self) -> list[TaskRecord]:
        """All that are queued, running or preempted, in the order of submission."""

    async def tokens(self, task_id: TaskId, *, after_seq: int = 0, limit: int = READ_LIMIT) -> list[TokenRow]:
        """By rising seq, the next ones above ``after_seq``, at least one; empty means that there is no more."""

    async def put_worker(self, record: WorkerRecord) -> None:
        """Keep it in place of an earlier one with the same id."""

    async def delete_worker(self, worker_id: WorkerId) -> None:
        """Forget it; an unknown one is no error."""

    async def workers(self) -> list[WorkerRecord]:
        """By id."""

    async def put_host(self, record: HostRecord) -> None:
        """Keep it in place of an earlier one with the same name."""

    async def delete_host(self, name: HostName) -> None:
        """Forget it; an unknown one is no error."""

    async def hosts(self) -> list[HostRecord]:
        """By name."""

    async def put_key(self, record: KeyRecord) -> None:
        """Keep it in place of an earlier one with the same id."""

    async def delete_key(self, key_id: KeyId) -> None:
        """Forget it; an unknown one is no error."""

    async def keys(self) -> list[KeyRecord]:
        """By id."""

    async def put_scale(self, record: ScaleRecord) -> None:
        """Keep it in place of an earlier one of the same model."""

    async def delete_scale(self, model: ModelName) -> None:
        """Forget it; an unknown one is no error."""

    async def scales(self) -> list[ScaleRecord]:
        """By model, that for all of them first."""

    async def put_load_time(self, record: LoadTimeRecord) -> None:
        """Keep it in place of an earlier one of the same model and host."""

    async def load_times(self) -> list[LoadTimeRecord]:
        """By model, then host."""

    async def put_launch(self, record: LaunchRecord) -> None:
        """Keep it in place of an earlier one of the same model."""

    async def launches(self) -> list[LaunchRecord]:
        """By model."""

    async def append_alarm(self, record: AlarmRecord) -> AlarmRecord:
        """Keep it; answers it with its alarm_id."""

    async def alarms(self, limit: int = 100) -> list[AlarmRecord]:
        """Newest first."""

    async def append_decisions(self, records: Sequence[DecisionRecord]) -> None:
        """Keep them, and forget those that are too old or too many; see `DECISIONS_KEPT`."""

    async def decisions(self, since_ms: int, *, after_id: int = 0, limit: int = READ_LIMIT) -> list[DecisionRecord]:
        """Those made since then, by rising id, the next ones above ``after_id``, at least one; empty: no more."""

    async def next_epoch(self, *, above: int = 0) -> int:
        """The life number of a queen: 1 at the first call on this hivecomb, one more at each later one.

        Always greater than ``above``: workers may know a later life than a restored or emptied hivecomb does.
        """

    async def prune(self, before_ms: int) -> int:
        """Forget tasks that finished before then, with their tokens; says how many."""

    async def close(self) -> None:
        """Finish the writes that were called, then let go; a second call does nothing."""
