"""Whose slot a task of high priority takes when none is free (R-13, brood signal)."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Final

from swarmesh.core.candidates import BUSY, veto
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import ModelName, Priority, TaskId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.task import Task

PREEMPTIONS_MAX: Final = 3
"""Times one task may lose its slot. Fewer treat batches better, more treat people better."""
PREEMPTED_MS_MAX: Final = 300_000
"""A task that has waited so long for its slot goes before everything else, and keeps the next one."""
_STALE_MAX: Final = 64
"""Entries of tasks that have ended that a line may always hold; above that no more than three for each that runs."""


class Victims:
    """Running tasks that may give way, the newest of each model first."""

    def __init__(self, fleet: Fleet, tasks: Mapping[TaskId, Task]) -> None:
        self._fleet = fleet
        self._tasks = tasks
        self._lines: dict[ModelName, list[tuple[int, TaskId]]] = {}
        self._limits: dict[ModelName, int] = {}

    def add(self, task: Task) -> None:
        """A task has started."""
        if gives_way(task):
            line = self._lines.setdefault(task.model, [])
            heappush(line, (-task.serial, task.task_id))
            if len(line) > self._limits.get(task.model, _STALE_MAX):
                self._sweep(task.model)

    def newest(self, task: Task) -> tuple[Task, Worker] | None:
        """The task that gives way: of low priority, started last, so that the least work waits; None when none does.

        Those on a suspect give way after all others: an urgent task goes where it is likely to run.
        """
        line = self._lines.get(task.model, [])
        aside: list[tuple[int, TaskId]] = []
        best: tuple[Task, Worker] | None = None
        while line:
            entry = heappop(line)
            victim = self._of(entry)
            if victim is None or victim.worker_id is None:
                continue
            aside.append(entry)
            worker = self._fleet.get(victim.worker_id)
            if worker is None or not gives_way(victim) or not _would_help(worker, victim, task):
                continue
            if worker.status is not WorkerStatus.SUSPECT:
                best = victim, worker
                break
            best = best or (victim, worker)
        for entry in aside:
            heappush(line, entry)
        if not line:
            self._drop(task.model)
        return best

    def __len__(self) -> int:
        """How many entries are kept, also of tasks that have ended since."""
        return sum(len(line) for line in self._lines.values())

    def _of(self, entry: tuple[int, TaskId]) -> Task | None:
        # None: it has ended, or runs elsewhere by now.
        task = self._tasks.get(entry[1])
        return task if task is not None and task.worker_id is not None and task.serial == -entry[0] else None

    def _sweep(self, model: ModelName) -> None:
        # The one that was just added is not among the tasks yet when it starts at once.
        newest = min(self._lines[model])
        line = [entry for entry in self._lines[model] if entry == newest or self._of(entry) is not None]
        heapify(line)
        self._lines[model], self._limits[model] = line, max(_STALE_MAX, 4 * len(line))

    def _drop(self, model: ModelName) -> None:
        self._lines.pop(model, None)
        self._limits.pop(model, None)


def gives_way(task: Task) -> bool:
    """Whether a running task may lose its slot."""
    return task.band is Priority.LOW and task.resumable and task.preemptions < PREEMPTIONS_MAX


def is_overdue(task: Task, now_ms: int) -> bool:
    """Whether a preempted task has waited long enough."""
    return now_ms - task.preempted_at_ms > PREEMPTED_MS_MAX


def _would_help(worker: Worker, victim: Task, task: Task) -> bool:
    only_busy = veto(worker, task) == BUSY and len(worker.running) <= worker.slots
    return only_busy and victim.task_id in worker.running
