"""The router's short cuts find what a look at every worker finds, for every policy, whatever happened before.

Once with so few workers that each is looked at, and once with so many that they stand in order.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swarmesh.core import exploration, model_book, routing
from swarmesh.core.candidates import kept, unfit, veto
from swarmesh.core.costs import Costs
from swarmesh.core.decision import MEASURED
from swarmesh.core.events import StreamEnded
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.ledger import CHARS_PER_TOKEN
from swarmesh.core.ledger_rule import AFFINITY, BACKLOG_SHARE, DECODE_WORK, RERATE_MS
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.policies import PolicyName
from swarmesh.core.routing import Router
from swarmesh.core.speed import speed_class, speed_of_class
from swarmesh.core.task import Task

MOST = 1
QWEN, DEMO = ModelName("qwen"), ModelName("demo")
names = st.sampled_from([WorkerId(f"bee-{number}") for number in range(6)])
chains = [tuple(hash((chain, depth // 9 * (chain + 1), depth)) for depth in range(40)) for chain in range(3)]
statuses = st.sampled_from([*WorkerStatus, *(4 * [WorkerStatus.HEALTHY])])
policies = st.sampled_from([*PolicyName, *(4 * [PolicyName.SWARM])])
prefixes = st.builds(lambda chain, length: chains[chain][:length], st.integers(0, 2), st.sampled_from([0, 1, 20, 40]))


class RouterMachine(RuleBasedStateMachine):
    """One fleet, one router, and tasks that run."""

    linear_max = 100

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.router = Router(self.fleet)
        self.tasks: dict[TaskId, Task] = {}
        self.now_ms = 0
        self.made = 0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(routing, "CANDIDATES_MAX", MOST)  # So few that most workers are never looked at.
        self.patch.setattr(model_book, "LINEAR_MAX", self.linear_max)

    def teardown(self) -> None:
        self.patch.undo()

    def new_task(self, priority: Priority, chars: int, prefix: tuple[int, ...]) -> Task:
        self.made += 1
        task = Task(
            TaskId(f"t{self.made}"), QWEN, priority, KeyId("k"), False, chars + 512 * len(prefix), 0, 0, priority
        )
        task.prefix = prefix
        return task

    @initialize(policy=policies, speeds=st.lists(st.sampled_from([1.0, 8.0]), min_size=2, max_size=6))
    def a_fleet(self, policy: PolicyName, speeds: list[float]) -> None:
        self.router.set_policy(None, policy)
        for number, speed in enumerate(speeds):
            name = WorkerId(f"bee-{number}")
            self.register(name, QWEN, WorkerStatus.HEALTHY, 4, 100 * number, 7, speed, reported=True)

    @rule(
        name=names,
        model=st.sampled_from([QWEN, QWEN, DEMO]),
        status=statuses,
        slots=st.integers(0, 4),
        registered_ms=st.integers(0, 1_000_000),
        pid=st.integers(1, 2),
        speed=st.sampled_from([1.0, 1.0, 8.0]),
        reported=st.booleans(),
    )
    def register(
        self,
        name: WorkerId,
        model: ModelName,
        status: WorkerStatus,
        slots: int,
        registered_ms: int,
        pid: int,
        speed: float,
        *,
        reported: bool,
    ) -> None:
        known = self.fleet.get(name)
        worker = Worker(
            name, model, "cpu", HostName("oak"), "", slots, False, registered_ms, status, proximity=slots / 3
        )
        worker.engine_pid, worker.reported = pid, reported
        worker.pace.work, worker.pace.time_s = 10_000.0, 200.0 / speed
        if known is not None and known.model == model:
            worker.running, worker.backlog, worker.pace = known.running, known.backlog, known.pace
            worker.read_until_ms, worker.last_chosen = known.read_until_ms, known.last_chosen
        self.fleet.add(worker)

    @rule(name=names)
    def go(self, name: WorkerId) -> None:
        self.fleet.remove(name)

    @rule(
        name=names,
        status=statuses,
        silent=st.sampled_from([False, False, True]),
        slots=st.integers(0, 4),
        quality=st.sampled_from([1.0, 0.3]),
    )
    def change(self, *, name: WorkerId, status: WorkerStatus, silent: bool, slots: int, quality: float) -> None:
        worker = self.fleet.get(name)
        if worker is None:
            return
        worker.status, worker.silent, worker.slots, worker.quality = status, silent, slots, quality
        worker.reported = True
        self.fleet.note(worker)

    @rule(name=names)
    def break_stream(self, name: WorkerId) -> None:
        worker = self.fleet.get(name)
        if worker is not None:
            self.router.broke(worker, self.now_ms)

    @rule(step_ms=st.sampled_from([1, 50, 300, 2_000, 40_000, 400_000]))
    def time_passes(self, step_ms: int) -> None:
        self.now_ms += step_ms

    @rule(policy=policies)
    def change_policy(self, policy: PolicyName) -> None:
        self.router.set_policy(QWEN, policy)

    @rule(
        priority=st.sampled_from(Priority),
        chars=st.integers(0, 4_000),
        prefix=prefixes,
        tried=st.one_of(st.just(set[WorkerId]()), st.just(set[WorkerId]()), st.sets(names, max_size=3)),
        kills=st.sampled_from([0, 0, 0, 1]),
        count=st.sampled_from([1, 1, 3]),
    )
    def submit(
        self, *, priority: Priority, chars: int, prefix: tuple[int, ...], tried: set[WorkerId], kills: int, count: int
    ) -> None:
        for _ in range(count):
            self.submit_one(priority, chars, prefix, tried, kills)

    def submit_one(
        self, priority: Priority, chars: int, prefix: tuple[int, ...], tried: set[WorkerId], kills: int
    ) -> None:
        task = self.new_task(priority, chars, prefix)
        task.tried, task.kills = set(tried), kills
        decision = self.router.choose(task, self.now_ms)
        owners = self.fleet.of_model(QWEN).values()
        assert decision.considered == len(owners)
        reasons = [reason for worker in owners if (reason := veto(worker, task)) is not None]
        assert dict(decision.vetoes) == {reason: reasons.count(reason) for reason in reasons}
        fits = [worker for worker in owners if unfit(worker) is None and kept(worker, task) is None]
        assert (decision.chosen is None) is (not fits)
        if decision.chosen is None:
            return
        assert len(decision.candidates) <= MOST
        assert decision.chosen in [candidate.worker_id for candidate in decision.candidates]
        sound = [worker for worker in fits if worker.status is not WorkerStatus.SUSPECT] or fits
        self.look_at_ratings(sound)
        scores = {worker.worker_id: self.score(worker, task) for worker in sound}
        if decision.reason != MEASURED:
            best = (min if decision.better == "lower" else max)(scores.values())
            assert math.isclose(scores[decision.chosen], best, abs_tol=1e-9), (decision, scores)
        assert math.isclose(decision.cost, scores[decision.chosen], abs_tol=1e-9)
        if decision.reason != MEASURED and self.linear_max > len(owners):
            turns = {worker.worker_id: self.turn(worker, task) for worker in sound}
            assert turns[decision.chosen] == min(
                turns[each] for each in turns if scores[each] == scores[decision.chosen]
            )
        self.start(task, decision.chosen)

    def look_at_ratings(self, workers: list[Worker]) -> None:
        book = self.router.book_of(QWEN)
        assert book is not None
        for worker in workers if book.policy is PolicyName.SWARM else ():
            assert_rated(worker, book.costs, self.now_ms)

    def turn(self, worker: Worker, task: Task) -> tuple[int, int]:
        book = self.router.book_of(QWEN)
        by_age = book is not None and book.policy is PolicyName.SWARM and task.priority is Priority.HIGH
        return worker.registered_at_ms if by_age else 0, worker.last_chosen

    def score(self, worker: Worker, task: Task) -> float:
        """What a look at this worker alone says."""
        book = self.router.book_of(QWEN)
        assert book is not None
        cached = book.cached_tokens(worker, task)
        if book.policy is PolicyName.SWARM:
            return cost(worker, task, cached[0] if cached else 0.0, book.costs, self.now_ms)
        score = book.rule.weigh([worker], task, cached, self.now_ms)[0][0]
        return score if book.rule.better == "lower" else -score

    def start(self, task: Task, worker_id: WorkerId) -> None:
        worker = self.fleet.get(worker_id)
        assert worker is not None
        worker.last_chosen = self.made
        if task.on_probation:
            worker.probation = task.task_id
        self.router.dispatched(worker, task, self.now_ms)
        self.tasks[task.task_id] = task

    @precondition(lambda self: self.tasks)
    @rule(which=st.integers(0, 99), ended=st.booleans(), written=st.integers(0, 300), cached=st.integers(-1, 500))
    def end(self, *, which: int, ended: bool, written: int, cached: int) -> None:
        task = self.tasks.pop(list(self.tasks)[which % len(self.tasks)])
        worker = self.fleet.get(task.worker_id) if task.worker_id else None
        if worker is None:
            return
        took_ms = self.now_ms - task.started_at_ms
        event = StreamEnded(task.task_id, 1, written, max(cached, task.prompt_chars // 4), cached, took_ms // 2)
        self.router.settled(worker, task, self.now_ms, event if ended else None)
        if worker.probation == task.task_id:
            worker.probation = None

    @invariant()
    def the_books_are_current(self) -> None:
        self.router.refresh(self.now_ms)
        for worker in self.fleet:
            book = self.router.book_of(worker.model)
            assert book is not None
            assert book.is_current(worker)
            assert worker.pace.rated > 0.0
        book = self.router.book_of(QWEN)
        assert (book is None) is (not self.fleet.of_model(QWEN))
        assert book is None or sum(book.reasons.values()) == len(book.workers)


class OrderedRouterMachine(RouterMachine):
    """The same where workers stand in order."""

    linear_max = 0


def cost(worker: Worker, task: Task, cached_tokens: float, costs: Costs, now_ms: int) -> float:
    """The formula of the policy ``swarm``, as it is written down."""
    backlog = worker.backlog + (0.0 if worker.reported else costs.output_tokens)
    reading = costs.prefill_weight * max(0.0, task.prompt_chars / CHARS_PER_TOKEN - cached_tokens)
    work = BACKLOG_SHARE * backlog + DECODE_WORK * len(worker.running) + AFFINITY * reading
    return max(0, worker.read_until_ms - now_ms) / 1_000 + work / worker.pace.rated


def assert_rated(worker: Worker, costs: Costs, now_ms: int) -> None:
    """A free worker is compared by the speed it has by now; bad marks may be looked at a little late."""
    pace, trail = worker.pace, worker.trail
    speed, seen_ms = pace.speed(costs.prior_speed), max(trail.at_ms, now_ms - RERATE_MS)
    least, most = (speed_class(speed * trail.quality(at_ms)) for at_ms in (seen_ms, now_ms))
    assert least <= pace.number <= most, (worker, least, most)
    assert pace.rated == speed_of_class(pace.number)


TestRouterMachine = RouterMachine.TestCase
TestRouterMachine.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestOrderedRouterMachine = OrderedRouterMachine.TestCase
TestOrderedRouterMachine.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


def test_bounds_of_exploration_are_in_order() -> None:
    assert 0 < exploration.SPACING < exploration.STALE_SPACING < exploration.SHARE
    assert exploration.DEADLINE_MS < 30_000
