"""Why a worker does not fit: need and have, who holds what, and what would make room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from swarmesh.core.errors import NotEnoughMemoryError
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.memory_pool import RAM, Pool, allot

SMALLER: Final = "use a smaller quantisation, or ask for fewer slots or less context"


def not_enough(model: ModelName, host: HostName, need_mib: int, pools: Sequence[Pool]) -> NotEnoughMemoryError:
    """The refusal; ``pools`` are those that the worker could have used, and have too little."""
    have = " and ".join(_have(pool) for pool in pools)
    message = f"{model} needs {need_mib} MiB on {host}, which has {have}"
    return NotEnoughMemoryError(message, hint=_what_would_help(need_mib, pools))


def _have(pool: Pool) -> str:
    place = "in main memory" if pool.label == RAM else f"on {pool.label}"
    held = ", ".join(f"{holder} {mib} MiB" for holder, mib in pool.reserved.items())
    return f"{pool.free_mib} MiB free {place}" + (f" (held: {held})" if held else "")


def _what_would_help(need_mib: int, pools: Sequence[Pool]) -> str:
    leavers = _leavers(need_mib, pools)
    if leavers:
        return f"Stop {' and '.join(leavers)}, which would make room; or {SMALLER}."
    if sum(pool.usable_mib for pool in pools) < need_mib:
        return f"It would not fit with no rustbee there: {SMALLER}, or take another host."
    foreign = [f"{pool.foreign_mib} MiB of {pool.label}" for pool in pools if pool.foreign_mib]
    return f"Other programs hold {' and '.join(foreign)} there: end some, {SMALLER}, or take another host."


def _leavers(need_mib: int, pools: Sequence[Pool]) -> list[WorkerId]:
    """The fewest workers whose end makes room, the smallest of equals; none when even all would not."""
    held: dict[WorkerId, int] = {}
    for pool in pools:
        for worker_id, mib in pool.reserved.items():
            held[worker_id] = held.get(worker_id, 0) + mib
    by_size = sorted(held, key=lambda worker_id: held[worker_id])
    for worker_id in by_size:
        if allot(pools, need_mib, without=(worker_id,)) is not None:
            return [worker_id]
    leavers: list[WorkerId] = []
    for worker_id in reversed(by_size):
        leavers.append(worker_id)
        if allot(pools, need_mib, without=leavers) is not None:
            return leavers
    return []
