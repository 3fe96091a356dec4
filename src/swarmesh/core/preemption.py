"""Whose slot a task of high priority takes when none is free (R-13, brood signal)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import Priority, TaskId
from swarmesh.core.routing import veto
from swarmesh.core.task import Task

PREEMPTIONS_MAX: Final = 3
"""Times one task may lose its slot. Fewer treat batches better, more treat people better."""
PREEMPTED_MS_MAX: Final = 300_000
"""A task that has waited so long for its slot goes before everything else, and keeps the next one."""


def newest_victim(fleet: Fleet, tasks: Mapping[TaskId, Task], task: Task) -> tuple[Task, Worker] | None:
    """The task that gives way: of low priority, started last, so that the least work waits; None when none does."""
    best: tuple[Task, Worker] | None = None
    for worker in fleet.of_model(task.model).values():
        if veto(worker, task) != "busy" or len(worker.running) > worker.slots:
            continue
        for task_id in worker.running:
            victim = tasks[task_id]
            if gives_way(victim) and (best is None or victim.serial > best[0].serial):
                best = victim, worker
    return best


def gives_way(task: Task) -> bool:
    """Whether a running task may lose its slot."""
    return task.band is Priority.LOW and task.resumable and task.preemptions < PREEMPTIONS_MAX


def is_overdue(task: Task, now_ms: int) -> bool:
    """Whether a preempted task has waited long enough."""
    return now_ms - task.preempted_at_ms > PREEMPTED_MS_MAX
