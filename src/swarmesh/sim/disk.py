"""A virtual hivecomb: writes take time, are grouped, kept in order, may fail for a while, and are cut off by a crash.

What is acknowledged stays, unless the disk lies about it (`VirtualDisk.lose_since`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

import msgspec

from swarmesh.core.ids import TaskId, WorkerId
from swarmesh.core.task import TaskStatus
from swarmesh.sim.clock import Action, Clock
from swarmesh.sim.workload import Request

LATENCY_MS: Final = 2
"""Of one group commit on a healthy disk."""
FLUSH_MS: Final = 200
"""Between two looks for new tokens to write."""
JOURNAL_MS: Final = 10_000
"""How long ago a write may lie that a lying disk takes back."""


class Row(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A task's record.

    Attributes:
        serial: Its place in the order of submission.
        created_at_ms: By the wall clock, which jumps.
    """

    serial: int
    created_at_ms: int
    request: Request
    status: TaskStatus = TaskStatus.QUEUED
    attempts: int = 0
    kills: int = 0
    worker_id: WorkerId | None = None
    code: str = ""


@dataclass(slots=True)
class Write:
    """A change on its way; ``done`` is told when it is safe."""

    issued_ms: int
    apply: Action
    done: Action


class VirtualDisk:
    """What survives the queen.

    Attributes:
        records: Tasks that are safe.
        tokens: Their tokens that are safe, from the first on without gaps.
        latency_ms: Of one commit.
        wall_offset_ms: How wrong the wall clock is.
    """

    def __init__(self, clock: Clock, rng: Random, *, lies: bool) -> None:
        self.records: dict[TaskId, Row] = {}
        self.tokens: dict[TaskId, bytearray] = {}
        self.latency_ms = LATENCY_MS
        self.wall_offset_ms = 0
        self._clock = clock
        self._rng = rng
        self._lies = lies
        self._full = False
        self._full_ms = 0
        self._waiting: deque[Write] = deque()
        self._group: list[Write] = []
        self._life = 0
        self._serial = 0
        self._undo: deque[tuple[int, Action]] = deque()

    @property
    def full(self) -> bool:
        """Whether writes fail now."""
        return self._full

    @full.setter
    def full(self, full: bool) -> None:
        if full and not self._full:
            self._full_ms = self._clock.now_ms
        self._full = full
        self._begin()

    @property
    def idle(self) -> bool:
        """Whether everything is safe."""
        return not self._waiting and not self._group

    def insert(self, request: Request, done: Action) -> bool:
        """Take a task in; False when there is no room."""
        if self._full:
            return False
        self._serial += 1
        created_at_ms = self._clock.now_ms + self.wall_offset_ms
        row = Row(serial=self._serial, created_at_ms=created_at_ms, request=request)
        self._write(partial(self._put, request.task.task_id, row), done)
        return True

    def update(self, task_id: TaskId, change: Callable[[Row], Row], done: Action) -> None:
        """Change a record; retried until there is room."""
        self._write(lambda: self._put(task_id, change(self.records[task_id])), done)

    def append(self, task_id: TaskId, first_seq: int, tokens: bytes) -> None:
        """Add tokens; a number that is there already is left as it is."""
        self._write(partial(self._add, task_id, first_seq, tokens), _nothing)

    def safe_until_ms(self) -> int:
        """The latest time of a flush whose rows are safe now."""
        if self._group or self._waiting:
            return (self._group or self._waiting)[0].issued_ms - 1
        return (self._full_ms if self._full else self._clock.now_ms) - self.latency_ms

    def crash(self, flushed: list[tuple[TaskId, int, bytes]]) -> None:
        """The queen dies: what is under way is written or not, what waits is not.

        Args:
            flushed: Tokens that flushes nobody simulated one by one had made safe by `safe_until_ms`.
        """
        for task_id, first_seq, tokens in flushed:
            self._add(task_id, first_seq, tokens)
        if not self._full and self._rng.random() < 0.5:
            for write in self._group:
                write.apply()
        self._group.clear()
        self._waiting.clear()
        self._life += 1

    def lose_since(self, then_ms: int) -> None:
        """The power fails and the disk had lied: acknowledged writes since ``then_ms`` are undone."""
        while self._undo and self._undo[-1][0] >= then_ms:
            self._undo.pop()[1]()

    def unfinished(self) -> list[Row]:
        """Tasks without an end, in order of their submission."""
        return sorted((row for row in self.records.values() if not row.status.is_final), key=lambda row: row.serial)

    def _write(self, apply: Action, done: Action) -> None:
        self._waiting.append(Write(self._clock.now_ms, apply, done))
        self._begin()

    def _begin(self) -> None:
        if self._group or not self._waiting or self._full:
            return
        self._group = list(self._waiting)
        self._waiting.clear()
        life = self._life
        self._clock.after(self.latency_ms, lambda: self._commit() if life == self._life else None)

    def _commit(self) -> None:
        group, self._group = self._group, []
        if self._full:
            self._waiting.extendleft(reversed(group))
            return
        for write in group:
            write.apply()
        for write in group:
            write.done()
        self._begin()

    def _put(self, task_id: TaskId, row: Row) -> None:
        before = self.records.get(task_id)
        self.records[task_id] = row
        self._remember(partial(self.records.__setitem__, task_id, before) if before else partial(self._drop, task_id))

    def _drop(self, task_id: TaskId) -> None:
        self.records.pop(task_id, None)
        self.tokens.pop(task_id, None)

    def _add(self, task_id: TaskId, first_seq: int, tokens: bytes) -> None:
        kept = self.tokens.setdefault(task_id, bytearray())
        size = len(kept)
        known = size - (first_seq - 1)
        if known < 0:
            raise ValueError(f"{task_id} has {size} tokens and is given number {first_seq}")
        kept += tokens[known:]
        self._remember(partial(self._truncate, task_id, size))

    def _truncate(self, task_id: TaskId, size: int) -> None:
        if task_id in self.tokens:
            del self.tokens[task_id][size:]

    def _remember(self, undo: Action) -> None:
        if not self._lies:
            return
        self._undo.append((self._clock.now_ms, undo))
        while self._undo[0][0] < self._clock.now_ms - JOURNAL_MS:
            self._undo.popleft()


def _nothing() -> None:
    """Nobody waits for this write."""
