"""Which workers are silent, and how many may be declared dead for it: a second opinion on the cap and the amnesty."""

from __future__ import annotations

from collections import deque
from typing import Final

from swarmesh.core.commands import RaiseAlarm
from swarmesh.core.events import Event, HostLost, SpawnFailed, WorkerFellSilent, WorkerGone, WorkerHeard
from swarmesh.core.eviction import SHARE_DIVISOR, WINDOW_MS
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import WorkerId
from swarmesh.core.liveness import lease_fact
from swarmesh.core.swarm import Swarm
from swarmesh.sim.checkers import demand

BY_SILENCE: Final = frozenset({"rustbee_silent", "lease_expired"})
"""Alarms that declare a worker dead because nothing was heard of it."""


class Deaths:
    """Follows silence and declarations of death through the life of one swarm."""

    def __init__(self, swarm: Swarm, amnesty_until_ms: int) -> None:
        self._swarm = swarm
        self._amnesty_until_ms = amnesty_until_ms
        self._silent: set[WorkerId] = set()
        self._overdue: set[WorkerId] = set()
        self._uncertain_ms: deque[int] = deque()

    def is_silent(self, worker_id: WorkerId) -> bool:
        """Whether the last word was that it cannot be reached."""
        return worker_id in self._silent

    def before(self, event: Event) -> None:
        """Remember what was believed of the workers that an event is about."""
        for worker in self._made_silent(event):
            self._silent.add(worker.worker_id)
            if lease_fact(worker.lease_age_ms, worker.interval_ms) is not None:
                self._overdue.add(worker.worker_id)
            else:
                self._overdue.discard(worker.worker_id)

    def after(self, event: Event) -> None:
        """Take in who can be heard again, and who is forgotten."""
        if isinstance(event, WorkerHeard | WorkerGone | SpawnFailed):
            self._silent.discard(event.worker_id)

    def declared(self, alarm: RaiseAlarm, now_ms: int) -> None:
        """Check an alarm.

        Raises:
            InvariantBrokenError: It declares a death by silence during the amnesty, or one too many on one signal.
        """
        if alarm.code not in BY_SILENCE:
            return
        demand(now_ms >= self._amnesty_until_ms, "{} during the amnesty, at {} ms", alarm, now_ms)
        by_lease = alarm.code == "lease_expired"
        if self.is_silent(alarm.worker_id) if by_lease else alarm.worker_id in self._overdue:
            return
        self._uncertain_ms.append(now_ms)
        while self._uncertain_ms[0] <= now_ms - WINDOW_MS:
            self._uncertain_ms.popleft()
        most = max(1, len(self._swarm.fleet) // SHARE_DIVISOR)
        count = len(self._uncertain_ms)
        demand(count <= most, "{} workers declared dead within {} ms on one signal, {} may", count, WINDOW_MS, most)

    def _made_silent(self, event: Event) -> list[Worker]:
        fleet = self._swarm.fleet
        if isinstance(event, WorkerFellSilent):
            worker = fleet.get(event.worker_id)
            return [worker] if worker is not None else []
        if isinstance(event, HostLost):
            there = (worker for worker in fleet if worker.host == event.host)
            return [worker for worker in there if worker.location and not worker.direct]
        return []
