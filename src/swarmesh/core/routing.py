"""Which worker gets a task: filters first, then the rule of the model's policy, equals in turn; and why."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Final

import msgspec

from swarmesh.core.candidates import kept
from swarmesh.core.events import StreamEnded
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import ModelName, Priority, TaskId, WorkerId
from swarmesh.core.ledger import CHARS_PER_TOKEN, charge, settle
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.model_book import ModelBook
from swarmesh.core.policies import PolicyName
from swarmesh.core.task import Task

POLICY_PREEMPT: Final = "preempt"
"""The slot was taken from a task of low priority."""
POLICY_RETURN: Final = "return"
"""The worker has had this task under the queen before."""
CANDIDATES_MAX: Final = 8
"""How many candidates a decision names."""
HOLDERS_MAX: Final = 24
"""Workers that are looked at because they have read most of the prompt."""
NO_POLICIES: Final[Mapping[ModelName, PolicyName]] = MappingProxyType({})

BEST: Final = "best"
ONLY: Final = "only"
TURN: Final = "turn"
MEASURED: Final = "measured"
NOBODY: Final = "no_rustbees_available"
_FIRST: Final = itemgetter(0)
_NOBODY_FOR: Final = {
    Priority.HIGH: "no_experienced_rustbees",
    Priority.MEDIUM: "no_stable_rustbees",
    Priority.LOW: NOBODY,
}
_REASONS: Final = {
    BEST: "it has the best score",
    ONLY: "nobody else was free for it",
    TURN: "equals take turns, and it was given a task longest ago",
    MEASURED: "it had no task for long, so it is measured again",
}


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """One worker that could have taken the task.

    Attributes:
        score: What it was compared by; `Decision.better` says which way.
        parts: What the score is made of and was taken from, by name with the unit.
    """

    worker_id: WorkerId
    score: float
    parts: tuple[tuple[str, float], ...] = ()


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A choice and why.

    Attributes:
        policy: Its name, or why there was nothing to choose.
        chosen: The worker, or None when every candidate was vetoed.
        cost: Score of the chosen worker before this task; the policy says in what.
        considered: How many workers own the model.
        vetoes: How many of them each filter took out, by reason.
        candidates: The best of those that were left, best first, at most `CANDIDATES_MAX`; the chosen one among them.
        reason: Why this one: ``best``, ``only``, ``turn`` or ``measured``; or the code of the error if there is none.
        better: Whether the ``lower`` or the ``higher`` score wins.
    """

    task_id: TaskId
    policy: str
    chosen: WorkerId | None
    cost: float
    considered: int
    vetoes: tuple[tuple[str, int], ...]
    candidates: tuple[Candidate, ...] = ()
    reason: str = ""
    better: str = "lower"

    def in_words(self) -> str:
        """One sentence for people and error messages."""
        vetoes = ", ".join(f"{count} {reason}" for reason, count in self.vetoes) or "none vetoed"
        outcome = f"chose {self.chosen}" if self.chosen else "chose none"
        words = f"{self.policy} {outcome} of {self.considered} ({vetoes})"
        if not self.chosen or self.reason not in _REASONS:
            return words
        words += f": {_REASONS[self.reason]}"
        if not self.candidates:
            return words
        others = [f"{item.worker_id} {item.score:.4g}" for item in self.candidates if item.worker_id != self.chosen]
        return f"{words}; {self.better} is better: {self.cost:.4g}" + (f", {', '.join(others)}" if others else "")


class Router:
    """Chooses workers, and keeps the books it chooses by: call `dispatched` and `settled` for every stream."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        policy: PolicyName = PolicyName.SWARM,
        policies: Mapping[ModelName, PolicyName] = NO_POLICIES,
        seed: int = 0,
    ) -> None:
        self._fleet = fleet
        self._policy = policy
        self._policies = dict(policies)
        self._seed = seed
        self._books: dict[ModelName, ModelBook] = {}
        self._homes: dict[WorkerId, ModelName] = {}
        self._now_ms = 0

    def set_policy(self, model: ModelName | None, policy: PolicyName) -> None:
        """Choose by another rule from now on: for one model, or for all that have none of their own."""
        if model is None:
            self._policy = policy
        else:
            self._policies[model] = policy
        for name, book in self._books.items():
            if book.policy is not self.policy_of(name):
                book.use(self.policy_of(name), self._now_ms)

    def policy_of(self, model: ModelName) -> PolicyName:
        """The rule by which workers of that model are chosen."""
        return self._policies.get(model, self._policy)

    def refresh(self, now_ms: int) -> None:
        """Look anew at the workers that have changed."""
        self._now_ms = now_ms
        for worker_id in self._fleet.take_changed():
            worker = self._fleet.get(worker_id)
            home = self._homes.get(worker_id)
            if home is not None and (worker is None or worker.model != home):
                self._leave(worker_id, home)
            if worker is not None:
                self._homes[worker_id] = worker.model
                book = self._books.get(worker.model)
                if book is None:
                    book = self._books[worker.model] = ModelBook(self.policy_of(worker.model), self._seed)
                book.take(worker, now_ms)

    def book_of(self, model: ModelName) -> ModelBook | None:
        """What is known of a model that has workers; only to be read."""
        return self._books.get(model)

    def choose(self, task: Task, now_ms: int) -> Decision:
        """The decision for one task; changes nothing that another decision depends on."""
        self.refresh(now_ms)
        book = self._books.get(task.model)
        if book is None:
            return Decision(task.task_id, self.policy_of(task.model), None, 0.0, 0, (), reason=NOBODY)
        return _Choice(book, task, now_ms).decision()

    def dispatched(self, worker: Worker, task: Task, now_ms: int) -> None:
        """Charge a task to the worker it goes to."""
        self.refresh(now_ms)
        book = self._books[worker.model]
        task.believed_blocks = book.prefixes.blocks(worker.worker_id, task.prefix)
        cached_tokens = book.cached_tokens(worker.worker_id, task, task.believed_blocks, (0, 1.0))
        task.uncached_tokens = max(0.0, task.prompt_chars / CHARS_PER_TOKEN - cached_tokens)
        task.started_at_ms = now_ms
        task.reads_at_once = worker.read_until_ms <= now_ms
        reading_s = task.uncached_tokens * book.costs.prefill_weight / worker.pace.rated
        worker.read_until_ms = max(worker.read_until_ms, now_ms) + round(1_000 * reading_s)
        worker.pace.mark(len(worker.running), now_ms, book.costs.crowd_exponent)
        task.crowd_ms = worker.pace.crowd_ms
        charge(worker, task, book.work(task, cached_tokens))
        book.prefixes.insert(worker.worker_id, task.prefix)
        if book.exploration.used(worker.worker_id, now_ms):
            worker.pace.fade()
        self._fleet.note(worker)

    def settled(self, worker: Worker, task: Task, now_ms: int, end: StreamEnded | None = None) -> None:
        """Strike a task off the books, and learn from it if it came to its end."""
        self.refresh(now_ms)
        book = self._books.get(worker.model)
        if book is not None and task.task_id in worker.running:
            worker.pace.mark(len(worker.running), now_ms, book.costs.crowd_exponent)
            if end is None:
                worker.pace.undone(len(worker.running))
            elif book.learn(worker, task, end, now_ms):
                for known, _ in book.workers.values():
                    self._fleet.note(known)
        settle(worker, task)
        if not worker.running:
            worker.read_until_ms = 0
        self._fleet.note(worker)

    def broke(self, worker: Worker, now_ms: int) -> None:
        """A stream broke by the worker's fault."""
        worker.trail.broke(now_ms)
        self._fleet.note(worker)

    def _leave(self, worker_id: WorkerId, model: ModelName) -> None:
        book = self._books[model]
        book.forget(worker_id)
        del self._homes[worker_id]
        if not book.workers:
            del self._books[model]


class _Choice:
    """One decision while it is made."""

    def __init__(self, book: ModelBook, task: Task, now_ms: int) -> None:
        self._book, self._task, self._now_ms = book, task, now_ms
        self._common = (0, 1.0)
        self._cached: dict[WorkerId, float] = {}

    def decision(self) -> Decision:
        """Who, and why."""
        book, task = self._book, self._task
        policy, rule = book.policy, book.rule
        vetoes, considered = book.vetoes(task), len(book.workers)
        workers = self._workers()
        if not workers:
            missing = _NOBODY_FOR[task.priority] if policy is PolicyName.DIVISION_OF_LABOUR else NOBODY
            return Decision(task.task_id, policy, None, 0.0, considered, vetoes, (), missing, rule.better)
        ranked = sorted([(self._rank(worker), worker) for worker in workers], key=_FIRST)
        chosen, reason = ranked[0][1], _reason(ranked)
        explored = self._explored(chosen)
        if explored is not None and explored is not chosen:
            chosen, reason = explored, MEASURED
            ranked = [item for item in ranked if item[1] is not explored][: CANDIDATES_MAX - 1]
            ranked = sorted([*ranked, (self._rank(explored), explored)], key=_FIRST)
        candidates = tuple(self._candidate(worker, rank[0]) for rank, worker in ranked[:CANDIDATES_MAX])
        cost = next(item.score for item in candidates if item.worker_id == chosen.worker_id)
        return Decision(
            task.task_id, policy, chosen.worker_id, cost, considered, vetoes, candidates, reason, rule.better
        )

    def _workers(self) -> list[Worker]:
        book, task = self._book, self._task
        candidates = book.candidates(task.priority, self._now_ms)
        candidates.refresh(self._now_ms)
        found = candidates.heads(task, CANDIDATES_MAX)
        if not found or not task.prefix or not book.rule.reads_prefix:
            return found
        self._common = book.prefixes.common(task.prefix, book.serving())
        seen = {worker.worker_id for worker in found}
        suspects = found[0].status is WorkerStatus.SUSPECT
        holders = book.prefixes.match(task.prefix, HOLDERS_MAX)
        for worker_id, blocks in holders.items():
            worker, reason = book.workers[worker_id]
            self._cached[worker_id] = book.cached_tokens(worker_id, task, blocks, self._common)
            fits = reason is None and kept(worker, task) is None
            if fits and worker_id not in seen and (worker.status is WorkerStatus.SUSPECT) is suspects:
                found.append(worker)
        return found

    def _rank(self, worker: Worker) -> tuple[float, int]:
        rule = self._book.rule
        score = rule.score(worker, self._task, self._cached_tokens(worker), self._now_ms)
        return score if rule.better == "lower" else -score, worker.last_chosen

    def _cached_tokens(self, worker: Worker) -> float:
        if not self._task.prefix:
            return 0.0
        known = self._cached.get(worker.worker_id)
        if known is None:
            blocks = self._book.prefixes.blocks(worker.worker_id, self._task.prefix)
            known = self._book.cached_tokens(worker.worker_id, self._task, blocks, self._common)
            self._cached[worker.worker_id] = known
        return known

    def _candidate(self, worker: Worker, rank: float) -> Candidate:
        rule, task = self._book.rule, self._task
        parts = rule.parts(worker, task, self._cached_tokens(worker), self._now_ms)
        return Candidate(worker.worker_id, rank if rule.better == "lower" else -rank, parts)

    def _explored(self, best: Worker) -> Worker | None:
        book = self._book
        if book.policy is not PolicyName.SWARM or best.status is WorkerStatus.SUSPECT:
            return None
        worker_id = book.exploration.due(self._now_ms, self._may_explore)
        return book.workers[worker_id][0] if worker_id is not None else None

    def _may_explore(self, worker_id: WorkerId) -> bool:
        known = self._book.workers.get(worker_id)
        if known is None or known[1] is not None:
            return False
        return known[0].status is WorkerStatus.HEALTHY and kept(known[0], self._task) is None


def _reason(ranked: list[tuple[tuple[float, int], Worker]]) -> str:
    if len(ranked) == 1:
        return ONLY
    return TURN if ranked[0][0][0] == ranked[1][0][0] else BEST


def default_model(fleet: Fleet) -> ModelName | None:
    """The model of a task that names none: the one with most healthy workers, the earliest of equals."""
    best: ModelName | None = None
    best_count = 0
    for model in fleet.models():
        count = sum(1 for worker in fleet.of_model(model).values() if worker.status is WorkerStatus.HEALTHY)
        if best is None or count > best_count:
            best, best_count = model, count
    return best
