"""Which worker has read the beginning of a prompt before: hashes of its blocks, each chained to all before it.

A hash stands for everything up to its block, so one flat table does for a tree. Of long prompts only some blocks are
kept (`_DEPTHS`): the match is then found a little short. Per worker the blocks used longest ago are forgotten first,
and of one prompt the last before the first, so that whoever holds a block holds all that lead to it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from swarmesh.core.ids import WorkerId

BLOCK_TOKENS: Final = 128
"""Tokens in a block of 512 bytes, roughly."""
MARKS_MAX: Final = 131_072
"""Marks of all workers of one model together: about 200 bytes each."""
ROOM_MAX: Final = 2_048
"""Marks of one worker."""
ROOM_MIN: Final = 16
TRUST_PRIOR_BLOCKS: Final = 8.0
TRUST_FADE: Final = 0.98
TRUST_MIN: Final = 0.05
"""Of what is believed to be cached; above zero, so that an engine that caches after all is found out."""
COMMON_SHARE: Final = 0.5
"""What more than this share of the workers have read is less of an advantage to them, down to none."""

_DEPTHS: Final = (*range(16), *range(19, 64, 4), *range(71, 256, 8))


@dataclass(slots=True)
class _Memory:
    marks: OrderedDict[int, None] = field(default_factory=OrderedDict)
    room: int = ROOM_MAX
    believed: float = TRUST_PRIOR_BLOCKS
    found: float = TRUST_PRIOR_BLOCKS


class PrefixIndex:
    """What the workers of one model have read, as far as the queen's own dispatches tell."""

    def __init__(self) -> None:
        self._holders: dict[int, dict[WorkerId, None]] = {}
        self._memories: dict[WorkerId, _Memory] = {}

    def insert(self, worker_id: WorkerId, prefix: tuple[int, ...]) -> None:
        """The worker reads this prompt now."""
        if not prefix:
            return
        memory = self._memories.setdefault(worker_id, _Memory())
        for depth in reversed(_depths(prefix)):
            mark = prefix[depth]
            if mark in memory.marks:
                memory.marks.move_to_end(mark)
            else:
                memory.marks[mark] = None
                self._holders.setdefault(mark, {})[worker_id] = None
        self._shrink(worker_id, memory)

    def match(self, prefix: tuple[int, ...], most: int = 32) -> dict[WorkerId, int]:
        """How many blocks of it which workers have read; those with the longest match, at most so many."""
        found: dict[WorkerId, int] = {}
        depths = _depths(prefix)
        known = _first(depths, lambda depth: prefix[depth] not in self._holders)
        for depth in reversed(depths[:known]):
            holders = self._holders.get(prefix[depth], {})
            if len(holders) <= len(found):
                continue
            for worker_id in holders:
                if worker_id not in found:
                    if len(found) >= most:
                        return found
                    found[worker_id] = depth + 1
        return found

    def blocks(self, worker_id: WorkerId, prefix: tuple[int, ...]) -> int:
        """How many blocks of it this worker has read."""
        memory = self._memories.get(worker_id)
        if memory is None or not prefix or prefix[0] not in memory.marks:
            return 0
        depths = _depths(prefix)
        held = _first(depths, lambda depth: prefix[depth] not in memory.marks)
        return depths[held - 1] + 1

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
        return given + max(TRUST_MIN, memory.found / memory.believed) * blocks

    def common(self, prefix: tuple[int, ...], workers: int) -> tuple[int, float]:
        """How many leading blocks more than half of the workers have read, and what is left of the advantage of one."""
        if not prefix or workers < 1 or self._share(prefix[0], workers) <= COMMON_SHARE:
            return 0, 1.0
        depths = _depths(prefix)
        last = depths[_first(depths, lambda depth: self._share(prefix[depth], workers) <= COMMON_SHARE) - 1]
        share = (self._share(prefix[0], workers) + self._share(prefix[last], workers)) / 2
        return last + 1, (1.0 - share) / (1.0 - COMMON_SHARE)

    def correct(self, worker_id: WorkerId, believed: int, found: float) -> None:
        """An engine reported that it knew ``found`` blocks of a prompt of which it was thought to know ``believed``."""
        memory = self._memories.get(worker_id)
        if memory is None or not believed:
            return
        found = min(found, believed)
        memory.believed = (memory.believed - TRUST_PRIOR_BLOCKS) * TRUST_FADE + TRUST_PRIOR_BLOCKS + believed
        memory.found = (memory.found - TRUST_PRIOR_BLOCKS) * TRUST_FADE + TRUST_PRIOR_BLOCKS + found
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
        room = min(memory.room, max(ROOM_MIN, MARKS_MAX // len(self._memories)))
        while len(memory.marks) > room:
            mark, _ = memory.marks.popitem(last=False)
            self._release(mark, worker_id)

    def _release(self, mark: int, worker_id: WorkerId) -> None:
        holders = self._holders[mark]
        del holders[worker_id]
        if not holders:
            del self._holders[mark]

    def _share(self, mark: int, workers: int) -> float:
        return min(1.0, len(self._holders.get(mark, ())) / workers)


def _depths(prefix: tuple[int, ...]) -> tuple[int, ...]:
    return _DEPTHS[: bisect_left(_DEPTHS, len(prefix))]


def _first(depths: tuple[int, ...], is_past: Callable[[int], bool]) -> int:
    """Index of the first depth that is past; all after it are."""
    return bisect_left(depths, True, key=is_past)
