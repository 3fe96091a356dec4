"""What the router knows of one model: who is free, who has read what, what its tasks cost, who must be measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from swarmesh.core.candidates import BUSY, Candidates, kept, unfit
from swarmesh.core.costs import Costs
from swarmesh.core.events import StreamEnded
from swarmesh.core.exploration import Exploration
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import Priority, WorkerId
from swarmesh.core.ledger import CHARS_PER_TOKEN
from swarmesh.core.ledger_rule import Weighed
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.policies import PolicyName, rule_of
from swarmesh.core.prefix import BLOCK_TOKENS, PrefixIndex
from swarmesh.core.task import Task
from swarmesh.core.trail import SLOW, SLOW_FACTOR

LINEAR_MAX: Final = 24
"""Up to so many workers are looked at one by one; more than that stand in order, which costs something per change."""
HOLDERS_MAX: Final = 24
"""Of more, so many are looked at because they have read most of the prompt."""
LESSONS_WINDOW_MS: Final = 100
LESSONS_MAX: Final = 50
"""Tasks that teach what things cost within one window: of thousands that end in a second the others say the same."""
LESSON_WORK: Final = 4_000.0
"""Token-equivalents that are believed of any task: how long a short one took is measured too roughly."""
WORK_PER_S_MAX: Final = 50_000.0
"""Token-equivalents; a task that claims more teaches nothing: one absurd report would draw all the others there."""
_HEALTHY: Final = WorkerStatus.HEALTHY
_ALL_READ: Final = (0, 1.0)
"""Nothing of a prompt is common to the workers."""


@dataclass(slots=True)
class _Known:
    worker: Worker
    reason: str | None
    engine_pid: int


class ModelBook:
    """Kept up to date by `take` whenever a worker of the model has changed.

    Attributes:
        workers: Every known worker of the model, with what keeps all tasks from it; None for those that are free.
        free: The free ones.
        orders: Those in which the workers stand: they have to hear of every change; none of a few workers.
        sign: What a cost is to be multiplied by to be the rule's score.
        reasons: How many there are of each.
        changes: Counted up whenever a worker, or what runs on one, changes.
    """

    def __init__(self, policy: PolicyName, seed: int) -> None:
        self.costs = Costs()
        self.prefixes = PrefixIndex()
        self.exploration = Exploration(seed)
        self.workers: dict[WorkerId, _Known] = {}
        self.free: dict[WorkerId, Worker] = {}
        self.reasons: dict[str | None, int] = {}
        self.changes = 0
        self._vetoes: tuple[tuple[str, int], ...] | None = ()
        self._lessons_ms = self._lessons = 0
        self.use(policy, 0)

    def use(self, policy: PolicyName, now_ms: int) -> None:
        """Choose by this rule from now on."""
        self.policy = policy
        self.rule = rule_of(policy, self.costs)
        self.sign = 1.0 if self.rule.better == "lower" else -1.0
        self.orders: dict[int, Candidates] = {}
        for worker in self.free.values():
            self.rule.rate(worker, now_ms)

    def candidates(self, task: Task, now_ms: int, most: int) -> tuple[list[Worker], Sequence[float]]:
        """Who may take the task, and what of the prompt each need not read, in tokens; the latter empty for nothing.

        All of a few; of many at least the first of every lane, ``most`` if there are so many, and those who have read
        most of the prompt. Suspects only if there is nobody else.
        """
        if len(self.free) > LINEAR_MAX:
            workers = self._first(task, now_ms, most)
        else:
            found: Iterable[Worker] = self.free.values()
            if task.tried or (task.kills and task.on_probation):
                found = [worker for worker in found if kept(worker, task) is None]
            workers = [worker for worker in found if worker.status is _HEALTHY] or list(found)
        if not workers or not task.prefix or not self.rule.reads_prefix:
            return workers, ()
        common = self._common(task)
        worths = self.prefixes.believed(workers, task.prefix, common)
        if len(self.free) > LINEAR_MAX:
            self._add_holders(workers, worths, task, common)
        tokens = task.prompt_chars / CHARS_PER_TOKEN
        return workers, [min(worth * BLOCK_TOKENS, tokens) for worth in worths]

    def cached_tokens(self, worker: Worker, task: Task) -> Sequence[float]:
        """What of the prompt one worker need not read, as `candidates` has it."""
        if not task.prefix or not self.rule.reads_prefix:
            return ()
        worth = self.prefixes.believed([worker], task.prefix, self._common(task))[0]
        return [min(worth * BLOCK_TOKENS, task.prompt_chars / CHARS_PER_TOKEN)]

    def take(self, worker: Worker, now_ms: int) -> None:
        """A worker has come or changed."""
        worker_id = worker.worker_id
        known, reason = self.workers.get(worker_id), unfit(worker)
        if known is None or known.worker is not worker:
            self._enter(worker, known, reason, now_ms)
        elif known.reason != reason or known.engine_pid != worker.engine_pid:
            self._change(known, reason, now_ms)
        if reason is None and (worker.pace.is_stale or worker.trail.marks):
            self.rule.rate(worker, now_ms)
        for candidates in self.orders.values():
            if reason is None:
                candidates.offer(worker, now_ms)
            else:
                candidates.withdraw(worker_id)

    def forget(self, worker_id: WorkerId) -> None:
        """A worker is gone, or serves another model now."""
        known = self.workers.pop(worker_id, None)
        if known is None:
            return
        self._count(known.reason, -1)
        self.free.pop(worker_id, None)
        self.changes += 1
        self.prefixes.forget(worker_id)
        self.exploration.forget(worker_id)
        for candidates in self.orders.values():
            candidates.forget(worker_id)
        if len(self.workers) <= LINEAR_MAX:
            self.orders.clear()

    def vetoes(self, task: Task) -> tuple[tuple[str, int], ...]:
        """How many workers each filter takes out for this task, by reason."""
        if not task.tried and not (task.kills and task.on_probation):
            if self._vetoes is None:
                self._vetoes = tuple((reason, number) for reason, number in self.reasons.items() if reason and number)
            return self._vetoes
        counts = {reason: number for reason, number in self.reasons.items() if reason is not None}
        for known in self._kept_from(task):
            why = kept(known.worker, task)
            if why is not None and known.reason in (None, BUSY):
                counts[why] = counts.get(why, 0) + 1
                if known.reason is not None:
                    counts[known.reason] -= 1
        return tuple((reason, number) for reason, number in counts.items() if number)

    def due(self, task: Task, ranked: Sequence[Weighed], now_ms: int) -> Weighed | None:
        """Who is to be measured by this task, if anybody is."""
        if self.policy is not PolicyName.SWARM or ranked[0][4].status is WorkerStatus.SUSPECT:
            return None

        def may(worker_id: WorkerId) -> bool:
            worker = self.free.get(worker_id)
            return worker is not None and worker.status is _HEALTHY and kept(worker, task) is None

        worker_id = self.exploration.due(now_ms, may)
        if worker_id is None:
            return None
        known = next((each for each in ranked if each[4].worker_id == worker_id), None)
        if known is not None:
            return known
        worker = self.free[worker_id]
        return self.rule.weigh([worker], task, self.cached_tokens(worker, task), now_ms)[0]

    def read_by(self, worker_id: WorkerId, task: Task) -> tuple[int, float]:
        """How many blocks of the prompt a worker is thought to have read, and how many tokens that saves it."""
        if not task.prefix:
            return 0, 0.0
        blocks = self.prefixes.blocks(worker_id, task.prefix)
        saved = self.prefixes.worth(worker_id, blocks, _ALL_READ) * BLOCK_TOKENS
        return blocks, min(saved, task.prompt_chars / CHARS_PER_TOKEN)

    def learn(self, worker: Worker, task: Task, event: StreamEnded, now_ms: int, running: int) -> bool:
        """Take in what a finished task tells, one of ``running``; True when the usual speed is another one now."""
        costs, pace = self.costs, worker.pace
        # What is counted begins with the answer, and of one that was gone on with others have written a part.
        if task.attempt > 1:
            return False
        read_tokens = self._read_tokens(worker, task, event)
        work = event.completion_tokens + costs.prefill_weight * read_tokens
        took_ms = now_ms - task.started_at_ms
        if event.completion_tokens <= 0 or (work > LESSON_WORK and work > took_ms / 1_000 * WORK_PER_S_MAX):
            return False
        crowd = max(1.0, (pace.crowd_ms - task.crowd_ms) / took_ms) if took_ms > 0 else 1.0
        share_s = took_ms / 1_000 * crowd ** (costs.crowd_exponent - 1.0)
        if now_ms - self._lessons_ms >= LESSONS_WINDOW_MS:
            self._lessons_ms, self._lessons = now_ms, 0
        self._lessons += 1
        if self._lessons > LESSONS_MAX:
            pace.done(work, share_s)
            return False
        if event.first_token_ms > 0 and task.reads_at_once and read_tokens >= BLOCK_TOKENS:
            costs.read(read_tokens, event.first_token_ms / 1_000, pace.rated)
            work = event.completion_tokens + costs.prefill_weight * read_tokens  # By what it has just taught.
        costs.wrote(event.completion_tokens)
        if took_ms > 0:
            costs.ran(pace, crowd, 1_000 * work / took_ms)
        self._compare_with_promise(worker, work, took_ms, now_ms, running)
        pace.done(work, share_s)
        pace.is_stale = True
        return costs.compare((known.worker.pace for known in self.workers.values()), len(self.workers))

    def is_current(self, worker: Worker) -> bool:
        """Whether what is kept of a worker is what a fresh look says; for checkers."""
        known, reason = self.workers.get(worker.worker_id), unfit(worker)
        if known is None or known.worker is not worker or known.reason != reason:
            return False
        is_free = reason is None
        if (self.free.get(worker.worker_id) is worker) is not is_free:
            return False
        return all(candidates.holds(worker) is is_free for candidates in self.orders.values())

    def _compare_with_promise(self, worker: Worker, work: float, took_ms: int, now_ms: int, running: int) -> None:
        if took_ms > _SLOW_MS_MIN and worker.pace.is_measured:
            promised_s = work * max(1, running) / worker.pace.rated
            if took_ms / 1_000 > SLOW_FACTOR * promised_s:
                worker.trail.lower(SLOW, now_ms)

    def _first(self, task: Task, now_ms: int, most: int) -> list[Worker]:
        candidates = self._order(task.priority, now_ms)
        candidates.refresh(now_ms)
        return candidates.heads(task, most)

    def _add_holders(self, workers: list[Worker], worths: list[float], task: Task, common: tuple[int, float]) -> None:
        seen = {worker.worker_id for worker in workers}
        is_suspect = workers[0].status is WorkerStatus.SUSPECT
        for worker_id, blocks in self.prefixes.match(task.prefix, HOLDERS_MAX).items():
            worker = self.free.get(worker_id)
            if worker is None or worker_id in seen or kept(worker, task) is not None:
                continue
            if (worker.status is WorkerStatus.SUSPECT) is is_suspect:
                workers.append(worker)
                worths.append(self.prefixes.worth(worker_id, blocks, common))

    def _common(self, task: Task) -> tuple[int, float]:
        serving = self.reasons.get(None, 0) + self.reasons.get(BUSY, 0)
        return self.prefixes.common(task.prefix, serving) if serving > 1 else _ALL_READ

    def _order(self, priority: Priority, now_ms: int) -> Candidates:
        number = self.rule.order_of(priority)
        found = self.orders.get(number)
        if found is None:
            found = self.orders[number] = Candidates(lambda worker, at_ms: self.rule.rank(worker, number, at_ms))
            for worker in self.free.values():
                found.offer(worker, now_ms)
        return found

    def _enter(self, worker: Worker, known: _Known | None, reason: str | None, now_ms: int) -> None:
        worker_id = worker.worker_id
        if known is None:
            known = self.workers[worker_id] = _Known(worker, _NEW, worker.engine_pid)
        known.worker = worker
        worker.pace.is_stale = True  # It may have been rated with the marks of who was here before.
        if worker_id in self.free:
            self.free[worker_id] = worker
        self._change(known, reason, now_ms)

    def _change(self, known: _Known, reason: str | None, now_ms: int) -> None:
        self.changes += 1
        worker, before = known.worker, known.reason
        if before != reason:
            self._count(before, -1)
            self._count(reason, 1)
            known.reason = reason
            if reason is None:
                self.free[worker.worker_id] = worker
            else:
                self.free.pop(worker.worker_id, None)
        if reason in (None, BUSY) and before not in (None, BUSY):
            if before != _NEW:
                worker.pace.fade()
            self.exploration.came(worker.worker_id, now_ms)
        if known.engine_pid != worker.engine_pid:
            self.prefixes.forget(worker.worker_id)
            known.engine_pid = worker.engine_pid

    def _read_tokens(self, worker: Worker, task: Task, event: StreamEnded) -> float:
        if event.prompt_tokens <= 0:
            return task.uncached_tokens
        if event.cached_tokens < 0:
            return float(event.prompt_tokens)
        if task.believed_blocks:
            blocks = event.cached_tokens / event.prompt_tokens * len(task.prefix)
            self.prefixes.correct(worker.worker_id, task.believed_blocks, blocks)
        return float(event.prompt_tokens - event.cached_tokens)

    def _kept_from(self, task: Task) -> Iterable[_Known]:
        if task.on_probation:
            return self.workers.values()
        return [self.workers[worker_id] for worker_id in task.tried if worker_id in self.workers]

    def _count(self, reason: str | None, change: int) -> None:
        self._vetoes = None
        if reason != _NEW:
            self.reasons[reason] = self.reasons.get(reason, 0) + change


_NEW: Final = "new"
_SLOW_MS_MIN: Final = 1_000
"""Shorter tasks are not called slow: what starting takes says nothing of a worker."""
