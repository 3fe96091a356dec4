"""One pass over the workers of a model: how many serve, how full they are, who is idle."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from swarmesh.core.fleet import Worker
from swarmesh.core.liveness import WorkerStatus

_HEALTHY, _SUSPECT = WorkerStatus.HEALTHY, WorkerStatus.SUSPECT


@dataclass(slots=True)
class Census:
    """What was seen.

    Attributes:
        serving: May take tasks, or could if they were in reach.
        starting: Will serve without anybody's help.
        slots: Of those that serve.
        busy: Of those in use.
        known_slots: Of those whose load is known: who has not reported since it registered is neither idle nor full.
        known_busy: Of those in use; all of a silent one's while tasks wait, as nothing can be given to it.
        least_share: Of the slots of the least used worker that serves; 1.0 when none does.
        idle_since_ms: When the one that is idle longest was last used; -1 when none is idle that may be stopped.
        idle_slots: Slots of that one.
        used_at_ms: When any was last used or became known; now if one is in use or was since the last count.
    """

    serving: int = 0
    starting: int = 0
    slots: int = 0
    busy: int = 0
    known_slots: int = 0
    known_busy: int = 0
    least_share: float = 1.0
    idle_since_ms: int = -1
    idle_slots: int = 0
    used_at_ms: int = 0

    @property
    def present(self) -> int:
        """Those that serve or will."""
        return self.serving + self.starting


def census_of(workers: Iterable[Worker], now_ms: int, *, waiting: bool) -> Census:
    """Count, and note on each worker when it was last used; ``waiting``: there are tasks that want a slot."""
    # Written out and with names of its own: there are thousands of workers to look at in every tick.
    seen = Census()
    serving = slots = busy = known_slots = known_busy = used_at_ms = 0
    least_share, idle = 1.0, None
    for worker in workers:
        running = len(worker.running)
        if running or worker.last_chosen != worker.used_serial or not worker.used_at_ms:
            worker.used_at_ms = used_at_ms = now_ms or 1
            worker.used_serial = worker.last_chosen
        elif worker.used_at_ms > used_at_ms:  # Somebody else has counted since.
            used_at_ms = worker.used_at_ms
        if worker.stop_at_ms:
            continue
        if worker.status is not _HEALTHY and worker.status is not _SUSPECT:
            seen.starting += worker.may_serve
            continue
        offered = worker.slots
        serving += 1
        slots += offered
        busy += running
        if running or worker.reported or worker.direct:
            used = offered if waiting and worker.silent else running
            known_slots += offered
            known_busy += used
            if used < least_share * offered:
                least_share = used / offered
            if not running and (idle is None or worker.used_at_ms < idle.used_at_ms) and is_idle(worker):
                idle = worker
        else:
            least_share = 0.0
    seen.serving, seen.slots, seen.busy, seen.used_at_ms = serving, slots, busy, used_at_ms
    seen.known_slots, seen.known_busy, seen.least_share = known_slots, known_busy, least_share if serving else 1.0
    if idle is not None:
        seen.idle_since_ms, seen.idle_slots = idle.used_at_ms, idle.slots
    return seen


def is_idle(worker: Worker) -> bool:
    """Whether it may be stopped and nobody notices: it is known to be well and to do nothing."""
    return (
        not worker.running
        and worker.reported
        and worker.status is _HEALTHY
        and not (worker.direct or worker.silent or worker.stop_at_ms)
    )
