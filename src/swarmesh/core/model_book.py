"""What the router knows of one model: who is free, who has read what, what its tasks cost, who must be measured."""

from __future__ import annotations

from collections.abc import Iterable

from swarmesh.core.candidates import BUSY, Candidates, kept, unfit
from swarmesh.core.costs import Costs
from swarmesh.core.events import StreamEnded
from swarmesh.core.exploration import Exploration
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import Priority, WorkerId
from swarmesh.core.ledger import CHARS_PER_TOKEN, predicted_work
from swarmesh.core.policies import PolicyName, rule_of
from swarmesh.core.prefix import BLOCK_TOKENS, PrefixIndex
from swarmesh.core.task import Task
from swarmesh.core.trail import SLOW, SLOW_FACTOR

_NEW = "new"


class ModelBook:
    """Kept up to date by `take` whenever a worker of the model has changed.

    Attributes:
        workers: Every known worker of the model, with what keeps all tasks from it; None for those that are free.
        reasons: How many there are of each.
    """

    def __init__(self, policy: PolicyName, seed: int) -> None:
        self.costs = Costs()
        self.prefixes = PrefixIndex()
        self.exploration = Exploration(seed)
        self.workers: dict[WorkerId, tuple[Worker, str | None]] = {}
        self.reasons: dict[str | None, int] = {}
        self._pids: dict[WorkerId, int] = {}
        self.use(policy, 0)

    def use(self, policy: PolicyName, now_ms: int) -> None:
        """Choose by this rule from now on."""
        self.policy = policy
        self.rule = rule_of(policy, self.costs)
        self._orders: dict[int, Candidates] = {}
        self.candidates(Priority.MEDIUM, now_ms)

    def candidates(self, priority: Priority, now_ms: int) -> Candidates:
        """The free workers in the order for tasks of that priority."""
        order = self.rule.order_of(priority)
        found = self._orders.get(order)
        if found is None:
            found = self._orders[order] = Candidates(lambda worker, at_ms: self.rule.rank(worker, order, at_ms))
            for worker, reason in self.workers.values():
                if reason is None:
                    found.offer(worker, now_ms)
        return found

    def take(self, worker: Worker, now_ms: int) -> None:
        """A worker has come or changed."""
        worker_id = worker.worker_id
        known = self.workers.get(worker_id)
        before = known[1] if known is not None else _NEW
        reason = unfit(worker)
        if known is None or before != reason:
            self._count(before, -1)
            self._count(reason, 1)
        self.workers[worker_id] = (worker, reason)
        if reason in (None, BUSY) and before not in (None, BUSY):
            if before != _NEW:
                worker.pace.fade()
            self.exploration.came(worker_id, now_ms)
        if self._pids.get(worker_id, worker.engine_pid) != worker.engine_pid:
            self.prefixes.forget(worker_id)
        self._pids[worker_id] = worker.engine_pid
        for candidates in self._orders.values():
            if reason is None:
                candidates.offer(worker, now_ms)
            else:
                candidates.withdraw(worker_id)

    def forget(self, worker_id: WorkerId) -> None:
        """A worker is gone, or serves another model now."""
        known = self.workers.pop(worker_id, None)
        if known is None:
            return
        self._count(known[1], -1)
        self._pids.pop(worker_id, None)
        self.prefixes.forget(worker_id)
        self.exploration.forget(worker_id)
        for candidates in self._orders.values():
            candidates.forget(worker_id)

    def vetoes(self, task: Task) -> tuple[tuple[str, int], ...]:
        """How many workers each filter takes out for this task, by reason."""
        counts = {reason: number for reason, number in self.reasons.items() if reason is not None}
        for worker, reason in self._kept_from(task):
            why = kept(worker, task)
            if why is not None and reason in (None, BUSY):
                counts[why] = counts.get(why, 0) + 1
                if reason is not None:
                    counts[reason] -= 1
        return tuple((reason, number) for reason, number in counts.items() if number)

    def cached_tokens(self, worker_id: WorkerId, task: Task, blocks: int, common: tuple[int, float]) -> float:
        """Tokens of the prompt that the worker need not read, or is taken not to need to; see `PrefixIndex.worth`."""
        worth = self.prefixes.worth(worker_id, blocks, common) * BLOCK_TOKENS
        return min(worth, task.prompt_chars / CHARS_PER_TOKEN)

    def serving(self) -> int:
        """How many could take a task if they had a slot."""
        return self.reasons.get(None, 0) + self.reasons.get(BUSY, 0)

    def work(self, task: Task, cached_tokens: float) -> float:
        """Predicted work of a task."""
        return predicted_work(
            task.prompt_chars,
            task.max_tokens,
            cached_tokens=cached_tokens,
            output_tokens=self.costs.output_tokens,
            prefill_weight=self.costs.prefill_weight,
        )

    def learn(self, worker: Worker, task: Task, event: StreamEnded, now_ms: int) -> bool:
        """Take in what a finished task tells; True when the usual speed is another one now."""
        read_tokens = task.uncached_tokens
        if event.prompt_tokens > 0:
            read_tokens = float(event.prompt_tokens)
            if event.cached_tokens >= 0:
                read_tokens -= event.cached_tokens
                blocks = event.cached_tokens / event.prompt_tokens * len(task.prefix)
                self.prefixes.correct(worker.worker_id, task.believed_blocks, blocks)
        if event.completion_tokens <= 0:
            worker.pace.undone(len(worker.running))
            return False
        if event.first_token_ms > 0 and task.reads_at_once and read_tokens >= BLOCK_TOKENS:
            self.costs.read(read_tokens, event.first_token_ms / 1_000, worker.pace.rated)
        self.costs.wrote(event.completion_tokens)
        work = event.completion_tokens + self.costs.prefill_weight * read_tokens
        took_ms = now_ms - task.started_at_ms
        if took_ms > 0:
            crowd = max(1.0, (worker.pace.crowd_ms - task.crowd_ms) / took_ms)
            self.costs.ran(worker.pace, crowd, 1_000 * work / took_ms)
        self._mark_slowness(worker, task, work, now_ms)
        worker.pace.done(work)
        return self.costs.compare((known.pace for known, _ in self.workers.values()), len(self.workers))

    def is_current(self, worker: Worker) -> bool:
        """Whether what is kept of a worker is what a fresh look says; for checkers."""
        known = self.workers.get(worker.worker_id)
        reason = unfit(worker)
        if known is None or known[0] is not worker or known[1] != reason:
            return False
        return all(candidates.holds(worker) is (reason is None) for candidates in self._orders.values())

    def _mark_slowness(self, worker: Worker, task: Task, work: float, now_ms: int) -> None:
        promised_s = work * max(1, len(worker.running)) / worker.pace.rated
        took_s = (now_ms - task.started_at_ms) / 1_000
        if worker.pace.is_measured and took_s > 1.0 and took_s > SLOW_FACTOR * promised_s:
            worker.trail.lower(SLOW, now_ms)

    def _kept_from(self, task: Task) -> Iterable[tuple[Worker, str | None]]:
        if task.on_probation:
            return self.workers.values()
        return [self.workers[worker_id] for worker_id in task.tried if worker_id in self.workers]

    def _count(self, reason: str | None, change: int) -> None:
        if reason != _NEW:
            self.reasons[reason] = self.reasons.get(reason, 0) + change
