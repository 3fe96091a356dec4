"""Which worker gets a task: filters first, then the rule of the model's policy, equals in turn; and why."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from swarmesh.core import script
from swarmesh.core.candidates import BUSY
from swarmesh.core.decision import (
    BEST,
    CANDIDATES_MAX,
    MEASURED,
    NOBODY,
    NOBODY_FOR,
    ONLY,
    POLICY_VETO,
    SCRIPT,
    SENIOR,
    TURN,
    Candidate,
    Decision,
)
from swarmesh.core.events import StreamEnded
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import ModelName, WorkerId
from swarmesh.core.ledger import CHARS_PER_TOKEN, charge, predicted_work, settle
from swarmesh.core.ledger_rule import Weighed
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.model_book import ModelBook
from swarmesh.core.policies import PolicyName
from swarmesh.core.script import Hook
from swarmesh.core.script_facts import slots_of, task_facts, worker_facts
from swarmesh.core.script_guard import Scripted, Unheard
from swarmesh.core.task import Task

SCRIPT_CANDIDATES_MAX: Final = 64
"""How many a script is asked about: the best by the policy it stands in for."""
# Looked up once: a member of an enum costs a call each time it is taken from its class.
_SCORE: Final = Hook.SCORE
_HEALTHY: Final = WorkerStatus.HEALTHY
NO_POLICIES: Final[Mapping[ModelName, PolicyName]] = MappingProxyType({})


class Router:
    """Chooses workers, and keeps the books it chooses by: call `dispatched` and `settled` for every stream."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        policy: PolicyName = PolicyName.SWARM,
        policies: Mapping[ModelName, PolicyName] = NO_POLICIES,
        seed: int = 0,
        scripted: Scripted | None = None,
    ) -> None:
        self._fleet = fleet
        self._scripted = scripted if scripted is not None else Scripted()
        self._policy = policy
        self._policies = dict(policies)
        self._seed = seed
        self._books: dict[ModelName, ModelBook] = {}
        self._homes: dict[WorkerId, ModelName] = {}
        self._now_ms = 0

    def set_policy(self, model: ModelName | None, policy: PolicyName | None) -> None:
        """Choose by another rule from now on: for one model, or for all that have none of their own.

        None takes a model's own away; what holds for all is never nothing.
        """
        if model is None:
            self._policy = policy if policy is not None else self._policy
        elif policy is None:
            self._policies.pop(model, None)
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
        self._now_ms = now_ms
        if self._fleet.changed:
            self.refresh(now_ms)
        book = self._books.get(task.model)
        if book is None:
            return Decision(task.task_id, self.policy_of(task.model), None, 0.0, 0, (), reason=NOBODY)
        return self._with_script(book, task, now_ms) if self._scripted.has_score else _by_rule(book, task, now_ms, None)

    def changes(self, model: ModelName) -> int:
        """Another number than before whenever a worker of the model, or what runs on it, has changed."""
        if self._fleet.changed:
            self.refresh(self._now_ms)
        book = self._books.get(model)
        return book.changes if book is not None else 0

    def keeps(self, worker: Worker, task: Task, now_ms: int) -> bool:
        """Whether a script would keep the task from this worker if it had a slot."""
        if not self._scripted.has(_SCORE):
            return False
        book = self._books.get(worker.model)
        told = worker_facts(worker, now_ms, all_slots=_all_slots(book) if book is not None else slots_of([worker]))
        return self._scripted.score(task_facts(task, now_ms), [told]) == [None]

    def keeps_from_all(self, task: Task, now_ms: int) -> bool:
        """Whether a script keeps the task from every worker although no other task is in its way."""
        if any(worker.running for worker in self._fleet.of_model(task.model).values()):
            return False  # It may allow when that has ended what it does not allow now.
        decision = self.choose(task, now_ms)
        kept_from = dict(decision.vetoes).get(POLICY_VETO, 0)
        book = self._books.get(task.model)
        # Of very many the script was asked about some; then nobody can say that it keeps the task from all.
        some = kept_from >= SCRIPT_CANDIDATES_MAX and book is not None and len(book.free) > kept_from
        return decision.chosen is None and kept_from > 0 and not some

    def script_facts(self, task: Task, now_ms: int) -> list[script.Facts]:
        """What a script is told of the workers that could take a task, whether or not there is one."""
        self.refresh(now_ms)
        book = self._books.get(task.model)
        return _asked_about(book, task, now_ms)[1] if book is not None else []

    def dispatched(self, worker: Worker, task: Task, now_ms: int) -> None:
        """Charge a task to the worker it goes to."""
        if self._fleet.changed:
            self.refresh(now_ms)
        book, pace, worker_id = self._books[worker.model], worker.pace, worker.worker_id
        costs, unread = book.costs, task.prompt_chars / CHARS_PER_TOKEN
        if task.prefix:
            task.believed_blocks, cached_tokens = book.read_by(worker_id, task)
            unread -= cached_tokens  # Never more than there are.
            book.prefixes.insert(worker_id, task.prefix)
        task.uncached_tokens = unread
        task.started_at_ms = now_ms
        busy_until_ms = worker.read_until_ms
        task.reads_at_once = busy_until_ms <= now_ms
        reading_ms = task.reading_ms = round(1_000 * (unread * costs.prefill_weight / pace.rated))
        pace.mark(len(worker.running), now_ms)
        worker.read_until_ms = pace.reads(reading_ms, busy_until_ms, now_ms)
        task.crowd_ms, task.read_mark_ms = pace.crowd_ms, pace.read_sum_ms
        charge(worker, task, predicted_work(unread, task.max_tokens, costs.output_tokens, costs.prefill_weight))
        if book.exploration.used(worker_id, now_ms):
            pace.fade()
        self._touch(book, worker, now_ms, is_news=len(worker.running) >= worker.slots)

    def began(self, task: Task, now_ms: int) -> None:
        """The first token of a task has come: its worker has read its prompt, and all that it was given before."""
        worker, book = self._fleet.get(task.worker_id or WorkerId("")), self._books.get(task.model)
        if worker is not None and book is not None and task.task_id in worker.running:
            worker.read_until_ms = worker.pace.has_read(task.read_mark_ms, now_ms, worker.read_until_ms, now_ms)
            self._touch(book, worker, now_ms, is_news=False)

    def settled(self, worker: Worker, task: Task, now_ms: int, end: StreamEnded | None = None) -> None:
        """Strike a task off the books, and learn from it if it came to its end."""
        book, running = self._books.get(worker.model), len(worker.running)
        was_running = task.task_id in worker.running
        if book is not None and was_running:
            worker.pace.mark(running, now_ms)
        settle(worker, task)  # Before anything is learned, so that nothing that is told can keep a slot.
        if not worker.running:
            worker.read_until_ms = 0
        elif end is not None and was_running and worker.read_until_ms > now_ms:
            read_at_ms = task.started_at_ms + end.first_token_ms if end.first_token_ms > 0 else 0
            worker.read_until_ms = worker.pace.has_read(task.read_mark_ms, read_at_ms, worker.read_until_ms, now_ms)
        if book is not None and was_running and end is not None and book.learn(worker, task, end, now_ms, running):
            for known in book.workers.values():
                known.worker.pace.is_stale = True
                self._fleet.note(known.worker)
        if book is not None:
            stays_free = worker.status is _HEALTHY and worker.worker_id in book.free
            self._touch(book, worker, now_ms, is_news=not stays_free)

    def broke(self, worker: Worker, now_ms: int) -> None:
        """A stream broke by the worker's fault."""
        worker.trail.broke(now_ms)
        self._fleet.note(worker)

    def _touch(self, book: ModelBook, worker: Worker, now_ms: int, *, is_news: bool) -> None:
        # The worker's books have changed. In a small swarm that is no news as long as it does not fill or free it.
        book.changes += 1
        if is_news or book.orders:
            self._fleet.note(worker)
        elif worker.pace.is_stale or worker.trail.marks:
            book.rule.rate(worker, now_ms)

    def _with_script(self, book: ModelBook, task: Task, now_ms: int) -> Decision:
        if self._scripted.is_off:
            return _by_rule(book, task, now_ms, self._scripted.unheard)
        ranked, facts = _asked_about(book, task, now_ms)
        if not ranked:
            return _decision(book, task, ranked, now_ms, None)
        scores = self._scripted.score(task_facts(task, now_ms), facts)
        unheard = self._scripted.unheard
        if scores is None:
            if not (task.kept and self._scripted.is_away):
                return _decision(book, task, ranked, now_ms, unheard)
            scores = [None] * len(ranked)  # It was kept from all, and one late answer must not let it through.
        wanted = sorted((-score, place) for place, score in enumerate(scores) if score is not None)
        task.kept = not wanted
        vetoes = book.vetoes(task)
        if len(wanted) < len(ranked):
            vetoes = (*vetoes, (POLICY_VETO, len(ranked) - len(wanted)))
        candidates = tuple(
            Candidate(ranked[place][4].worker_id, -score, (), book.policy, ranked[place][5])
            for score, place in wanted[:CANDIDATES_MAX]
        )
        policy, chosen = f"{SCRIPT} {self._scripted.name}", candidates[0] if candidates else None
        return Decision(
            task.task_id,
            policy,
            chosen.worker_id if chosen is not None else None,
            chosen.score if chosen is not None else 0.0,
            len(book.workers),
            vetoes,
            candidates,
            SCRIPT if chosen is not None else NOBODY,
            "higher",
            unheard,
        )

    def _leave(self, worker_id: WorkerId, model: ModelName) -> None:
        book = self._books[model]
        book.forget(worker_id)
        del self._homes[worker_id]
        if not book.workers:
            del self._books[model]


def _by_rule(book: ModelBook, task: Task, now_ms: int, unheard: Unheard | None) -> Decision:
    """What the model's policy says."""
    workers, cached_tokens = book.candidates(task, now_ms, CANDIDATES_MAX)
    ranked = book.rule.weigh(workers, task, cached_tokens, now_ms)
    if len(ranked) > 1:
        ranked.sort()
    return _decision(book, task, ranked, now_ms, unheard)


def _decision(book: ModelBook, task: Task, ranked: list[Weighed], now_ms: int, unheard: Unheard | None) -> Decision:
    """The first of those that are ``ranked``, or one that is due to be measured."""
    policy, considered, vetoes = book.policy, len(book.workers), book.vetoes(task)
    if not ranked:
        missing = NOBODY_FOR[task.priority] if policy is PolicyName.DIVISION_OF_LABOUR else NOBODY
        return Decision(task.task_id, policy, None, 0.0, considered, vetoes, (), missing, book.rule.better)
    chosen, reason = ranked[0], ONLY
    if len(ranked) > 1:
        second = ranked[1]
        reason = BEST if chosen[0] != second[0] else TURN if chosen[1] == second[1] else SENIOR
        explored = None if book.exploration.is_quiet(now_ms) else book.due(task, ranked, now_ms)
        if explored is not None and explored[4] is not chosen[4]:
            chosen, reason = explored, MEASURED
            ranked = [each for each in ranked if each[4] is not explored[4]][: CANDIDATES_MAX - 1]
            ranked = sorted([*ranked, explored])
    sign = book.sign
    candidates = tuple(
        [
            Candidate(worker.worker_id, sign * cost, (), policy, facts)
            for cost, _, _, _, worker, facts in ranked[:CANDIDATES_MAX]
        ]
    )
    return Decision(
        task.task_id,
        policy,
        chosen[4].worker_id,
        sign * chosen[0],
        considered,
        vetoes,
        candidates,
        reason,
        book.rule.better,
        unheard,
    )


def _asked_about(book: ModelBook, task: Task, now_ms: int) -> tuple[list[Weighed], list[script.Facts]]:
    """The workers that a script is asked about, best first by the built-in rule, and what it is told of each."""
    workers, cached_tokens = book.candidates(task, now_ms, SCRIPT_CANDIDATES_MAX)
    ranked = sorted(book.rule.weigh(workers, task, cached_tokens, now_ms))[:SCRIPT_CANDIDATES_MAX]
    due = None if not ranked or book.exploration.is_quiet(now_ms) else book.due(task, ranked, now_ms)
    if due in ranked:  # A script that goes by rank measures it, as the rule would.
        ranked.remove(due)
        ranked.insert(0, due)
    sign, all_slots = book.sign, _all_slots(book)
    return ranked, [
        worker_facts(each[4], now_ms, sign * each[0], cached_tokens[each[3]] if cached_tokens else 0.0, all_slots)
        for each in ranked
    ]


def _all_slots(book: ModelBook) -> tuple[int, int]:
    """Of all that serve: of those that are full a script hears nothing else."""
    return slots_of(known.worker for known in book.workers.values() if known.reason in (None, BUSY))


def default_model(fleet: Fleet) -> ModelName | None:
    """The model of a task that names none: the one with most healthy workers, the earliest of equals."""
    best: ModelName | None = None
    best_count = 0
    for model in fleet.models():
        count = sum(1 for worker in fleet.of_model(model).values() if worker.status is WorkerStatus.HEALTHY)
        if best is None or count > best_count:
            best, best_count = model, count
    return best
