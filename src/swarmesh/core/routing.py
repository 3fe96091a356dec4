"""Which worker gets a task: filter first, then the least predicted work, equals in turn (R-14, foraging)."""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import ModelName, TaskId, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.task import Task

POLICY: Final = "least-work"
POLICY_PREEMPT: Final = "preempt"
"""The slot was taken from a task of low priority."""
POLICY_RETURN: Final = "return"
"""The worker has had this task under the queen before."""

SERVING = frozenset({WorkerStatus.HEALTHY, WorkerStatus.SUSPECT})
# A suspect is the last choice, not no choice: waggles that are late under load must not stop the swarm.


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A choice and why.

    Attributes:
        chosen: The worker, or None when every candidate was vetoed.
        cost: Backlog of the chosen worker per slot before this task, in token-equivalents.
        considered: How many workers own the model.
        vetoes: How many of them each filter took out, by reason.
    """

    task_id: TaskId
    policy: str
    chosen: WorkerId | None
    cost: float
    considered: int
    vetoes: tuple[tuple[str, int], ...]

    def in_words(self) -> str:
        """One sentence for people and error messages."""
        vetoes = ", ".join(f"{count} {reason}" for reason, count in self.vetoes) or "none vetoed"
        outcome = f"chose {self.chosen}" if self.chosen else "chose none"
        return f"{self.policy} {outcome} of {self.considered} ({vetoes})"


def veto(worker: Worker, task: Task) -> str | None:
    """Why this worker may not take this task now; None when it may."""
    if worker.status not in SERVING:
        return str(worker.status)
    if worker.silent:
        return "silent"
    if worker.worker_id in task.tried:
        return "tried"
    if worker.probation is not None and task.on_probation:
        return "probation"
    if len(worker.running) >= worker.slots:
        return "busy"
    return None


def choose(fleet: Fleet, task: Task) -> Decision:
    """The decision for one task; reads the fleet and changes nothing."""
    best: Worker | None = None
    best_rank: tuple[bool, float, int] = (False, 0.0, 0)
    vetoes: dict[str, int] = {}
    candidates = fleet.of_model(task.model)
    for worker in candidates.values():
        reason = veto(worker, task)
        if reason is not None:
            vetoes[reason] = vetoes.get(reason, 0) + 1
            continue
        rank = (
            worker.status is WorkerStatus.SUSPECT,
            worker.backlog / worker.slots,
            worker.last_chosen,
        )
        if best is None or rank < best_rank:
            best, best_rank = worker, rank
    return Decision(
        task_id=task.task_id,
        policy=POLICY,
        chosen=best.worker_id if best else None,
        cost=best_rank[1],
        considered=len(candidates),
        vetoes=tuple(vetoes.items()),
    )


def default_model(fleet: Fleet) -> ModelName | None:
    """The model of a task that names none: the one with most healthy workers, the earliest of equals."""
    best: ModelName | None = None
    best_count = 0
    for model in fleet.models():
        count = sum(1 for worker in fleet.of_model(model).values() if worker.status is WorkerStatus.HEALTHY)
        if best is None or count > best_count:
            best, best_count = model, count
    return best
