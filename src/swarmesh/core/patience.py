"""How long a task waits for workers that may not come, and for which it waits at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from swarmesh.core import refusals
from swarmesh.core.fleet import Fleet
from swarmesh.core.ids import ModelName
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.task import Task

PATIENCE_MS: Final = 60_000
"""How long an interactive task waits while no worker that could take it is even expected back."""


class Patience:
    """Since when which models have had nobody in reach.

    Args:
        expects: Whether a worker of a model is being started, or will be, though there is none yet.
    """

    def __init__(self, fleet: Fleet, expects: Callable[[ModelName], bool]) -> None:
        self._fleet = fleet
        self._expects = expects
        self._hopeless_since: dict[ModelName, int] = {}

    def look(self, models: Iterable[ModelName], now_ms: int) -> None:
        """Take stock of the models that tasks wait for; all others are forgotten."""
        hopeless = (
            model for model in models if not refusals.is_in_reach(self._fleet, model) and not self._expects(model)
        )
        self._hopeless_since = {model: self._hopeless_since.get(model, now_ms) for model in hopeless}

    def is_doubtful(self, task: Task) -> bool:
        """Whether it is not plain that the task will be served."""
        return bool(task.tried) or task.model in self._hopeless_since

    def ends(self, task: Task, now_ms: int) -> bool:
        """Whether an interactive task has waited long enough for a worker nobody expects."""
        if task.durable:
            return False
        hopeless_since_ms = self._hopeless_since.get(task.model)
        if hopeless_since_ms is None and (not task.tried or self._has_prospects(task)):
            return False
        return now_ms - max(task.queued_at_ms, hopeless_since_ms or 0) > PATIENCE_MS

    def send_back(self, task: Task) -> None:
        """Let a task that has nobody else left try a worker again that failed it and is well."""
        # A worker that was well again before the task needed it will not come back a second time to be forgiven.
        owners = self._fleet.of_model(task.model).values()
        if any(worker.is_in_reach and worker.worker_id not in task.tried for worker in owners):
            return
        well = (w.worker_id for w in owners if w.status is WorkerStatus.HEALTHY and not w.silent)
        worker_id = next((worker_id for worker_id in well if worker_id not in task.barred), None)
        if worker_id is not None:
            task.tried.discard(worker_id)

    def _has_prospects(self, task: Task) -> bool:
        return refusals.has_prospects(self._fleet, task, in_reach=True) or self._expects(task.model)
