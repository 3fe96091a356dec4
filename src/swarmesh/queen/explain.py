"""Why a task went where it went, from the decisions that are kept and from the queue."""

from __future__ import annotations

import time
from typing import Final

from swarmesh.core.errors import NotFoundError
from swarmesh.core.events import StreamEnded
from swarmesh.core.ids import TaskId
from swarmesh.core.routing import Decision
from swarmesh.core.task import Task, TaskStatus
from swarmesh.queen.decision_book import DECISIONS_MAX, Attempt
from swarmesh.queen.driver import Driver, now_ms
from swarmesh.queen.would_change import would_change
from swarmesh.wire.explain import AttemptView, CandidateView, ReportView, TaskExplained
from swarmesh.wire.openai_chunks import ID_PREFIX

WAITING: Final = "waiting"


class Explainer:
    """Answers for tasks that wait, run, or ended not long ago."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def task(self, name: str) -> TaskExplained:
        """Why a task went where it went.

        Args:
            name: Its job id, what its ``x-swarmesh-task`` header said, or the id of its answer.

        Raises:
            NotFoundError: No decision about it is kept.
        """
        attempts = self._driver.book.find(name) or self._driver.book.find(name.removeprefix(ID_PREFIX))
        task_id = attempts[-1].task_id if attempts else TaskId(name.removeprefix(ID_PREFIX))
        task = self._driver.swarm.dispatcher.tasks.get(task_id)
        views = [_attempt_view(attempt) for attempt in attempts]
        if task is not None and task.status is not TaskStatus.RUNNING:
            decision = self._driver.swarm.router.choose(task, now_ms())
            views.append(_waiting_view(task, decision))
            return _explained(task_id, task.model, decision, views, "")
        if not attempts:
            raise NotFoundError(
                f"no decision about a task {name!r} is kept",
                hint=f"Only the last {DECISIONS_MAX} decisions since the queennode was started can be explained.",
            )
        last = attempts[-1]
        return _explained(task_id, last.model, last.decision, views, last.error)


def _explained(task_id: TaskId, model: str, decision: Decision, views: list[AttemptView], error: str) -> TaskExplained:
    last = views[-1]
    return TaskExplained(
        task=task_id,
        modelcell=model,
        policy=last.policy,
        chosen=last.chosen,
        reason=last.reason,
        words=last.words,
        better=last.better,
        considered=last.considered,
        vetoes=last.vetoes,
        candidates=last.candidates,
        would_change=would_change(decision),
        attempts=tuple(views),
        error=error,
    )


def _attempt_view(attempt: Attempt) -> AttemptView:
    return _view(
        attempt.decision,
        attempt=attempt.number,
        at_s=attempt.at_s,
        queue_ms=attempt.queue_ms,
        outcome=attempt.outcome.value,
        why=attempt.why,
        report=attempt.report,
    )


def _waiting_view(task: Task, decision: Decision) -> AttemptView:
    # What the queue will decide is not known; what it would say of each rustbee now is.
    waited_ms = task.queue_ms + now_ms() - task.queued_at_ms
    return _view(decision, attempt=task.attempt + 1, at_s=time.time(), queue_ms=waited_ms, outcome=WAITING)


def _view(
    decision: Decision,
    *,
    attempt: int,
    at_s: float,
    queue_ms: int,
    outcome: str,
    why: str = "",
    report: StreamEnded | None = None,
) -> AttemptView:
    is_waiting = outcome == WAITING
    return AttemptView(
        attempt=attempt,
        at=round(at_s, 3),
        queue_ms=queue_ms,
        policy=decision.policy,
        chosen=None if is_waiting else decision.chosen,
        reason=WAITING if is_waiting else decision.reason,
        words="it waits for its turn" if is_waiting else decision.in_words(),
        better=decision.better,
        considered=decision.considered,
        vetoes=dict(decision.vetoes),
        candidates=tuple(CandidateView(each.worker_id, each.score, dict(each.parts)) for each in decision.candidates),
        outcome=outcome,
        why=why,
        report=_report(report) if report is not None else None,
    )


def _report(ended: StreamEnded) -> ReportView:
    return ReportView(
        prompt_tokens=ended.prompt_tokens or None,
        cached_tokens=ended.cached_tokens if ended.cached_tokens >= 0 else None,
        completion_tokens=ended.completion_tokens or None,
        first_token_ms=ended.first_token_ms if ended.first_token_ms >= 0 else None,
    )
