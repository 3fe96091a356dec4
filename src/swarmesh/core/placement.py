"""On which host a worker is started when nobody names one: filters first, then votes (R-15, nest-site selection)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from swarmesh.core.ids import HostName, WorkerId
from swarmesh.core.memory_pool import PoolFree

WEIGHTS: Final = {
    "memory left": 0.2,
    "few workers": 0.1,
    "load": 0.1,
    "proximity": 0.3,
    "file there": 0.15,
    "speed": 0.15,
}
"""What each vote, 0.0 to 1.0, counts. The sum is 1: the first three share the load's 0.4, then proximity's 0.3, and the
last two share the 0.3 of the match, as in R-15.

More for ``memory left`` spreads models over hosts, more for ``file there`` keeps gigabytes off the network, more for
``speed`` holds on to the hosts that are known to be fast.
"""
SPEED_UNKNOWN: Final = 0.5
"""Vote of a host on which the model never ran: neither held against it nor enough to prefer it to a fast one."""
HYSTERESIS: Final = 1.2
"""The last choice for a model is kept unless another host has so many times its score."""


class HostCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """One host as the queen sees it now.

    Attributes:
        usable: It is this machine, or connected.
        draining: Nothing new is started there.
        offered: It has what the wanted backend computes on.
        need_mib: What the worker would need there.
        pools: The memory it could take there: main memory, or that of the GPUs it may use.
        file_there: The model's file need not be copied first.
        proximity: 0.0 far to 1.0 near.
        workers: How many it has already.
        worker_id: What the worker would be called there; empty when only a host is asked for.
        backend: What it would compute on.
        slots: How many tasks it would run at once.
        gpus: Those whose memory it may take; none for main memory.
        speed: Learned of the model there, in token-equivalents per second; 0 when it never ran there.
        load: Share of the slots of its workers in use, 0.0 to 1.0.
    """

    host: HostName
    need_mib: int
    pools: tuple[PoolFree, ...]
    usable: bool = True
    draining: bool = False
    offered: bool = True
    file_there: bool = False
    proximity: float = 0.5
    workers: int = 0
    worker_id: WorkerId = WorkerId("")
    backend: str = ""
    slots: int = 0
    gpus: tuple[int, ...] = ()
    speed: float = 0.0
    load: float = 0.0


class HostVerdict(msgspec.Struct, frozen=True):
    """Why a host was chosen or not: a veto, or votes and the score they add up to."""

    host: HostName
    veto: str = ""
    votes: tuple[tuple[str, float], ...] = ()
    score: float = 0.0


class ChosenBy(StrEnum):
    """What a choice of a host follows."""

    VOTES = "votes"
    LAST = "last"
    """It was chosen before, and nobody beats it by enough."""
    SCRIPT = "script"


class Placement(msgspec.Struct, frozen=True):
    """A choice and why; None when every host was vetoed."""

    choice: HostName | None
    reasons: tuple[HostVerdict, ...]
    by: ChosenBy = ChosenBy.VOTES

    @property
    def vetoes(self) -> dict[str, str]:
        """Why which hosts were out of the question."""
        return {verdict.host: verdict.veto for verdict in self.reasons if verdict.veto}


def choose_host(candidates: Sequence[HostCandidate], *, last: HostName | None = None) -> Placement:
    """The host with the highest score, of equals the first by name; the order of ``candidates`` does not matter.

    ``last`` is where the model was before: a cached file and a warm disk are worth something, so it keeps winning until
    another host beats it by `HYSTERESIS`.
    """
    verdicts = judge(candidates)
    best = best_of(verdicts)
    if best is None:
        return Placement(None, verdicts)
    kept = next((verdict for verdict in verdicts if verdict.host == last and not verdict.veto), None)
    if kept is not None and kept is not best and best.score <= HYSTERESIS * kept.score:
        return Placement(kept.host, verdicts, ChosenBy.LAST)
    return Placement(best.host, verdicts)


def judge(candidates: Sequence[HostCandidate]) -> tuple[HostVerdict, ...]:
    """What the filters and the votes say of each, in order of their names."""
    fastest = max((candidate.speed for candidate in candidates), default=0.0)
    return tuple(sorted((_judge(candidate, fastest) for candidate in candidates), key=lambda verdict: verdict.host))


def best_of(verdicts: Sequence[HostVerdict]) -> HostVerdict | None:
    """The one with the highest score, the first of equals; None when all are vetoed."""
    return max((verdict for verdict in verdicts if not verdict.veto), key=lambda verdict: verdict.score, default=None)


def veto(candidate: HostCandidate) -> str:
    """Why nothing can be started there; empty when it can."""
    if not candidate.usable:
        return "not connected"
    if candidate.draining:
        return "draining"
    if not candidate.offered:
        return "does not offer the backend"
    if _free_mib(candidate) < candidate.need_mib:
        pools = ", ".join(f"{pool.free_mib} MiB of {pool.label}" for pool in candidate.pools) or "nothing"
        return f"needs {candidate.need_mib} MiB and has {pools} free"
    return ""


def _judge(candidate: HostCandidate, fastest: float) -> HostVerdict:
    reason = veto(candidate)
    if reason:
        return HostVerdict(candidate.host, reason)
    total_mib = sum(pool.total_mib for pool in candidate.pools)
    votes = {
        "memory left": (_free_mib(candidate) - candidate.need_mib) / total_mib if total_mib else 0.0,
        "few workers": 1 / (1 + candidate.workers),
        "load": 1.0 - candidate.load,
        "proximity": candidate.proximity,
        "file there": float(candidate.file_there),
        "speed": candidate.speed / fastest if candidate.speed else SPEED_UNKNOWN,
    }
    # Rounded: equal candidates must not differ by the last bits of a sum.
    score = round(sum(WEIGHTS[name] * vote for name, vote in votes.items()), 9)
    return HostVerdict(candidate.host, "", tuple(votes.items()), score)


def _free_mib(candidate: HostCandidate) -> int:
    return sum(pool.free_mib for pool in candidate.pools)
