"""The life of tasks: admission, refusals, moves, ends."""

from __future__ import annotations

import pytest

from core_hive import HIGH, LOW, MEDIUM, Hive
from swarmesh.core.commands import BreakStream, CancelStream, FailTask, RecordTask, StartStream
from swarmesh.core.events import WorkerWaggled
from swarmesh.core.ids import Blame, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.look_ahead import KINDS_MAX as LOOK_AHEAD_MAX
from swarmesh.core.patience import PATIENCE_MS
from swarmesh.core.refusals import MOVES_MAX
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


def test_a_broken_stream_moves_to_another_worker_and_back_only_to_one_that_is_well_again() -> None:
    hive = Hive("a", "b", slots=2)
    hive.submit("t")
    hive.cut("t")
    assert hive.starts() == [("t", "b", 2)]
    assert hive.worker("a").status is WorkerStatus.SUSPECT
    assert hive.worker("a").running == {}
    hive.cut("t", 2)
    assert hive.waiting() == ["t"]
    hive.waggle("a", slots=2)
    assert hive.starts() == [("t", "a", 3)]
    hive.cut("t", 3)
    assert hive.waiting() == ["t"]  # Each may try again as soon as it reports; the moves are counted.
    hive.waggle("b", slots=2)
    assert hive.starts() == [("t", "b", 4)]
    hive.cut("t", 4)
    assert hive.failure().code == "rustbee_lost"


def test_the_only_worker_gets_its_task_back_when_its_engine_was_restarted() -> None:
    hive = Hive("a")
    hive.submit("t")
    for attempt in range(1, MOVES_MAX + 1):
        hive.cut("t")
        hive.alarm("a", returning=True)
        hive.waggle("a", ready=False)
        assert hive.starts() == []
        hive.waggle("a")
        assert hive.starts() == [("t", "a", attempt + 1)]
    hive.cut("t")
    assert hive.failure().code == "rustbee_lost"


def test_a_moved_task_waits_at_the_head_of_its_band() -> None:
    hive = Hive("a", "b")
    for name in ("t1", "t2", "t3"):
        hive.submit(name)
    hive.cut("t1")
    assert hive.starts() == [("t3", "a", 1)]  # The worker that failed t1 may still take t3.
    assert hive.waiting() == ["t1"]
    hive.end("t2")
    assert hive.starts() == [("t1", "b", 2)]


def test_a_task_moves_at_most_so_often() -> None:
    hive = Hive(*"abcdef")
    hive.submit("t")
    for attempt in range(1, MOVES_MAX + 1):
        hive.cut("t", attempt)
        assert [number for _, _, number in hive.starts()] == [attempt + 1]
    hive.cut("t", MOVES_MAX + 1)
    error = hive.failure()
    assert (error.code, error.status) == ("rustbee_lost", 502)
    assert f"given up after {MOVES_MAX + 1} rustbees failed it" in error.message


def test_what_was_shown_and_cannot_be_gone_on_with_is_never_started_over() -> None:
    hive = Hive("a", "b")
    hive.submit("t")
    hive.cut("t", resumable=False)
    assert hive.starts() == []
    assert hive.failure().code == "rustbee_lost"
    assert "part of the answer was sent and cannot be gone on with" in hive.failure().message
    assert hive.is_at_rest()


def test_a_worker_that_the_owner_stopped_costs_no_move() -> None:
    hive = Hive("a")
    hive.submit("t")
    for number in range(3 * MOVES_MAX):
        hive.register(f"next-{number}")
        hive.stop(hive.task("t").worker_id or "", grace_ms=0)
        hive.cut_as_asked()
        assert hive.starts() == [("t", f"next-{number}", number + 2)]
    assert (hive.task("t").moves, hive.task("t").tried) == (0, set())


@pytest.mark.parametrize("ended", ["gone", "stopped and gone"])
def test_a_process_that_ends_before_its_grace_is_over_costs_a_move_only_if_nobody_asked(ended: str) -> None:
    hive = Hive("a", "b")
    hive.submit("t")
    if ended == "stopped and gone":
        hive.stop("a", grace_ms=60_000)
    hive.gone("a")
    hive.cut_as_asked()
    assert hive.starts() == [("t", "b", 2)]
    assert hive.task("t").moves == (1 if ended == "gone" else 0)


def test_attempts_of_a_queen_before_are_not_moves() -> None:
    hive = Hive("a", "b")
    hive.accept("t", attempts=40)
    assert hive.starts() == [("t", "a", 41)]
    hive.cut("t")
    assert hive.starts() == [("t", "b", 42)]


def test_an_answer_that_a_worker_would_give_again_bars_it_for_good() -> None:
    hive = Hive("a", "b")
    hive.submit("t")
    hive.submit("on-b")
    hive.cut("t", final=True)
    hive.waggle("a")
    hive.tick()
    assert hive.waiting() == ["t"]
    hive.cut("on-b", blame=Blame.TASK)
    assert hive.starts() == [("t", "b", 2)]
    hive.cut("t", final=True)
    assert hive.failure().message.endswith("no other rustbee serves 'qwen'")


def test_a_durable_task_whose_only_worker_is_lost_waits_for_another_as_it_would_have_before_it_ran() -> None:
    hive = Hive("a")
    hive.submit("kept", durable=True)
    hive.gone("a")
    hive.cut_as_asked()
    assert hive.waiting() == ["kept"]
    hive.wait(2 * PATIENCE_MS)
    hive.register("b")
    assert hive.starts() == [("kept", "b", 2)]


def test_an_interactive_task_whose_only_worker_is_lost_is_told_at_once() -> None:
    hive = Hive("a")
    hive.submit("t")
    hive.gone("a")
    hive.cut_as_asked()
    assert hive.failures() == {"t": "rustbee_lost"}


def test_a_task_that_is_itself_at_fault_moves_nowhere_and_blames_nobody() -> None:
    hive = Hive("a", "b")
    hive.submit("t")
    hive.cut("t", blame=Blame.TASK)
    assert (hive.failure().code, hive.failure().status) == ("task_refused", 400)
    assert hive.worker("a").status is WorkerStatus.HEALTHY


@pytest.mark.parametrize("attempt", [0, 1, 3])
def test_only_the_newest_stream_speaks_for_the_task(attempt: int) -> None:
    hive = Hive("a", "b")
    hive.submit("t")
    hive.cut("t")
    assert hive.end("t", attempt) == []
    assert hive.cut("t", attempt) == []
    assert hive.task("t").attempt == 2
    hive.end("t", 2)
    assert hive.end("t", 2) == []


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


def test_tasks_that_failed_here_do_not_block_those_behind_them() -> None:
    many = LOOK_AHEAD_MAX + 10
    hive = Hive("a", slots=many)
    hive.register("b")
    hive.submit("on-b")
    hive.submit("on-a")
    for number in range(many - 1):
        hive.submit(f"t{number}")
    assert len(hive.worker("a").running) + len(hive.worker("b").running) == many + 1
    hive.submit("untried")
    lost = list(hive.worker("a").running)
    hive.alarm("a", returning=True)
    for name in lost:
        hive.cut(name, final=True)
    hive.waggle("a", slots=many)
    assert hive.starts() == [("untried", "a", 1)]
    assert len(hive.waiting()) == len(lost)


def test_a_task_that_failed_elsewhere_is_found_behind_many_that_failed_here() -> None:
    many = LOOK_AHEAD_MAX + 10
    hive = Hive("gone")
    hive.register("a", slots=many)
    hive.register("full")
    hive.submit("on-gone", priority=LOW)
    for number in range(many + 1):
        hive.submit(f"t{number}")
    hive.cut("on-gone")  # It waits, and never failed on a.
    hive.gone("gone")
    lost = list(hive.worker("a").running)
    hive.alarm("a", returning=True)
    for name in lost:
        hive.cut(name, final=True)
    assert hive.waiting() == [*reversed(lost), "on-gone"]
    hive.waggle("a", slots=many)
    assert hive.starts() == [("on-gone", "a", 2)]


def test_patience_is_counted_from_when_hope_was_lost() -> None:
    hive = Hive("a")
    hive.submit("runs")
    hive.submit("waits")
    hive.now_ms += 5 * PATIENCE_MS
    hive.waggle("a")
    hive.alarm("a")
    hive.cut("runs")
    hive.tick(0)
    hive.tick(PATIENCE_MS)
    assert hive.waiting() == ["waits"]
    hive.tick(1)
    assert hive.failure().code == "no_rustbees_available"
    assert hive.waiting() == []


def test_hope_that_returns_starts_patience_anew() -> None:
    hive = Hive("a")
    hive.submit("runs")
    hive.submit("waits")
    for _ in range(3):
        hive.alarm("a")
        hive.tick(PATIENCE_MS - 1)
        hive.waggle("a", ready=False)
        hive.tick(1)
    assert hive.waiting() == ["waits"]


def test_nobody_waits_forever_for_workers_that_all_failed_it() -> None:
    hive = Hive("a", "b")
    hive.submit("t1")
    hive.submit("t2")
    hive.cut("t1", final=True)  # b is busy, so it waits for b.
    hive.gone("b")
    hive.tick(0)
    for _ in range(2):
        hive.tick(PATIENCE_MS // 2)
        hive.waggle("a")
    assert hive.waiting() == ["t1"]
    hive.tick(1)
    assert hive.failure().message == "no stable rustbee serves 'qwen': a is healthy and failed this task"


def test_durable_tasks_are_patient() -> None:
    hive = Hive("a")
    hive.submit("runs")
    hive.submit("waits", durable=True)
    hive.gone("a")
    hive.tick(0)
    hive.tick(100 * PATIENCE_MS)
    assert hive.waiting() == ["waits"]


def test_lost_patience_fails_tasks_in_the_order_of_their_models() -> None:
    hive = Hive()
    names = [f"model-{number}" for number in range(20)]
    for name in names:
        hive.register(f"w-{name}", model=name, ready=False)
        hive.submit(f"t-{name}", model=name)
    for name in names:
        hive.gone(f"w-{name}")
    hive.tick(0)
    hive.tick(PATIENCE_MS + 1)
    assert [c.task_id for c in hive.last if isinstance(c, FailTask)] == [f"t-{name}" for name in names]


def test_a_worker_that_goes_takes_no_task_with_it() -> None:
    hive = Hive("a", "b", slots=2)
    hive.submit("t")
    hive.gone("a")
    assert hive.only(BreakStream).task_id == "t"
    hive.cut("t")
    assert hive.starts() == [("t", "b", 2)]


def test_an_end_that_overtakes_the_demand_to_break_is_an_end() -> None:
    hive = Hive("a", "b")
    hive.submit("t")
    hive.gone("a")
    assert hive.end("t") == []
    assert hive.cut("t") == []
    assert not hive.swarm.dispatcher.tasks


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


@pytest.mark.parametrize("durable", [False, True])
def test_a_worker_that_is_well_again_takes_the_task_back_when_the_others_are_gone(*, durable: bool) -> None:
    hive = Hive("a", "b")
    hive.submit("t", durable=durable)
    hive.cut("t")
    assert hive.starts() == [("t", "b", 2)]
    hive.waggle("a")
    hive.gone("b")
    hive.cut("t", 2)
    assert hive.starts() == [("t", "a", 3)]


@pytest.mark.parametrize("durable", [False, True])
def test_a_waiting_task_goes_back_to_a_well_worker_when_nobody_else_is_left(*, durable: bool) -> None:
    hive = Hive("a", "b", "c")
    hive.submit("t", durable=durable)
    hive.submit("short")
    hive.submit("on-c")
    hive.end("short")
    hive.cut("t")
    assert hive.starts() == [("t", "b", 2)]
    hive.waggle("a")
    hive.submit("on-a")
    hive.cut("t", 2)
    hive.end("on-a")
    assert hive.waiting() == ["t"]  # It failed on a and b, and waits for c.
    for name in "bc":
        hive.gone(name)
    hive.tick()
    assert hive.starts() == [("t", "a", 3)]


def test_a_task_that_was_accepted_before_is_not_refused() -> None:
    hive = Hive("a", queue_max_per_key=1)
    for name in ("runs", "waits"):
        hive.submit(name)
    hive.accept("t")
    assert hive.waiting() == ["waits", "t"]


def test_tasks_of_a_lost_worker_wait_in_the_order_they_came_in() -> None:
    hive = Hive("a", slots=3)
    for name in ("t1", "t2", "t3"):
        hive.submit(name)
    hive.alarm("a", returning=True)
    for command in [c for c in hive.last if isinstance(c, BreakStream)]:
        hive.cut(command.task_id)
    assert hive.waiting() == ["t1", "t2", "t3"]
