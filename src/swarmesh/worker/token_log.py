"""The events of running and recent tasks, so that whoever lost a stream can take it up again at a sequence number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from swarmesh.core.errors import ConflictError, SwarmeshError

TASKS_MAX: Final = 256
"""Ended tasks beyond this are forgotten, the oldest first."""
TASK_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of one task; beyond it its oldest events are forgotten."""
LOG_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of all ended tasks together."""


class TaskRecord:
    """One task's events as they are sent, numbered from 1.

    Attributes:
        ended: No event will follow.
        error: Why it ended without its end mark, as its last event says.
        listeners: Called after every change.
    """

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.ended = False
        self.error: SwarmeshError | None = None
        self.listeners: list[Callable[[], None]] = []
        self.size_bytes = 0
        self._events: list[bytes] = []
        self._forgotten = 0

    @property
    def last_seq(self) -> int:
        """Number of the newest event; 0 before there is one."""
        return self._forgotten + len(self._events)

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
            ConflictError: Some of them are forgotten, or the number was never reached.
        """
        if not self._forgotten <= seq <= self.last_seq:
            raise ConflictError(
                f"task {self.task_id} has events {self._forgotten + 1} to {self.last_seq}; none can follow {seq}"
            )
        return self._events[seq - self._forgotten :]

    def _add(self, event: bytes) -> None:
        assert not self.ended, "nothing follows the end"
        self._events.append(event)
        self.size_bytes += len(event)
        while self.size_bytes > TASK_BYTES_MAX and len(self._events) > 1:
            self.size_bytes -= len(self._events.pop(0))
            self._forgotten += 1

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener()


class TokenLog:
    """Records by task id, in the order of their beginning."""

    def __init__(self) -> None:
        self._records: dict[str, TaskRecord] = {}

    def begin(self, task_id: str) -> TaskRecord:
        """A fresh record.

        Raises:
            ConflictError: A task of that id runs here; one that ended is replaced.
        """
        running = self._records.get(task_id)
        if running is not None and not running.ended:
            raise ConflictError(f"task {task_id} runs here already")
        self._records.pop(task_id, None)
        self._make_room()
        record = self._records[task_id] = TaskRecord(task_id)
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
