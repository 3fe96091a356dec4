"""Who may take a task: the filters, and the workers of one model that pass them in the order in which they are asked.

Every worker that is free stands in a lane with a rank; each lane is a heap. What a heap says of a worker that has
changed since is thrown away when it comes to the top, so a change costs O(log n) and nobody is ever searched for.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, NamedTuple

from swarmesh.core.fleet import Worker
from swarmesh.core.ids import WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.task import Task

_HEALTHY: Final = WorkerStatus.HEALTHY
_SUSPECT: Final = WorkerStatus.SUSPECT
SERVING: Final = frozenset({_HEALTHY, _SUSPECT})
# A suspect is the last choice, not no choice: waggles that are late under load must not stop the swarm.

BUSY: Final = "busy"
_STALE_MAX: Final = 64
"""Outdated entries that a lane may always hold; above that no more than three for each that is not."""


def unfit(worker: Worker) -> str | None:
    """Why this worker may not take anything now; None when it may."""
    status = worker.status
    if status is not _HEALTHY and status is not _SUSPECT:
        return str(status)
    if worker.silent:
        return "silent"
    if len(worker.running) >= worker.slots:
        return BUSY
    return None


def kept(worker: Worker, task: Task) -> str | None:
    """Why this task is kept from a worker that others may go to; None when it is not."""
    if worker.worker_id in task.tried:
        return "tried"
    if worker.probation is not None and task.on_probation:
        return "probation"
    return None


def veto(worker: Worker, task: Task) -> str | None:
    """Why this worker may not take this task now; None when it may. What a free slot would mend comes last."""
    reason = unfit(worker)
    if reason is not None and reason != BUSY:
        return reason
    return kept(worker, task) or reason


class Rank(NamedTuple):
    """Where a free worker stands.

    Attributes:
        lane: Of its kind; within a lane, the order by ``key`` is the order for every task.
        key: Lower is asked first.
        until_ms: When it must be ranked anew although nothing happens to it; 0 for never.
        tie: Lower is asked first of those with the same key; of equals, the one whose last task was given longest ago.
    """

    lane: int
    key: float
    until_ms: int = 0
    tie: int = 0


_Entry = tuple[float, int, int, int, int, Worker]
"""Key, tie, last turn, place among those that never had one, serial number, and who it is."""
_Lane = tuple[bool, int]


class Candidates:
    """The free workers of one model, by rank."""

    def __init__(self, rank: Callable[[Worker, int], Rank]) -> None:
        self._rank = rank
        self._lanes: dict[_Lane, list[_Entry]] = {}
        self._current: dict[WorkerId, tuple[_Lane, _Entry]] = {}
        self._turns: dict[WorkerId, int] = {}
        self._expiries: list[tuple[int, int, Worker]] = []
        self._limits: dict[_Lane, int] = {}
        self._serials = count()

    def offer(self, worker: Worker, now_ms: int) -> None:
        """Rank a free worker, anew if it was before."""
        worker_id = worker.worker_id
        lane_number, key, until_ms, tie = self._rank(worker, now_ms)
        lane, last = (worker.status is _SUSPECT, lane_number), worker.last_chosen
        known = self._current.get(worker_id)
        if known is not None:
            entry = known[1]
            if known[0] == lane and entry[:3] == (key, tie, last) and entry[5] is worker:
                return
        serial = next(self._serials)
        turn = self._turns.setdefault(worker_id, serial)
        entry = (key, tie, last, turn, serial, worker)
        self._current[worker_id] = (lane, entry)
        heap = self._lanes.get(lane)
        if heap is None:
            heap = self._lanes[lane] = []
        heappush(heap, entry)
        if until_ms:
            heappush(self._expiries, (until_ms, serial, worker))
        if len(heap) > self._limits.get(lane, _STALE_MAX):
            self._sweep(lane)

    def withdraw(self, worker_id: WorkerId) -> None:
        """The worker is not free, or not there, any more."""
        self._current.pop(worker_id, None)

    def forget(self, worker_id: WorkerId) -> None:
        """The worker will not return; its place among equals is free."""
        self.withdraw(worker_id)
        self._turns.pop(worker_id, None)

    def refresh(self, now_ms: int) -> None:
        """Rank those anew whose time has come."""
        while self._expiries and self._expiries[0][0] <= now_ms:
            _, serial, worker = heappop(self._expiries)
            known = self._current.get(worker.worker_id)
            if known is not None and known[1][4] == serial:
                self.withdraw(worker.worker_id)  # Also one whose rank is the same is looked at again after that.
                self.offer(worker, now_ms)

    def heads(self, task: Task, most: int) -> list[Worker]:
        """The first of every lane that may take this task, more of each while ``most`` lasts; suspects only alone."""
        for suspects in (False, True):
            lanes = [lane for lane in self._lanes if lane[0] is suspects]
            each = max(1, most // len(lanes)) if lanes else 0
            found = [worker for lane in lanes for worker in self._first(lane, task, each)]
            if found:
                return found
        return []

    def holds(self, worker: Worker) -> bool:
        """Whether this worker stands here, with the turn it has now."""
        known = self._current.get(worker.worker_id)
        return known is not None and known[1][5] is worker and known[1][2] == worker.last_chosen

    def __len__(self) -> int:
        """How many are free."""
        return len(self._current)

    def _first(self, lane: _Lane, task: Task, most: int) -> list[Worker]:
        heap = self._lanes[lane]
        found: list[Worker] = []
        aside: list[_Entry] = []
        choosy = bool(task.tried) or task.on_probation
        while heap and len(found) < most:
            entry = heap[0]
            if not self._is_held(lane, entry):
                heappop(heap)
                continue
            if not choosy or kept(entry[5], task) is None:
                found.append(entry[5])
                if len(found) == most:
                    break
            aside.append(heappop(heap))
        for entry in aside:
            heappush(heap, entry)
        if not heap:
            del self._lanes[lane]
            self._limits.pop(lane, None)
        return found

    def _sweep(self, lane: _Lane) -> None:
        heap = [entry for entry in self._lanes[lane] if self._is_held(lane, entry)]
        heapify(heap)
        self._lanes[lane] = heap
        self._limits[lane] = max(_STALE_MAX, 4 * len(heap))
        self._expiries = [entry for entry in self._expiries if self._is_newest(entry)]
        heapify(self._expiries)

    def _is_held(self, lane: _Lane, entry: _Entry) -> bool:
        known = self._current.get(entry[5].worker_id)
        return known is not None and known[1] is entry and known[0] == lane

    def _is_newest(self, expiry: tuple[int, int, Worker]) -> bool:
        known = self._current.get(expiry[2].worker_id)
        return known is not None and known[1][4] == expiry[1]
