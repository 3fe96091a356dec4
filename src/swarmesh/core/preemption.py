"""Whose slot a task of high priority takes when none is free (R-13, brood signal)."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush
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


class Victims:
    """Running tasks that may give way, the newest of each model first."""

    def __init__(self) -> None:
        self._lines: dict[ModelName, list[tuple[int, TaskId]]] = {}

    def add(self, task: Task) -> None:
        """A task has started."""
        if gives_way(task):
            line = self._lines.setdefault(task.model, [])
            heappush(line, (-task.serial, task.task_id))

    def newest(self, fleet: Fleet, tasks: Mapping[TaskId, Task], task: Task) -> tuple[Task, Worker] | None:
        """The task that gives way: of low priority, started last, so that the least work waits; None when none does.

        Those on a suspect give way after all others: an urgent task goes where it is likely to run.
        """
        line, aside = self._lines.get(task.model, []), list[tuple[int, TaskId]]()
        best: tuple[Task, Worker] | None = None
        while line:
            entry = heappop(line)
            victim = tasks.get(entry[1])
            if victim is None or victim.worker_id is None or victim.serial != -entry[0]:
                continue  # It has ended, or runs elsewhere by now.
            aside.append(entry)
            worker = fleet.get(victim.worker_id)
            if worker is None or not gives_way(victim) or not _would_help(worker, victim, task):
                continue
            if worker.status is not WorkerStatus.SUSPECT:
                best = victim, worker
                break
            best = best or (victim, worker)
        for entry in aside:
            heappush(line, entry)
        if not line:
            self._lines.pop(task.model, None)
        return best


def gives_way(task: Task) -> bool:
    """Whether a running task may lose its slot."""
    return task.band is Priority.LOW and task.resumable and task.preemptions < PREEMPTIONS_MAX


def is_overdue(task: Task, now_ms: int) -> bool:
    """Whether a preempted task has waited long enough."""
    return now_ms - task.preempted_at_ms > PREEMPTED_MS_MAX


def _would_help(worker: Worker, victim: Task, task: Task) -> bool:
    only_busy = veto(worker, task) == BUSY and len(worker.running) <= worker.slots
    return only_busy and victim.task_id in worker.running
