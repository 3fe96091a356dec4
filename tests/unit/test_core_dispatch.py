"""The life of tasks: admission, refusals, turns, ends."""

from __future__ import annotations

import pytest

from core_hive import HIGH, LOW, MEDIUM, Hive
from swarmesh.core.commands import BreakStream, CancelStream, FailTask, RecordTask, StartStream
from swarmesh.core.events import WorkerWaggled
from swarmesh.core.ids import WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.patience import PATIENCE_MS
from swarmesh.core.task import TaskStatus


def test_a_task_starts_at_once_on_a_free_worker() -> None:
    hive = Hive("a")
    hive.submit("t")
    start = hive.only(StartStream)
    assert (start.task_id, start.worker_id, start.attempt, start.queue_ms, start.model) == ("t", "a", 1, 0, "qwen")
    assert start.decision.chosen == "a"
    assert list(hive.worker("a").running) == ["t"]


def test_a_task_waits_for_a_busy_worker_and_gets_the_slot_in_turn() -> None:
    hive = Hive("a")
    hive.submit("t1")
    assert hive.submit("t2") == []
    hive.now_ms += 250
    hive.end("t1")
    assert hive.starts() == [("t2", "a", 1)]
    assert hive.only(StartStream).queue_ms == 250


def test_a_high_task_is_served_before_those_that_waited_longer() -> None:
    hive = Hive("a")
    for name, priority in [("first", MEDIUM), ("low", LOW), ("medium", MEDIUM), ("high", HIGH)]:
        hive.submit(name, priority=priority)
    order = []
    for name in ("first", "high", "medium", "low"):
        hive.end(name)
        order += [task for task, _, _ in hive.starts()]
    assert order == ["high", "medium", "low"]


def test_a_burst_spreads_within_one() -> None:
    names = [f"w{number}" for number in range(7)]
    hive = Hive(*names, slots=8)
    for number in range(7 * 5 + 3):
        hive.submit(f"t{number}")
    counts = [len(hive.worker(name).running) for name in names]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == 38


def test_a_task_that_names_no_model_gets_the_default_one() -> None:
    hive = Hive("a")
    hive.submit("t", model="")
    assert hive.only(StartStream).model == "qwen"


@pytest.mark.parametrize(
    ("model", "known", "durable", "code", "status"),
    [
        ("nobody", False, False, "model_not_found", 404),
        ("nobody", False, True, "model_not_found", 404),
        ("known", True, False, "no_rustbees_available", 503),
        ("", False, False, "no_rustbees_available", 503),
    ],
)
def test_refusals_of_an_empty_swarm(*, model: str, known: bool, durable: bool, code: str, status: int) -> None:
    hive = Hive()
    hive.submit("t", model=model, known=known, durable=durable)
    error = hive.failure()
    assert (error.code, error.status) == (code, status)
    assert error.hint
    assert not hive.swarm.dispatcher.tasks


def test_a_refusal_names_the_workers_and_their_states() -> None:
    hive = Hive("a")
    hive.alarm("a")
    hive.submit("t")
    assert hive.failure().message == "no rustbee serves 'qwen': a is dead"


def test_a_durable_task_waits_for_a_model_without_workers() -> None:
    hive = Hive()
    assert hive.submit("t", known=True, durable=True) == []
    hive.tick(10 * PATIENCE_MS)
    hive.register("a")
    assert hive.starts() == [("t", "a", 1)]


def test_a_durable_task_that_is_refused_is_recorded_as_failed() -> None:
    hive = Hive()
    record, failed = hive.submit("t", model="nobody", durable=True)
    assert isinstance(record, RecordTask)
    assert (record.status, record.attempt, record.worker_id) == (TaskStatus.FAILED, 0, None)
    assert isinstance(failed, FailTask)


def test_both_sides_of_the_bound_per_key() -> None:
    hive = Hive("a", queue_max_per_key=2)
    for name in ("runs", "w1", "w2"):
        hive.submit(name)
        assert not any(isinstance(command, FailTask) for command in hive.last)
    hive.submit("w3")
    error = hive.failure()
    assert (error.code, error.status, error.retry_after_s) == ("queue_full", 429, 5)
    assert hive.submit("other", key="bob") == []
    hive.end("runs")
    assert hive.submit("w3") == []


def test_ids_are_used_once_while_a_task_is_open() -> None:
    hive = Hive("a")
    hive.submit("t")
    with pytest.raises(AssertionError, match="made once"):
        hive.submit("t")


def test_news_of_unknown_tasks_are_ignored() -> None:
    hive = Hive("a")
    assert hive.end("x") == hive.cut("x") == hive.cancel("x") == []


def test_cancelling_a_waiting_task_takes_it_out_of_the_queue() -> None:
    hive = Hive("a")
    hive.submit("t1")
    hive.submit("t2")
    hive.cancel("t2")
    cancel = hive.only(CancelStream)
    assert (cancel.task_id, cancel.attempt, cancel.worker_id) == ("t2", 0, None)
    hive.end("t1")
    assert hive.starts() == []
    assert len(hive.swarm.dispatcher.queue) == 0


def test_cancelling_a_running_task_frees_its_slot_for_the_next() -> None:
    hive = Hive("a")
    hive.submit("t1")
    hive.submit("t2")
    hive.cancel("t1")
    cancel = hive.only(CancelStream)
    assert (cancel.task_id, cancel.attempt, cancel.worker_id) == ("t1", 1, "a")
    assert hive.starts() == [("t2", "a", 1)]
    assert hive.cancel("t1") == []


def test_a_cancel_between_the_demand_to_break_and_the_break_is_the_only_end() -> None:
    hive = Hive("a", "b")
    hive.submit("t")
    hive.alarm("a")
    assert hive.only(BreakStream).attempt == 1
    hive.cancel("t")
    assert hive.only(CancelStream).worker_id == "a"
    assert hive.cut("t") == []
    assert not hive.swarm.dispatcher.tasks


def test_a_durable_task_is_recorded_at_every_change() -> None:
    hive = Hive("a", "b")
    seen = []
    for told in (
        hive.submit("t", durable=True),
        hive.cut("t"),
        hive.end("t", 2),
    ):
        seen += [(c.status, c.attempt, c.worker_id) for c in told if isinstance(c, RecordTask)]
    assert seen == [
        (TaskStatus.RUNNING, 1, "a"),
        (TaskStatus.QUEUED, 1, None),
        (TaskStatus.RUNNING, 2, "b"),
        (TaskStatus.DONE, 2, "b"),
    ]


def test_an_interactive_task_is_never_recorded() -> None:
    hive = Hive("a")
    told = [*hive.submit("t"), *hive.end("t")]
    assert not any(isinstance(command, RecordTask) for command in told)


def test_a_newcomer_takes_a_slot_that_those_who_wait_cannot_use() -> None:
    hive = Hive("a", "b")
    hive.submit("t1")
    hive.submit("t2")
    hive.cut("t1")  # It waits for b; a is free and may not have it.
    assert hive.waiting() == ["t1"]
    hive.submit("t3")
    assert hive.starts() == [("t3", "a", 1)]


def test_a_draining_worker_gets_nothing_new() -> None:
    hive = Hive("a")
    hive.submit("t1")
    hive.stop("a", 60_000)
    hive.submit("t2")
    assert hive.failure().message == "no rustbee serves 'qwen': a is draining"


def test_late_waggles_do_not_stop_the_swarm() -> None:
    hive = Hive("a", "b")
    hive.wait(100_000)
    assert {hive.worker(name).status for name in "ab"} == {WorkerStatus.SUSPECT}
    hive.submit("t")
    assert hive.starts() == [("t", "a", 1)]


def test_the_ledger_decides_and_not_what_a_worker_says_of_its_load() -> None:
    hive = Hive("a", "b", slots=2)
    hive.submit("t1")
    hive.tell(WorkerWaggled(WorkerId("a"), True, 0.0, 0, 1.0, 1, 2))  # It does not count t1 yet.
    hive.tell(WorkerWaggled(WorkerId("b"), True, 1.0, 0, 1.0, 1, 2))
    hive.submit("t2")
    assert hive.starts() == [("t2", "b", 1)]


def test_a_prefill_of_ten_minutes_survives_while_its_worker_waggles() -> None:
    hive = Hive("a")
    hive.submit("t")
    for second in range(600):
        assert hive.tick() == []
        if second % 30 == 0:
            hive.waggle("a")
    hive.end("t")
    assert not hive.swarm.dispatcher.tasks


def test_a_client_that_leaves_leaks_no_slot() -> None:
    hive = Hive("a", slots=3)
    for number in range(50):
        hive.submit(f"t{number}")
        hive.cancel(f"t{number}")
    assert (hive.worker("a").running, hive.worker("a").backlog) == ({}, 0.0)


def test_a_task_that_was_accepted_before_is_not_refused() -> None:
    hive = Hive("a", queue_max_per_key=1)
    for name in ("runs", "waits"):
        hive.submit(name)
    hive.accept("t")
    assert hive.waiting() == ["waits", "t"]
