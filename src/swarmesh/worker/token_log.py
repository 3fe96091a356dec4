"""The events of running and recent tasks, so that whoever lost a stream can take it up again at a sequence number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from swarmesh.core.errors import ConflictError, SwarmeshError
from swarmesh.worker.errors import StaleAttemptError

TASKS_MAX: Final = 256
"""Ended tasks beyond this are forgotten, the oldest first."""
TASK_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of one task; beyond it its oldest events are forgotten."""
LOG_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of all ended tasks together."""


class TaskRecord:
    """One attempt's events as they are sent.

    Args:
        begun_after: The number of the last event that earlier attempts have shown; this one's first is the next.

    Attributes:
        attempt: Which attempt at the task this is; only the highest may add events.
        epoch: Of the queen who asked for it.
        ended: No event will follow.
        error: Why it ended without its end mark, as its last event says.
        listeners: Called after every change.
    """

    def __init__(self, task_id: str, *, attempt: int = 0, epoch: int = 0, begun_after: int = 0) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.epoch = epoch
        self.ended = False
        self.error: SwarmeshError | None = None
        self.listeners: list[Callable[[], None]] = []
        self.size_bytes = 0
        self._events: list[bytes] = []
        self._begun_after = begun_after
        self._before_first = begun_after

    @property
    def last_seq(self) -> int:
        """Number of the newest event, of an earlier attempt's before this one has any; 0 before there is one."""
        return self._before_first + len(self._events)

    def append(self, event: bytes) -> None:
        """Add an event that carries the number ``last_seq + 1``."""
        self._add(event)
        self._tell()

    def end(self, last_event: bytes, error: SwarmeshError | None) -> None:
        """Add the last event, which says how it ended."""
        self._add(last_event)
        self.ended, self.error = True, error
        self._tell()

    def after(self, seq: int) -> list[bytes]:
        """The events with higher numbers.

        Raises:
            ConflictError: Some of them are forgotten or were never here, or the number was never reached.
        """
        if seq < self._begun_after:
            raise ConflictError(
                f"task {self.task_id} was taken up here after event {self._begun_after}; none can follow {seq}"
            )
        if not self._before_first <= seq <= self.last_seq:
            raise ConflictError(
                f"task {self.task_id} has events {self._before_first + 1} to {self.last_seq}; none can follow {seq}"
            )
        return self._events[seq - self._before_first :]

    def _add(self, event: bytes) -> None:
        assert not self.ended, "nothing follows the end"
        self._events.append(event)
        self.size_bytes += len(event)
        while self.size_bytes > TASK_BYTES_MAX and len(self._events) > 1:
            self.size_bytes -= len(self._events.pop(0))
            self._before_first += 1

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener()


class TokenLog:
    """Records by task id, in the order of their beginning."""

    def __init__(self) -> None:
        self._records: dict[str, TaskRecord] = {}

    def begin(self, task_id: str, *, attempt: int = 0, epoch: int = 0, begun_after: int = 0) -> TaskRecord:
        """A fresh record, in the place of an ended or an earlier attempt's, which its owner has to end.

        Raises:
            StaleAttemptError: This attempt, or a later one, runs here.
        """
        running = self._records.get(task_id)
        if running is not None and not running.ended and running.attempt >= attempt:
            raise StaleAttemptError(
                f"attempt {running.attempt} of task {task_id} runs here, begun in epoch {running.epoch}; "
                f"attempt {attempt} came too late"
            )
        self._records.pop(task_id, None)
        self._make_room()
        record = TaskRecord(task_id, attempt=attempt, epoch=epoch, begun_after=begun_after)
        self._records[task_id] = record
        return record

    def get(self, task_id: str) -> TaskRecord | None:
        """The record of a task that runs or ended not long ago."""
        return self._records.get(task_id)

    def _make_room(self) -> None:
        ended = [record for record in self._records.values() if record.ended]
        size_bytes = sum(record.size_bytes for record in ended)
        excess = len(ended) - TASKS_MAX + 1
        for index, record in enumerate(ended):
            if index >= excess and size_bytes <= LOG_BYTES_MAX:
                break
            size_bytes -= record.size_bytes
            del self._records[record.task_id]
