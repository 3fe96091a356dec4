"""Which worker has read the beginning of a prompt before: hashes of its blocks, each chained to all before it.

A hash stands for everything up to its block, so one flat table does for a tree. Of long prompts only some blocks are
kept (`_DEPTHS`): the match is then found a little short. Per worker the blocks used longest ago are forgotten first,
and of one prompt the last before the first, so that whoever holds a block holds all that lead to it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Final

from swarmesh.core.fleet import Worker
from swarmesh.core.ids import WorkerId

BLOCK_TOKENS: Final = 128
"""Tokens in a block of 512 bytes, roughly."""
MARKS_MAX: Final = 131_072
"""Marks of all workers of one model together: about 160 bytes each."""
ROOM_MAX: Final = 2_048
"""Marks of one worker."""
ROOM_MIN: Final = 16
TRUST_PRIOR_BLOCKS: Final = 8.0
TRUST_FADE: Final = 0.98
TRUST_MIN: Final = 0.05
"""Of what is believed to be cached; above zero, so that an engine that caches after all is found out."""
COMMON_SHARE: Final = 0.5
"""What more than this share of the workers have read is less of an advantage to them, down to none."""

_WHOLE: Final = 16
"""Of so many blocks every one is kept."""
_DEPTHS: Final[tuple[int, ...]] = (*range(_WHOLE), *range(19, 64, 4), *range(71, 256, 8))


@dataclass(slots=True)
class _Memory:
    marks: OrderedDict[int, None] = field(default_factory=OrderedDict)
    room: int = ROOM_MAX
    believed: float = TRUST_PRIOR_BLOCKS
    found: float = TRUST_PRIOR_BLOCKS
    trust: float = 1.0


class PrefixIndex:
    """What the workers of one model have read, as far as the queen's own dispatches tell."""

    def __init__(self) -> None:
        # Most blocks have been read by one worker only.
        self._holders: dict[int, WorkerId | dict[WorkerId, None]] = {}
        self._memories: dict[WorkerId, _Memory] = {}
        # A prompt is asked for several times in a row: by who chooses, who starts it, and who learns.
        self._last: tuple[tuple[int, ...], tuple[int, ...]] = (), ()

    def insert(self, worker_id: WorkerId, prefix: tuple[int, ...]) -> None:
        """The worker reads this prompt now."""
        if not prefix:
            return
        memory = self._memories.get(worker_id)
        if memory is None:
            memory = self._memories[worker_id] = _Memory()
        marks, holders = memory.marks, self._holders
        for mark in reversed(self._marks_of(prefix)):
            if mark in marks:
                marks.move_to_end(mark)
                continue
            marks[mark] = None
            known = holders.setdefault(mark, worker_id)
            if known is not worker_id:
                self._add(mark, known, worker_id)
        self._shrink(worker_id, memory)

    def match(self, prefix: tuple[int, ...], most: int = 32) -> dict[WorkerId, int]:
        """How many blocks of it which workers have read; those with the longest match, at most so many."""
        found: dict[WorkerId, int] = {}
        marks = self._marks_of(prefix)
        for index in range(_known(marks, self._holders) - 1, -1, -1):
            holders = self._holders[marks[index]]
            if isinstance(holders, str):
                holders = {holders: None}
            if len(holders) <= len(found):
                continue
            for worker_id in holders:
                if worker_id not in found:
                    if len(found) >= most:
                        return found
                    found[worker_id] = _DEPTHS[index] + 1
        return found

    def blocks(self, worker_id: WorkerId, prefix: tuple[int, ...]) -> int:
        """How many blocks of it this worker has read."""
        memory = self._memories.get(worker_id)
        if memory is None or not prefix or prefix[0] not in memory.marks:
            return 0
        return _DEPTHS[_known(self._marks_of(prefix), memory.marks) - 1] + 1

    def believed(self, workers: Sequence[Worker], prefix: tuple[int, ...], common: tuple[int, float]) -> list[float]:
        """The `worth` of what each of these has read of it, in order."""
        marks, memories, (shared, weight) = self._marks_of(prefix), self._memories, common
        found: list[float] = []
        known = _known(marks, self._holders)
        if not known:
            return [0.0] * len(workers)
        first, last, deepest = marks[0], marks[known - 1], _DEPTHS[known - 1] + 1
        for worker in workers:
            memory = memories.get(worker.worker_id)
            if memory is None or first not in memory.marks:
                found.append((1.0 - weight) * shared)
                continue
            blocks = deepest if last in memory.marks else _DEPTHS[_known(marks, memory.marks, known - 1) - 1] + 1
            given = (1.0 - weight) * (shared - blocks) if blocks < shared else 0.0
            found.append(given + memory.trust * blocks)
        return found

    def worth(self, worker_id: WorkerId, blocks: int, common: tuple[int, float]) -> float:
        """What a match of so many blocks saves, in blocks, as far as reports bear it out.

        Of those that are `common` a worker that has not read them is given a part as well: what most have read anyway
        is a small advantage, and what all have read is none.
        """
        shared, weight = common
        given = (1.0 - weight) * (shared - blocks) if blocks < shared else 0.0
        memory = self._memories.get(worker_id)
        if memory is None or not blocks:
            return given
        return given + memory.trust * blocks

    def common(self, prefix: tuple[int, ...], workers: int) -> tuple[int, float]:
        """How many leading blocks more than half of the workers have read, and what is left of the advantage of one."""
        few = COMMON_SHARE * workers
        if not prefix or workers < 1 or (first := self._count(prefix[0])) <= few:
            return 0, 1.0
        marks = self._marks_of(prefix)
        low, high = 1, len(marks)
        while low < high:
            middle = (low + high) // 2
            if self._count(marks[middle]) > few:
                low = middle + 1
            else:
                high = middle
        share = (min(1.0, first / workers) + min(1.0, self._count(marks[low - 1]) / workers)) / 2
        return _DEPTHS[low - 1] + 1, (1.0 - share) / (1.0 - COMMON_SHARE)

    def correct(self, worker_id: WorkerId, believed: int, found: float) -> None:
        """An engine reported that it knew ``found`` blocks of a prompt of which it was thought to know ``believed``."""
        memory = self._memories.get(worker_id)
        if memory is None or not believed:
            return
        found = min(found, believed)
        memory.believed = (memory.believed - TRUST_PRIOR_BLOCKS) * TRUST_FADE + TRUST_PRIOR_BLOCKS + believed
        memory.found = (memory.found - TRUST_PRIOR_BLOCKS) * TRUST_FADE + TRUST_PRIOR_BLOCKS + found
        memory.trust = max(TRUST_MIN, memory.found / memory.believed)
        if found < believed // 2:
            # It forgets sooner than was thought: what was used longest ago is gone as well.
            memory.room = max(ROOM_MIN, min(memory.room, len(memory.marks)) * 3 // 4)
            self._shrink(worker_id, memory)
        else:
            memory.room = min(ROOM_MAX, memory.room + 4)

    def forget(self, worker_id: WorkerId) -> None:
        """The worker has a new engine, or is gone."""
        memory = self._memories.pop(worker_id, None)
        if memory is not None:
            for mark in memory.marks:
                self._release(mark, worker_id)

    def __len__(self) -> int:
        """How many marks are kept."""
        return sum(len(memory.marks) for memory in self._memories.values())

    def _shrink(self, worker_id: WorkerId, memory: _Memory) -> None:
        marks, holders = memory.marks, self._holders
        room = min(memory.room, max(ROOM_MIN, MARKS_MAX // len(self._memories)))
        for _ in range(len(marks) - room):
            mark = marks.popitem(last=False)[0]
            if holders[mark] is worker_id:
                del holders[mark]
            else:
                self._release(mark, worker_id)

    def _add(self, mark: int, known: WorkerId | dict[WorkerId, None], worker_id: WorkerId) -> None:
        if isinstance(known, str):
            known = self._holders[mark] = {known: None}
        known[worker_id] = None

    def _release(self, mark: int, worker_id: WorkerId) -> None:
        holders = self._holders[mark]
        if isinstance(holders, str):
            del self._holders[mark]
            return
        del holders[worker_id]
        if not holders:
            del self._holders[mark]

    def _marks_of(self, prefix: tuple[int, ...]) -> tuple[int, ...]:
        """What is kept of a prompt."""
        if len(prefix) <= _WHOLE:
            return prefix
        if self._last[0] is not prefix:
            self._last = prefix, tuple(prefix[depth] for depth in _DEPTHS[: bisect_left(_DEPTHS, len(prefix))])
        return self._last[1]

    def _count(self, mark: int) -> int:
        """How many have read it."""
        holders = self._holders.get(mark)
        if holders is None:
            return 0
        return 1 if isinstance(holders, str) else len(holders)


def _known(marks: tuple[int, ...], held: Container[int], most: int | None = None) -> int:
    """How many of the first ``most`` marks are held, all at most; whoever holds one holds all that lead to it."""
    low, high = 0, len(marks) if most is None else most
    while low < high:
        middle = (low + high) // 2
        if marks[middle] in held:
            low = middle + 1
        else:
            high = middle
    return low
