"""Why a task went where it went, or nowhere, from the decisions and refusals that are kept and from the queue."""

from __future__ import annotations

import re
import time
from typing import Final

import msgspec

from swarmesh.core.decision import Decision
from swarmesh.core.errors import NotFoundError
from swarmesh.core.events import StreamEnded
from swarmesh.core.ids import KeyId, TaskId
from swarmesh.core.task import Task, TaskStatus
from swarmesh.queen.decision_book import DECISIONS_MAX, Attempt
from swarmesh.queen.driver import Driver, now_ms
from swarmesh.queen.refusal_book import REFUSALS_MAX
from swarmesh.queen.why_waiting import WAITING, why_waiting
from swarmesh.queen.would_change import would_change
from swarmesh.queen.would_let_in import would_let_in
from swarmesh.wire.explain import AttemptView, CandidateView, RefusalExplained, ReportView, TaskExplained
from swarmesh.wire.openai_chunks import ID_PREFIX

NAME_CHARS_MAX: Final = 128
"""Of a name that was asked for, how much is said back."""
_PLAIN: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{NAME_CHARS_MAX}}}")


class Explainer:
    """Answers for tasks that wait, run, or ended not long ago."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def task(self, name: str, key_id: KeyId | None = None) -> TaskExplained:
        """Why a task went where it went.

        Args:
            name: Its job id, what its ``x-swarmesh-task`` header said, or the id of its answer.
            key_id: A task of another key counts as not known; None for those of all keys.

        Raises:
            NotFoundError: No decision about it is kept.
        """
        book = self._driver.book
        attempts = book.find(name, key_id) or book.find(name.removeprefix(ID_PREFIX), key_id)
        task_id = attempts[-1].task_id if attempts else TaskId(name.removeprefix(ID_PREFIX))
        task = self._task(task_id, key_id)
        views = [_attempt_view(attempt, all_told=key_id is None) for attempt in attempts]
        if task is not None and task.status is not TaskStatus.RUNNING:
            decision = self._driver.swarm.router.choose(task, now_ms())
            why = why_waiting(self._driver.swarm, task, now_ms(), decision, has_model=self._driver.has_model)
            views.append(_waiting_view(task, decision, why.words, all_told=key_id is None))
            return _explained(task_id, task.model, why.would_help, views, "")
        if not attempts:
            raise _unknown_task(name, was_refused=self._driver.refused.find(task_id, key_id) is not None)
        last = attempts[-1]
        return _explained(task_id, last.model, would_change(last.decision), views, last.error)

    def refusal(self, name: str, key_id: KeyId | None = None) -> RefusalExplained:
        """Why a task was refused or given up.

        Args:
            name: What the ``x-swarmesh-task`` header of the refusal said, or a job id.
            key_id: A task of another key counts as not refused and not known; None for those of all keys.

        Raises:
            NotFoundError: It was not, or that is forgotten.
        """
        task_id = TaskId(name.removeprefix(ID_PREFIX))
        refused = self._driver.refused.find(task_id, key_id)
        if refused is None:
            known = self._driver.book.find(task_id, key_id) or self._task(task_id, key_id) is not None
            raise NotFoundError(
                f"task {_quoted(name)} was not refused" if known else f"no refusal of a task {_quoted(name)} is kept",
                hint=f"'swarmesh explain task {_typed(name)}' says where it went."
                if known
                else f"Only the last {REFUSALS_MAX} refusals since the queennode was started can be explained.",
            )
        asked = refused.submitted
        attempts = self._driver.book.find(task_id, key_id)
        return RefusalExplained(
            task=task_id,
            at=round(refused.at_s, 3),
            modelcell=asked.model if asked is not None else "",
            priority=asked.priority.value if asked is not None else "",
            prompt_chars=asked.prompt_chars if asked is not None else None,
            max_tokens=(asked.max_tokens or None) if asked is not None else None,
            attempts=attempts[-1].number if attempts else 0,
            status=refused.status,
            code=refused.code,
            words=refused.message,
            hint=refused.hint,
            retry_after_s=refused.retry_after_s,
            would_change=would_let_in(refused, self._driver.swarm, now_ms()),
        )

    def _task(self, task_id: TaskId, key_id: KeyId | None) -> Task | None:
        task = self._driver.swarm.dispatcher.tasks.get(task_id)
        return task if task is not None and key_id in (None, task.key_id) else None


def _unknown_task(name: str, *, was_refused: bool) -> NotFoundError:
    if was_refused:
        hint = f"It was refused: 'swarmesh explain refusal {_typed(name)}' says why."
    else:
        hint = (
            f"No rustbee had got it when it was cancelled, or it is in none of the last {DECISIONS_MAX} decisions "
            f"since the queennode was started; 'swarmesh nectarflow show {_typed(name)}' says how a nectarflow ended."
        )
    return NotFoundError(f"no decision about a task {_quoted(name)} is kept", hint=hint)


def _quoted(name: str) -> str:
    return repr(name if len(name) <= NAME_CHARS_MAX else f"{name[:NAME_CHARS_MAX]}...")


def _typed(name: str) -> str:
    """How a command names a task; one that no task can have, with line breaks perhaps, is not said as if it were."""
    return name if _PLAIN.fullmatch(name) else "ID"


def _explained(
    task_id: TaskId, model: str, would_change: tuple[str, ...], views: list[AttemptView], error: str
) -> TaskExplained:
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
        would_change=would_change,
        attempts=tuple(views),
        without_script=last.without_script,
        error=error,
    )


def _attempt_view(attempt: Attempt, *, all_told: bool) -> AttemptView:
    return _view(
        attempt.decision,
        attempt=attempt.number,
        at_s=attempt.at_s,
        queue_ms=attempt.queue_ms,
        outcome=attempt.outcome.value,
        why=attempt.why,
        report=attempt.report,
        all_told=all_told,
    )


def _waiting_view(task: Task, decision: Decision, words: str, *, all_told: bool) -> AttemptView:
    # What the queue will decide is not known; what it would say of each rustbee now is.
    waited_ms = task.queue_ms + now_ms() - task.queued_at_ms
    view = _view(
        decision, attempt=task.attempt + 1, at_s=time.time(), queue_ms=waited_ms, outcome=WAITING, all_told=all_told
    )
    return msgspec.structs.replace(view, chosen=None, reason=WAITING, words=words)


def _view(
    decision: Decision,
    *,
    attempt: int,
    at_s: float,
    queue_ms: int,
    outcome: str,
    all_told: bool,
    why: str = "",
    report: StreamEnded | None = None,
) -> AttemptView:
    return AttemptView(
        attempt=attempt,
        at=round(at_s, 3),
        queue_ms=queue_ms,
        policy=decision.policy,
        chosen=decision.chosen,
        reason=decision.reason,
        words=decision.in_words(),
        better=decision.better,
        considered=decision.considered,
        vetoes=dict(decision.vetoes),
        candidates=tuple(CandidateView(each.worker_id, each.score, dict(each.parts)) for each in decision.candidates),
        outcome=outcome,
        without_script=_without_script(decision, all_told=all_told),
        why=why,
        report=_report(report) if report is not None else None,
    )


def _without_script(decision: Decision, *, all_told: bool) -> str:
    if decision.unheard is None:
        return ""
    # What the script did wrong may have been about a task of another key.
    return decision.unheard.in_words(is_kept=decision.chosen is None, with_reason=all_told)


def _report(ended: StreamEnded) -> ReportView:
    return ReportView(
        prompt_tokens=ended.prompt_tokens or None,
        cached_tokens=ended.cached_tokens if ended.cached_tokens >= 0 else None,
        completion_tokens=ended.completion_tokens or None,
        first_token_ms=ended.first_token_ms if ended.first_token_ms >= 0 else None,
    )
