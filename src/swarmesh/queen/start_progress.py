"""What a task waits for while a worker of its model is being started, for the client who waits with it."""

from __future__ import annotations

from swarmesh.core.ids import TaskId
from swarmesh.core.task import TaskStatus
from swarmesh.queen.driver import Driver, now_ms
from swarmesh.wire.flow import ProgressData


def start_progress(driver: Driver, task_id: TaskId) -> ProgressData | None:
    """How far the start is that a task waits for; None when it runs, is over, or waits for something else."""
    swarm = driver.swarm
    task = swarm.dispatcher.tasks.get(task_id)
    if task is None or task.status is TaskStatus.RUNNING:
        return None
    action = swarm.scaler.under_way(task.model, now_ms())
    if action is None:
        return None
    return ProgressData(
        job_id=task_id,
        status=task.status.value,
        modelcell=task.model,
        phase=action.phase,
        since_s=round(action.since_ms / 1_000, 1),
        expected_s=round(action.load_ms / 1_000, 1) if action.load_ms else None,
        message=action.words,
    )
