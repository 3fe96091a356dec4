"""What a task waits for, for the client who waits with it: a start, its key's limit, its turn."""

from __future__ import annotations

from swarmesh.core.ids import TaskId
from swarmesh.core.task import TaskStatus
from swarmesh.queen.driver import Driver, now_ms
from swarmesh.queen.why_waiting import why_waiting
from swarmesh.wire.flow import ProgressData


def start_progress(driver: Driver, task_id: TaskId) -> ProgressData | None:
    """Why a task waits, and how far the start is if it waits for one; None when it runs or is over."""
    swarm = driver.swarm
    task = swarm.dispatcher.tasks.get(task_id)
    if task is None or task.status is TaskStatus.RUNNING:
        return None
    why = why_waiting(swarm, task, now_ms(), has_model=driver.has_model)
    return ProgressData(
        job_id=task_id,
        status=task.status.value,
        modelcell=task.model,
        phase=why.phase,
        since_s=round(why.since_ms / 1_000, 1),
        expected_s=round(why.expected_ms / 1_000, 1) if why.expected_ms else None,
        message=why.words,
    )


def waiting_words(driver: Driver, task_id: TaskId) -> str | None:
    """The message of `start_progress` alone."""
    progress = start_progress(driver, task_id)
    return progress.message if progress is not None else None
