"""On which host a worker is started when nobody names one: filters first, then votes (R-15, nest-site selection)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from swarmesh.core.ids import HostName
from swarmesh.core.memory_pool import PoolFree

WEIGHTS: Final = {"memory left": 0.3, "few workers": 0.1, "proximity": 0.3, "file there": 0.3}
"""What each vote, 0.0 to 1.0, counts. The sum is 1: the first two are the load's share of 0.4, the others as in R-15.

More for ``memory left`` spreads models over hosts, more for ``file there`` keeps gigabytes off the network.
"""


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


class HostVerdict(msgspec.Struct, frozen=True):
    """Why a host was chosen or not: a veto, or votes and the score they add up to."""

    host: HostName
    veto: str = ""
    votes: tuple[tuple[str, float], ...] = ()
    score: float = 0.0


class Placement(msgspec.Struct, frozen=True):
    """A choice and why; None when every host was vetoed."""

    choice: HostName | None
    reasons: tuple[HostVerdict, ...]

    @property
    def vetoes(self) -> dict[str, str]:
        """Why which hosts were out of the question."""
        return {verdict.host: verdict.veto for verdict in self.reasons if verdict.veto}


def choose_host(candidates: Sequence[HostCandidate]) -> Placement:
    """The host with the highest score, of equals the first by name; the order of ``candidates`` does not matter."""
    verdicts = sorted((_judge(candidate) for candidate in candidates), key=lambda verdict: verdict.host)
    best = max((verdict for verdict in verdicts if not verdict.veto), key=lambda verdict: verdict.score, default=None)
    return Placement(best.host if best is not None else None, tuple(verdicts))


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


def _judge(candidate: HostCandidate) -> HostVerdict:
    reason = veto(candidate)
    if reason:
        return HostVerdict(candidate.host, reason)
    total_mib = sum(pool.total_mib for pool in candidate.pools)
    votes = {
        "memory left": (_free_mib(candidate) - candidate.need_mib) / total_mib if total_mib else 0.0,
        "few workers": 1 / (1 + candidate.workers),
        "proximity": candidate.proximity,
        "file there": float(candidate.file_there),
    }
    # Rounded: equal candidates must not differ by the last bits of a sum.
    score = round(sum(WEIGHTS[name] * vote for name, vote in votes.items()), 9)
    return HostVerdict(candidate.host, "", tuple(votes.items()), score)


def _free_mib(candidate: HostCandidate) -> int:
    return sum(pool.free_mib for pool in candidate.pools)
