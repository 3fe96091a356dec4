"""Filters, ranks and reasons of a choice."""

from __future__ import annotations

from collections import Counter

import pytest

from swarmesh.core.candidates import veto
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.policies import PolicyName
from swarmesh.core.routing import Decision, Router, default_model
from swarmesh.core.task import Task

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
