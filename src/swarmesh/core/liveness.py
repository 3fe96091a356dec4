"""When a worker counts as alive: one table, and the two deadlines that feed it.

A waggle only renews a lease. A worker whose lease is overdue is *suspect* (nothing new goes there while others
can take it); one whose lease expired, or that raised an alarm, is *dead*. A dead worker that reports again keeps
its identity and comes back.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from swarmesh.core.task import IllegalTransitionError

OVERDUE_FACTOR: Final = 2.5
"""A lease is overdue after this many promised intervals: two waggles lost and the third late."""
EXPIRY_FACTOR: Final = 5.0
"""A lease expires after this many promised intervals."""


class WorkerStatus(StrEnum):
    """What the swarm believes about a worker."""

    STARTING = "starting"
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    DRAINING = "draining"
    DEAD = "dead"


class WorkerFact(StrEnum):
    """What can happen to a worker."""

    REPORTED_STARTING = "reported_starting"
    REPORTED_READY = "reported_ready"
    SUSPECTED = "suspected"
    LEASE_EXPIRED = "lease_expired"
    ALARMED = "alarmed"
    DRAIN_REQUESTED = "drain_requested"


_S, _F = WorkerStatus, WorkerFact

LIVENESS_TABLE: dict[tuple[WorkerStatus, WorkerFact], WorkerStatus] = {
    (_S.STARTING, _F.REPORTED_STARTING): _S.STARTING,
    (_S.STARTING, _F.REPORTED_READY): _S.HEALTHY,
    # Not a suspect, which would still get tasks: it never said that it can take any.
    (_S.STARTING, _F.SUSPECTED): _S.STARTING,
    (_S.HEALTHY, _F.REPORTED_STARTING): _S.STARTING,
    (_S.HEALTHY, _F.REPORTED_READY): _S.HEALTHY,
    (_S.HEALTHY, _F.SUSPECTED): _S.SUSPECT,
    (_S.SUSPECT, _F.REPORTED_STARTING): _S.STARTING,
    (_S.SUSPECT, _F.REPORTED_READY): _S.HEALTHY,
    (_S.SUSPECT, _F.SUSPECTED): _S.SUSPECT,
    (_S.DRAINING, _F.REPORTED_STARTING): _S.DRAINING,
    (_S.DRAINING, _F.REPORTED_READY): _S.DRAINING,
    (_S.DRAINING, _F.SUSPECTED): _S.DRAINING,
    (_S.DEAD, _F.REPORTED_STARTING): _S.STARTING,
    (_S.DEAD, _F.REPORTED_READY): _S.HEALTHY,
    (_S.DEAD, _F.SUSPECTED): _S.DEAD,
    **{(status, _F.LEASE_EXPIRED): _S.DEAD for status in _S},
    **{(status, _F.ALARMED): _S.DEAD for status in _S},
    **{(status, _F.DRAIN_REQUESTED): _S.DRAINING for status in _S if status is not _S.DEAD},
}


def following(status: WorkerStatus, fact: WorkerFact) -> WorkerStatus:
    """The status after ``fact``.

    Raises:
        IllegalTransitionError: A dead worker cannot be drained.
    """
    after = LIVENESS_TABLE.get((status, fact))
    if after is None:
        raise IllegalTransitionError(f"a {status} worker cannot be {fact}")
    return after


def lease_fact(age_ms: int, interval_ms: int) -> WorkerFact | None:
    """What the age of the last waggle says, given the promised interval; None while the lease holds."""
    if age_ms > interval_ms * EXPIRY_FACTOR:
        return WorkerFact.LEASE_EXPIRED
    if age_ms > interval_ms * OVERDUE_FACTOR:
        return WorkerFact.SUSPECTED
    return None
