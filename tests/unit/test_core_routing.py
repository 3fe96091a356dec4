"""Filters, ranks and reasons of a choice."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from swarmesh.core import model_book, routing
from swarmesh.core.candidates import veto
from swarmesh.core.decision import CANDIDATES_MAX, Decision
from swarmesh.core.events import StreamEnded
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.model_book import LINEAR_MAX
from swarmesh.core.policies import PolicyName
from swarmesh.core.routing import Router, default_model
from swarmesh.core.task import Task
from swarmesh.core.trail import SLOW

QWEN, DEMO = ModelName("qwen"), ModelName("demo")
MEDIUM = Priority.MEDIUM
HEALTHY, SUSPECT = WorkerStatus.HEALTHY, WorkerStatus.SUSPECT


def a_worker(
    name: str, *, busy: int = 0, slots: int = 4, status: WorkerStatus = HEALTHY, model: ModelName = QWEN, last: int = 0
) -> Worker:
    worker = Worker(WorkerId(name), model, "cpu", HostName("oak"), "unix:/w", slots, False, 0, status)
    worker.running = {TaskId(f"{name}-{number}"): 100.0 for number in range(busy)}
    worker.backlog, worker.last_chosen = 100.0 * busy, last
    return worker


def a_task(*tried: str) -> Task:
    task = Task(TaskId("t"), QWEN, MEDIUM, KeyId("k"), False, 10, 5, 0, MEDIUM)
    task.tried = {WorkerId(name) for name in tried}
    return task


def named(name: str, chars: int = 10) -> Task:
    return Task(TaskId(name), QWEN, MEDIUM, KeyId("k"), False, chars, 5, 0, MEDIUM)


def a_fleet(*workers: Worker) -> Fleet:
    fleet = Fleet()
    for worker in workers:
        fleet.add(worker)
    return fleet


def choose(fleet: Fleet, task: Task, policy: PolicyName = PolicyName.LEAST_WORK) -> Decision:
    return Router(fleet, policy=policy).choose(task, 0)


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        (a_worker("w"), None),
        (a_worker("w", status=SUSPECT), None),
        (a_worker("w", status=WorkerStatus.STARTING), "starting"),
        (a_worker("w", status=WorkerStatus.DRAINING), "draining"),
        (a_worker("w", status=WorkerStatus.DEAD), "dead"),
        (a_worker("w", busy=3), None),
        (a_worker("w", busy=4), "busy"),
        (a_worker("w", busy=5), "busy"),
        (a_worker("w", slots=0), "busy"),
        (a_worker("tried"), "tried"),
    ],
)
def test_filters(worker: Worker, reason: str | None) -> None:
    assert veto(worker, a_task("tried")) == reason


@pytest.mark.parametrize("status", [HEALTHY, SUSPECT])
def test_a_silent_worker_takes_nothing(status: WorkerStatus) -> None:
    worker = a_worker("w", status=status)
    worker.silent = True
    assert veto(worker, a_task()) == "silent"


@pytest.mark.parametrize(
    ("kills", "cleared", "held", "reason"),
    [
        (0, False, True, None),
        (1, True, True, None),
        (1, False, False, None),
        (1, False, True, "probation"),
    ],
)
def test_one_on_probation_keeps_others_on_probation_out(
    *, kills: int, cleared: bool, held: bool, reason: str | None
) -> None:
    worker, task = a_worker("w", busy=1), a_task()
    worker.probation = TaskId("w-0") if held else None
    task.kills, task.cleared = kills, cleared
    assert veto(worker, task) == reason


def test_the_reason_that_a_slot_would_mend_comes_last() -> None:
    worker, task = a_worker("w", busy=4), a_task()
    worker.probation, task.kills = TaskId("w-0"), 1
    assert veto(worker, task) == "probation"


def test_the_least_work_per_slot_wins() -> None:
    fleet = a_fleet(a_worker("small", busy=1, slots=1), a_worker("half", busy=2), a_worker("wide", busy=3, slots=16))
    decision = choose(fleet, a_task())
    assert (decision.chosen, decision.cost, decision.considered) == ("wide", 300 / 16, 3)
    assert decision.vetoes == (("busy", 1),)


def test_equals_take_turns() -> None:
    fleet = a_fleet(a_worker("a", last=7), a_worker("b", last=3), a_worker("c", last=5))
    assert choose(fleet, a_task()).chosen == "b"


def test_of_equals_the_one_up_longest_has_the_tasks_of_high_priority() -> None:
    old, young = a_worker("old", last=9), a_worker("young", last=1)
    young.registered_at_ms = 50_000
    for linear_max in (LINEAR_MAX, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model_book, "LINEAR_MAX", linear_max)
            router = Router(a_fleet(young, old))
            urgent, usual = a_task(), a_task()
            urgent.priority = Priority.HIGH
            decision = router.choose(urgent, 60_000)
            assert (decision.chosen, decision.reason) == ("old", "senior")
            assert "of equals it has been up the longest" in decision.in_words()
            assert router.choose(usual, 60_000).chosen == "young"


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers stand in order however few there are, and only the first of each lane is looked at."""
    monkeypatch.setattr(model_book, "LINEAR_MAX", 0)
    monkeypatch.setattr(routing, "CANDIDATES_MAX", 1)


@pytest.mark.usefixtures("in_order")
def test_who_has_not_reported_does_not_stand_before_those_who_have() -> None:
    unknown, idle = a_worker("unknown"), a_worker("idle", last=5)
    idle.reported = True
    assert choose(a_fleet(unknown, idle), a_task(), PolicyName.SWARM).chosen == "idle"


@pytest.mark.usefixtures("in_order")
def test_bad_marks_are_looked_at_again_and_again_while_nothing_happens() -> None:
    slow, marked = a_worker("slow", busy=1), a_worker("marked", busy=1)
    for worker, speed in ((slow, 45.0), (marked, 52.0)):
        worker.pace.work, worker.pace.time_s = 1e6, 1e6 / speed
    marked.trail.lower(SLOW, 0)
    marked.backlog += 1.0
    router = Router(a_fleet(slow, marked))
    chosen = [router.choose(a_task(), now_ms).chosen for now_ms in range(0, 400_000, 10_000)]
    # As long as the marks count both are in one class of speed, and whoever has less to do goes first.
    assert (chosen[0], chosen[5], chosen[-1]) == ("slow", "slow", "marked")


def test_a_task_that_was_gone_on_with_teaches_nothing() -> None:
    worker = a_worker("a")
    router = Router(a_fleet(worker))
    for attempt in (2, 1):
        task = a_task()
        task.attempt = attempt
        router.choose(task, 0)
        router.dispatched(worker, task, 0)
        router.settled(worker, task, 1_000, StreamEnded(task.task_id, attempt, 5_000))
        assert (worker.pace.work > 0) is (attempt == 1)


def test_one_long_answer_among_short_ones_does_not_make_a_worker_fast() -> None:
    worker = a_worker("a", slots=2)
    router = Router(a_fleet(worker))

    def start(name: str, now_ms: int) -> Task:
        task = named(name)
        router.dispatched(worker, task, now_ms)
        return task

    def end(task: Task, tokens: int, now_ms: int) -> None:
        router.settled(worker, task, now_ms, StreamEnded(task.task_id, 1, tokens))

    long, speeds = start("long", 0), list[float]()
    for number in range(40):  # Each stream writes 50 tokens per second.
        end(start(f"short-{number}", number * 2_000), 100, (number + 1) * 2_000)
        speeds.append(worker.pace.speed(50.0))
    end(long, 4_000, 80_000)
    assert worker.pace.speed(50.0) == pytest.approx(speeds[-1], rel=0.1)


def test_a_long_prompt_read_first_of_all_does_not_make_a_worker_fast() -> None:
    worker = a_worker("a")
    router, task = Router(a_fleet(worker)), named("t", 40_000)
    router.dispatched(worker, task, 0)  # It reads 5,000 tokens per second and writes 50.
    router.settled(worker, task, 4_000, StreamEnded(task.task_id, 1, 100, 10_000, 0, 2_000))
    assert worker.pace.speed(50.0) == pytest.approx(50.0, rel=0.2)


def test_errors_of_what_is_read_do_not_add_up_while_a_worker_is_never_idle() -> None:
    worker = a_worker("a", slots=4)
    router, now_ms = Router(a_fleet(worker)), 0
    running: list[Task] = []
    for number in range(400):  # Reads a prompt in 50 ms, far sooner than is thought at first, and writes 20 tokens.
        task = named(f"t{number}", 4_000)
        router.dispatched(worker, task, now_ms)
        running.append(task)
        now_ms += 50
        if len(running) == 4:
            ended = running.pop(0)
            router.settled(worker, ended, now_ms, StreamEnded(ended.task_id, 1, 20, 1_000, 0, 60))
    assert worker.read_until_ms - now_ms < 1_000


def test_a_first_token_says_what_is_read_although_nothing_has_ended_yet() -> None:
    worker = a_worker("a", slots=8)
    router = Router(a_fleet(worker))
    tasks = [named(f"t{number}", 8_000) for number in range(4)]
    for task in tasks:  # Before anything is known 2,000 tokens are thought to take almost 4 s.
        router.dispatched(worker, task, 0)
    each_ms = tasks[0].reading_ms
    assert (each_ms > 3_000, worker.read_until_ms) == (True, 4 * each_ms)
    router.began(tasks[2], 600)
    assert worker.read_until_ms == 600 + each_ms
    router.began(tasks[0], 650)
    assert worker.read_until_ms == 600 + each_ms, "that one was read before, nothing new is known by it"
    router.began(tasks[3], 800)
    assert worker.read_until_ms == 800


def test_a_first_token_of_a_task_that_is_not_there_any_more_changes_nothing() -> None:
    worker = a_worker("a", slots=4)
    router, task = Router(a_fleet(worker)), named("t", 8_000)
    router.dispatched(worker, task, 0)
    router.dispatched(worker, named("other", 8_000), 10)
    router.settled(worker, task, 20)
    until_ms = worker.read_until_ms
    router.began(task, 30)
    assert worker.read_until_ms == until_ms
    task.worker_id = WorkerId("unknown")
    router.began(task, 40)
    assert worker.read_until_ms == until_ms


@pytest.mark.parametrize("first_token_ms", [0, 1, 10**12])
def test_no_report_makes_a_worker_read_for_ever(first_token_ms: int) -> None:
    worker = a_worker("a", slots=4)
    router = Router(a_fleet(worker))
    first, second = named("first", 4_000), named("second", 4_000)
    router.dispatched(worker, first, 0)
    router.dispatched(worker, second, 10)
    until_ms = worker.read_until_ms
    router.settled(worker, first, 500, StreamEnded(first.task_id, 1, 20, 1_000, 0, first_token_ms))
    assert 500 < worker.read_until_ms <= until_ms


def test_a_few_are_all_looked_at_and_of_many_the_best_are_named() -> None:
    for count in (LINEAR_MAX, LINEAR_MAX + 40):
        decision = choose(a_fleet(*(a_worker(f"w{number}") for number in range(count))), a_task(), PolicyName.SWARM)
        assert (decision.considered, len(decision.candidates)) == (count, CANDIDATES_MAX)


def test_a_decision_survives_being_packed_with_what_it_was_made_of() -> None:
    decision = choose(a_fleet(a_worker("a", busy=1), a_worker("b")), a_task(), PolicyName.SWARM)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(decision), type=Decision)
    assert [each.parts for each in again.candidates] == [each.parts for each in decision.candidates]
    parts = dict(again.candidates[1].parts)
    assert parts["backlog_s"] + parts["prefill_s"] + parts["decode_s"] == pytest.approx(again.candidates[1].score)


def test_a_suspect_is_the_last_choice_and_not_no_choice() -> None:
    suspect, loaded = a_worker("suspect", status=SUSPECT), a_worker("loaded", busy=3)
    assert choose(a_fleet(suspect, loaded), a_task()).chosen == "loaded"
    assert choose(a_fleet(suspect, loaded), a_task("loaded")).chosen == "suspect"


def test_nobody_left_gives_every_reason() -> None:
    fleet = a_fleet(a_worker("a", busy=4), a_worker("b", busy=4), a_worker("c", status=WorkerStatus.DEAD))
    decision = choose(fleet, a_task())
    assert decision.chosen is None
    assert Counter(dict(decision.vetoes)) == {"busy": 2, "dead": 1}
    assert decision.in_words() == "least-work chose none of 3 (2 busy, 1 dead)"


def test_a_choice_in_words() -> None:
    words = "least-work chose a of 1 (none vetoed): nobody else was free for it; lower is better: 0"
    assert choose(a_fleet(a_worker("a")), a_task()).in_words() == words


def test_other_models_are_not_candidates() -> None:
    decision = choose(a_fleet(a_worker("d", model=DEMO)), a_task())
    assert (decision.chosen, decision.considered) == (None, 0)


def test_choosing_changes_nothing() -> None:
    fleet = a_fleet(a_worker("a"), a_worker("b", busy=2))
    router = Router(fleet)
    assert router.choose(a_task(), 0) == router.choose(a_task(), 0)


def test_the_default_model_has_most_healthy_workers_and_is_the_earliest_of_equals() -> None:
    demo, qwen = a_worker("d", model=DEMO), a_worker("q")
    assert default_model(a_fleet(demo, qwen)) == DEMO
    assert default_model(a_fleet(demo, qwen, a_worker("q2"))) == QWEN
    assert default_model(a_fleet(demo, qwen, a_worker("q2", status=SUSPECT))) == DEMO
    assert default_model(a_fleet()) is None
