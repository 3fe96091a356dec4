"""Whom to let go so that another model fits on a host (cellmorph): the least useful, and no more than needed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from swarmesh.core.ids import HostName, WorkerId
from swarmesh.core.memory_pool import Pool, allot

HALF_LIFE_MS_MIN: Final = 2_000
HALF_LIFE_MS_UNKNOWN: Final = 10_000
"""Where nobody knows how long a model takes to load."""
BETTER: Final = 1.2
"""A newcomer has to be so many times as useful as all that goes for it together."""


class Resident(NamedTuple):
    """A worker that may be let go."""

    worker_id: WorkerId
    usefulness: float


class Vacancy(NamedTuple):
    """What letting those go would make: ``usefulness`` is what would be lost."""

    host: HostName
    need_mib: int
    leavers: tuple[WorkerId, ...]
    usefulness: float


def usefulness(idle_ms: int, load_ms: int, copies: int) -> float:
    """Of one of ``copies`` workers of a model: 1.0 in use, and half as much with every load time it was not.

    A worker that takes a minute to come back is kept through a longer pause than one that is back in a second. The
    second copy of a model is worth half of the only one.
    """
    half_life_ms = max(HALF_LIFE_MS_MIN, load_ms) if load_ms else HALF_LIFE_MS_UNKNOWN
    return float(2.0 ** (-idle_ms / half_life_ms)) / max(1, copies)


def vacancy(
    host: HostName, pools: Sequence[Pool], need_mib: int, residents: Sequence[Resident], leaving: Collection[WorkerId]
) -> Vacancy | None:
    """The least useful of ``residents`` that make room together with those who are ``leaving`` anyway.

    None when even all of them would not.
    """
    if not pools:
        return None
    holders = [one for one in residents if any(one.worker_id in pool.reserved for pool in pools)]
    chosen: list[Resident] = []
    for one in sorted(holders, key=lambda one: one.usefulness):
        if _fits(pools, need_mib, chosen, leaving):
            break
        chosen.append(one)
    if not _fits(pools, need_mib, chosen, leaving):
        return None
    for one in reversed(chosen.copy()):  # Small ones that went first may not be needed beside a large one.
        rest = [other for other in chosen if other is not one]
        if _fits(pools, need_mib, rest, leaving):
            chosen = rest
    return Vacancy(host, need_mib, tuple(one.worker_id for one in chosen), sum(one.usefulness for one in chosen))


def _fits(pools: Sequence[Pool], need_mib: int, chosen: Sequence[Resident], leaving: Collection[WorkerId]) -> bool:
    gone = {*(one.worker_id for one in chosen), *leaving}
    return allot(pools, need_mib, without=gone) is not None
