"""One kind of memory of one host, main memory or a GPU's, and what of it is promised to whom; MiB."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from swarmesh.core.ids import WorkerId

USABLE_SHARE: Final = 0.92
"""Of a host's main memory; the rest belongs to its operating system."""
GPU_USABLE_SHARE: Final = 0.95
"""Of a GPU's memory. No operating system lives there, but the driver keeps something for every process that computes
on it, which the estimate of a model does not know."""
RAM: Final = "ram"


class PoolFree(NamedTuple):
    """What a pool can still give; ``label`` is ``ram`` or ``gpu 0``."""

    label: str
    free_mib: int
    total_mib: int


@dataclass(slots=True)
class Pool:
    """The books of one pool.

    Attributes:
        reserved: What each worker was promised, for as long as it may hold it.
        starting: Workers whose memory is promised but not yet visible in ``available_mib``.
    """

    label: str
    usable_share: float = USABLE_SHARE
    total_mib: int = 0
    available_mib: int = 0
    reserved: dict[WorkerId, int] = field(default_factory=dict)
    starting: set[WorkerId] = field(default_factory=set)

    @property
    def usable_mib(self) -> int:
        """What all workers together may be promised."""
        return int(self.total_mib * self.usable_share)

    @property
    def free_mib(self) -> int:
        """What may still be promised: the smaller of what the books and what the host say."""
        return self.free_without(())

    @property
    def foreign_mib(self) -> int:
        """What programs that are no workers hold of the usable share, as far as that can be told."""
        by_books, by_host = self._free()
        return max(0, by_books - by_host)

    def free_without(self, gone: Collection[WorkerId]) -> int:
        """What could be promised if those workers were gone."""
        freed_mib = sum(self.reserved.get(worker_id, 0) for worker_id in gone)
        return max(0, min(self._free()) + freed_mib)

    def measured(self, total_mib: int, available_mib: int) -> None:
        """Take in a fresh measurement; promises stand."""
        self.total_mib, self.available_mib = total_mib, available_mib

    def promise(self, worker_id: WorkerId, mib: int) -> None:
        """Enter a promise to a worker whose memory is not visible yet."""
        self.reserved[worker_id] = mib
        self.starting.add(worker_id)

    def release(self, worker_id: WorkerId) -> None:
        """Strike a worker's promise; harmless when it has none."""
        self.starting.discard(worker_id)
        self.reserved.pop(worker_id, None)

    def _free(self) -> tuple[int, int]:
        by_books = self.usable_mib - sum(self.reserved.values())
        by_host = self.available_mib - sum(self.reserved[worker_id] for worker_id in self.starting)
        return by_books, by_host


@dataclass(slots=True)
class HostMemory:
    """The pools of one host. A GPU that was not seen any more stays, with nothing to give."""

    ram: Pool = field(default_factory=lambda: Pool(RAM))
    gpus: dict[int, Pool] = field(default_factory=dict)

    def pools(self) -> list[Pool]:
        """All of them, main memory first, then the GPUs by index."""
        return [self.ram, *(self.gpus[index] for index in sorted(self.gpus))]

    def of_gpus(self, indices: Iterable[int]) -> list[Pool]:
        """The pools of these GPUs in this order, each once; main memory for none."""
        return [self.gpu(index) for index in dict.fromkeys(indices)] or [self.ram]

    def gpu(self, index: int) -> Pool:
        """The pool of one GPU; an empty one when no probe has ever shown it."""
        pool = self.gpus.get(index)
        return pool if pool is not None else Pool(f"gpu {index}", GPU_USABLE_SHARE)


def allot(pools: Sequence[Pool], need_mib: int, *, without: Collection[WorkerId] = ()) -> list[int] | None:
    """How much to take of each pool: all of the one with most free memory, else a part of each.

    Parts are in proportion to what is free, which is how engines spread a model. None when all have too little.
    """
    free = [pool.free_without(without) for pool in pools]
    most = max(free)
    if most >= need_mib:
        chosen = free.index(most)
        return [need_mib if number == chosen else 0 for number in range(len(pools))]
    return in_proportion(need_mib, free) if sum(free) >= need_mib else None


def in_proportion(mib: int, weights: Sequence[int]) -> list[int]:
    """``mib`` in whole parts as large as their weights, to within one; none is above its weight if their sum is not."""
    total = sum(weights)
    bounds = [0]
    for weight in weights:
        bounds.append(bounds[-1] + weight)
    ends = [mib * bound // total for bound in bounds]
    return [end - start for start, end in pairwise(ends)]
