"""Whose slot a task of high priority takes when none is free (R-13, brood signal)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import Priority, TaskId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.routing import veto
from swarmesh.core.task import Task

PREEMPTIONS_MAX: Final = 3
"""Times one task may lose its slot. Fewer treat batches better, more treat people better."""
PREEMPTED_MS_MAX: Final = 300_000
"""A task that has waited so long for its slot goes before everything else, and keeps the next one."""


def newest_victim(fleet: Fleet, tasks: Mapping[TaskId, Task], task: Task) -> tuple[Task, Worker] | None:
    """The task that gives way: of low priority, started last, so that the least work waits; None when none does.

    Those on a suspect give way after all others: an urgent task goes where it is likely to run.
    """
    best: tuple[Task, Worker] | None = None
    best_rank = (False, 0)
    for worker in fleet.of_model(task.model).values():
        if veto(worker, task) != "busy" or len(worker.running) > worker.slots:
            continue
        for task_id in worker.running:
            victim = tasks[task_id]
            rank = (worker.status is not WorkerStatus.SUSPECT, victim.serial)
            if gives_way(victim) and rank > best_rank:
                best, best_rank = (victim, worker), rank
    return best


def gives_way(task: Task) -> bool:
    """Whether a running task may lose its slot."""
    return task.band is Priority.LOW and task.resumable and task.preemptions < PREEMPTIONS_MAX


def is_overdue(task: Task, now_ms: int) -> bool:
    """Whether a preempted task has waited long enough."""
    return now_ms - task.preempted_at_ms > PREEMPTED_MS_MAX
