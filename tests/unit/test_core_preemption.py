"""Urgent tasks take the slots of low ones, and the low ones come back: who, when, and how often."""

from __future__ import annotations

import pytest

from core_hive import HIGH, LOW, MEDIUM, Hive
from swarmesh.core.commands import CancelStream, PreemptStream, RecordTask, StartStream
from swarmesh.core.ids import Blame, Priority
from swarmesh.core.preemption import PREEMPTED_MS_MAX, PREEMPTIONS_MAX
from swarmesh.core.roster import REST_INTERVAL_MS
from swarmesh.core.task import TaskStatus


def a_hive_of_lows(*workers: str, slots: int = 1, resumable: bool = True) -> Hive:
    """Every slot is taken by a low task; they are called low-0, low-1, … in the order they started."""
    hive = Hive(*workers, slots=slots)
    for number in range(len(workers) * slots):
        hive.submit(f"low-{number}", priority=LOW, resumable=resumable)
    return hive


def test_a_high_task_takes_the_slot_of_the_newest_low_one() -> None:
    hive = a_hive_of_lows("a", "b", slots=2)
    newest = hive.task("low-3").worker_id
    hive.submit("urgent", priority=HIGH)
    stopped = hive.only(PreemptStream)
    assert (stopped.task_id, stopped.attempt, stopped.worker_id) == ("low-3", 1, newest)
    start = hive.only(StartStream)
    assert (start.task_id, start.worker_id, start.decision.policy) == ("urgent", newest, "preempt")
    assert start.decision.chosen == newest
    assert hive.task("low-3").status is TaskStatus.PREEMPTED
    assert [len(hive.running(name)) for name in "ab"] == [2, 2]


def test_the_slot_is_free_on_the_books_before_it_is_given_away() -> None:
    hive = a_hive_of_lows("a")
    hive.submit("urgent", priority=HIGH)
    assert [type(command) for command in hive.last] == [PreemptStream, StartStream]
    assert (hive.running("a"), hive.task("low-0").worker_id) == (["urgent"], None)


def test_a_free_slot_is_taken_and_nobody_is_stopped() -> None:
    hive = a_hive_of_lows("a")
    hive.register("b")
    hive.submit("urgent", priority=HIGH)
    assert (hive.starts(), hive.preempted()) == ([("urgent", "b", 1)], [])


@pytest.mark.parametrize("priority", [MEDIUM, LOW])
def test_only_a_high_task_takes_a_slot(priority: Priority) -> None:
    hive = a_hive_of_lows("a")
    assert hive.submit("t", priority=priority) == []


@pytest.mark.parametrize("priority", [MEDIUM, HIGH])
def test_only_a_low_task_gives_way(priority: Priority) -> None:
    hive = Hive("a")
    hive.submit("runs", priority=priority)
    assert hive.submit("urgent", priority=HIGH) == []
    assert hive.waiting() == ["urgent"]


def test_a_task_that_cannot_be_gone_on_with_keeps_its_slot() -> None:
    hive = a_hive_of_lows("a", resumable=False)
    assert hive.submit("urgent", priority=HIGH) == []
    hive.tick(2 * PREEMPTED_MS_MAX)
    assert hive.waiting() == ["urgent"]
    hive.end("low-0")
    assert hive.starts() == [("urgent", "a", 1)]


def test_an_older_low_task_gives_way_when_the_newest_cannot() -> None:
    hive = Hive("a", slots=2)
    hive.submit("old", priority=LOW)
    hive.submit("new", priority=LOW, resumable=False)
    hive.submit("urgent", priority=HIGH)
    assert hive.preempted() == ["old"]


def test_preemption_can_be_turned_off() -> None:
    hive = Hive("a", preemption=False)
    hive.submit("low", priority=LOW)
    assert hive.submit("urgent", priority=HIGH) == []
    assert hive.tick(PREEMPTED_MS_MAX) == []


def test_tasks_of_another_model_keep_their_slots() -> None:
    hive = Hive("a")
    hive.register("d", model="demo")
    hive.submit("low", priority=LOW)
    hive.submit("low-demo", model="demo", priority=LOW)
    hive.submit("urgent", model="demo", priority=HIGH)
    assert (hive.preempted(), hive.starts()) == (["low-demo"], [("urgent", "d", 1)])
    assert (hive.waiting("demo"), hive.waiting(), hive.running("a")) == (["low-demo"], [], ["low"])


def test_a_medium_task_that_waits_is_not_put_before_the_slot_the_high_one_makes() -> None:
    hive = a_hive_of_lows("a")
    hive.submit("medium")
    hive.submit("urgent", priority=HIGH)
    assert (hive.running("a"), hive.waiting()) == (["urgent"], ["medium", "low-0"])


def test_the_preempted_go_on_from_the_head_of_their_band_in_the_order_they_started() -> None:
    hive = a_hive_of_lows("a", slots=3)
    hive.submit("later", priority=LOW)
    for number in range(3):
        hive.submit(f"urgent-{number}", priority=HIGH)
    assert hive.waiting() == ["low-0", "low-1", "low-2", "later"]
    hive.end("urgent-1")
    assert hive.starts() == [("low-0", "a", 2)]


def test_a_preempted_task_goes_on_elsewhere_and_is_charged_once() -> None:
    hive = a_hive_of_lows("a", "b")
    hive.submit("urgent", priority=HIGH)
    assert hive.task("low-1").status is TaskStatus.PREEMPTED
    hive.end("low-0")
    assert hive.starts() == [("low-1", "a", 2)]
    hive.end("low-1", 2)
    hive.end("urgent")
    assert hive.is_at_rest()


def test_a_preempted_task_costs_no_move_and_nobody_is_suspected() -> None:
    hive = a_hive_of_lows("a")
    hive.submit("urgent", priority=HIGH)
    low = hive.task("low-0")
    assert (low.moves, low.tried, low.preemptions) == (0, set(), 1)
    assert hive.worker("a").status == "healthy"


def test_a_durable_task_is_recorded_before_its_slot_is_used() -> None:
    hive = Hive("a")
    hive.submit("low", priority=LOW, durable=True)
    hive.submit("urgent", priority=HIGH, durable=True)
    seen = [(c.task_id, c.status, c.attempt, c.worker_id) for c in hive.all(RecordTask)]
    assert seen == [("low", TaskStatus.PREEMPTED, 1, None), ("urgent", TaskStatus.RUNNING, 1, "a")]
    assert isinstance(hive.last[-1], StartStream)
    hive.end("urgent")
    assert [(c.status, c.attempt) for c in hive.all(RecordTask)] == [(TaskStatus.DONE, 1), (TaskStatus.RUNNING, 2)]


def test_a_task_is_preempted_at_most_so_often() -> None:
    hive = a_hive_of_lows("a")
    for number in range(PREEMPTIONS_MAX):
        hive.submit(f"urgent-{number}", priority=HIGH)
        assert hive.preempted() == ["low-0"]
        hive.end(f"urgent-{number}")
        assert hive.starts() == [("low-0", "a", number + 2)]
    hive.submit("one-more", priority=HIGH)
    assert (hive.preempted(), hive.waiting()) == ([], ["one-more"])
    hive.end("low-0", PREEMPTIONS_MAX + 1)
    assert hive.starts() == [("one-more", "a", 1)]


# Overdue


def test_both_sides_of_the_time_a_preempted_task_may_wait() -> None:
    hive = a_hive_of_lows("a")
    hive.submit("urgent-0", priority=HIGH)
    hive.submit("urgent-1", priority=HIGH)
    hive.tick(PREEMPTED_MS_MAX)
    assert hive.waiting() == ["urgent-1", "low-0"]
    hive.wait(1)
    assert hive.waiting() == ["low-0", "urgent-1"]
    hive.end("urgent-0")
    assert hive.starts() == [("low-0", "a", 2)]


def test_an_overdue_task_keeps_its_next_slot() -> None:
    hive = a_hive_of_lows("a")
    hive.submit("urgent-0", priority=HIGH)
    hive.tick(PREEMPTED_MS_MAX + 1)
    hive.end("urgent-0")
    assert hive.submit("urgent-1", priority=HIGH) == []
    assert (hive.running("a"), hive.task("low-0").priority) == (["low-0"], LOW)


def test_overdue_tasks_stand_in_the_order_they_lost_their_slots_in() -> None:
    hive = a_hive_of_lows("a", slots=2)
    for name in ("urgent-0", "urgent-1"):
        hive.submit(name, priority=HIGH)
    assert hive.waiting() == ["low-0", "low-1"]  # low-1 is the newer one, so it gave way first.
    hive.tick(PREEMPTED_MS_MAX + 1)
    assert hive.waiting() == ["low-1", "low-0"]


def test_an_overdue_task_takes_the_slot_of_another_low_one_and_gives_it_to_nobody() -> None:
    hive = a_hive_of_lows("a", "b")
    hive.submit("urgent", priority=HIGH)
    assert hive.waiting() == ["low-1"]
    hive.tick(PREEMPTED_MS_MAX + 1)
    assert (hive.preempted(), hive.starts()) == (["low-0"], [("low-1", "a", 2)])
    hive.tick(PREEMPTED_MS_MAX + 1)
    assert (hive.preempted(), hive.waiting()) == ([], ["low-0"])
    hive.end("low-1", 2)
    assert hive.starts() == [("low-0", "a", 2)]


def test_high_tasks_behind_an_overdue_one_are_served_after_it_and_before_low_ones() -> None:
    hive = a_hive_of_lows("a", "b", "c")
    hive.submit("urgent-0", priority=HIGH)
    hive.now_ms += PREEMPTED_MS_MAX + 1
    hive.submit("urgent-1", priority=HIGH)
    hive.tick(0)
    assert (hive.preempted(), hive.starts()) == (["low-0"], [("low-2", "a", 2)])
    assert hive.running("b") == ["urgent-1"]
    assert hive.waiting() == ["low-0", "low-1"]


def test_a_high_task_is_not_held_up_by_an_overdue_one_that_can_go_nowhere() -> None:
    hive = Hive("a", "b")
    hive.submit("low", priority=LOW)
    hive.submit("urgent-0", priority=HIGH)  # On b.
    hive.submit("urgent-1", priority=HIGH)  # Takes a.
    hive.tick(PREEMPTED_MS_MAX + 1)
    hive.task("low").tried.add(hive.worker("b").worker_id)
    hive.waggle("b", slots=2)
    assert hive.waiting() == ["low"]
    hive.submit("filler", priority=LOW)
    assert hive.running("b") == ["urgent-0", "filler"]
    hive.submit("urgent-2", priority=HIGH)
    assert (hive.preempted(), hive.running("b")) == (["filler"], ["urgent-0", "urgent-2"])


# Awkward orders


def test_a_high_task_behind_one_that_failed_on_that_worker_takes_its_slot() -> None:
    hive = Hive("a", "b")
    hive.submit("first", priority=HIGH)
    hive.submit("runs", priority=HIGH)
    hive.cut("first", final=True)  # It waits for b, which is busy; a is free for others.
    hive.waggle("a")
    hive.submit("low", priority=LOW)
    assert (hive.running("a"), hive.waiting()) == (["low"], ["first"])
    hive.submit("second", priority=HIGH)
    assert (hive.preempted(), hive.running("a"), hive.waiting()) == (["low"], ["second"], ["first", "low"])


def test_a_high_task_whose_stream_broke_takes_a_low_slot_elsewhere_and_leaves_its_own() -> None:
    hive = Hive("a", "b")
    hive.submit("urgent", priority=HIGH)
    hive.submit("low", priority=LOW)
    hive.cut("urgent")
    assert (hive.preempted(), hive.starts()) == (["low"], [("urgent", "b", 2), ("low", "a", 2)])
    assert (hive.running("a"), hive.running("b"), hive.waiting()) == (["low"], ["urgent"], [])


def test_all_high_tasks_of_a_lost_worker_take_low_slots() -> None:
    hive = Hive("a", slots=3)
    for number in range(3):
        hive.submit(f"urgent-{number}", priority=HIGH)
    hive.register("b", slots=3)
    for number in range(3):
        hive.submit(f"low-{number}", priority=LOW)
    hive.alarm("a")
    hive.cut_as_asked()
    assert set(hive.running("b")) == {"urgent-0", "urgent-1", "urgent-2"}
    assert hive.waiting() == ["low-0", "low-1", "low-2"]


def test_a_high_task_that_waited_for_a_silent_worker_takes_a_low_slot_when_it_is_heard() -> None:
    hive = a_hive_of_lows("a")
    hive.silent("a")
    hive.waggle("a")  # Its way to the queen works, hers to it does not.
    hive.submit("urgent", priority=HIGH)
    assert hive.starts() == []
    hive.heard("a")
    assert (hive.preempted(), hive.starts()) == (["low-0"], [("urgent", "a", 1)])


def test_a_high_task_on_probation_takes_a_low_slot_once_the_worker_has_none_on_probation() -> None:
    hive = Hive("a", slots=2)
    hive.accept("suspected", kills=1)
    hive.submit("low", priority=LOW)
    hive.accept("urgent", kills=1, priority=HIGH)
    assert hive.waiting() == ["urgent"]
    hive.progress("suspected")
    assert (hive.preempted(), hive.starts()) == (["low"], [("urgent", "a", 1)])


def test_a_worker_with_more_tasks_than_slots_gains_nothing_by_preemption_until_it_has_shrunk() -> None:
    hive = a_hive_of_lows("a", slots=3)
    hive.waggle("a", slots=2)
    assert hive.submit("urgent", priority=HIGH) == []
    hive.end("low-0")
    assert (hive.preempted(), hive.running("a")) == (["low-2"], ["low-1", "urgent"])


def test_low_tasks_of_a_suspect_give_way_last() -> None:
    hive = a_hive_of_lows("a", "b")
    hive.cut("low-1")
    hive.end("low-0")
    hive.submit("new", priority=LOW)
    assert (hive.running("a"), hive.running("b"), hive.worker("b").status) == (["low-1"], ["new"], "suspect")
    hive.submit("urgent", priority=HIGH)
    assert (hive.preempted(), hive.starts()) == (["low-1"], [("urgent", "a", 1)])
    hive.submit("urgent-1", priority=HIGH)
    assert (hive.preempted(), hive.starts()) == (["new"], [("urgent-1", "b", 1)])


@pytest.mark.parametrize("news", ["end", "cut", "progress"])
def test_news_of_the_attempt_that_was_preempted_are_ignored_before_and_after_it_goes_on(news: str) -> None:
    hive = a_hive_of_lows("a")
    hive.submit("urgent", priority=HIGH)
    tell = {"end": hive.end, "cut": hive.cut, "progress": hive.progress}[news]
    assert tell("low-0", 1) == []
    assert hive.task("low-0").status is TaskStatus.PREEMPTED
    hive.end("urgent")
    assert tell("low-0", 1) == []
    assert (hive.running("a"), hive.task("low-0").attempt) == (["low-0"], 2)


def test_a_preempted_task_can_be_cancelled() -> None:
    hive = a_hive_of_lows("a")
    hive.submit("urgent", priority=HIGH)
    hive.cancel("low-0")
    cancel = hive.only(CancelStream)
    assert (cancel.attempt, cancel.worker_id, hive.waiting(), hive.is_open("low-0")) == (1, None, [], False)
    hive.tick(PREEMPTED_MS_MAX + 1_000)
    hive.end("urgent")
    assert hive.is_at_rest()


def test_a_preempted_task_fails_when_nobody_is_left_to_go_on_with_it() -> None:
    hive = a_hive_of_lows("a")
    hive.submit("urgent", priority=HIGH)
    hive.gone("a")
    hive.cut_as_asked()
    hive.wait(120_000)
    assert hive.failures() == {"low-0": "no_rustbees_available"}
    assert hive.is_at_rest()


def test_a_preempted_task_that_goes_on_and_breaks_is_an_ordinary_one_again() -> None:
    hive = a_hive_of_lows("a", "b")
    hive.submit("urgent", priority=HIGH)
    hive.end("urgent")
    assert hive.running("b") == ["low-1"]
    hive.cut("low-1", 2)
    assert (hive.task("low-1").status, hive.waiting()) == (TaskStatus.QUEUED, ["low-1"])
    hive.tick(PREEMPTED_MS_MAX + 1)
    assert hive.task("low-1").band is LOW


@pytest.mark.parametrize("blame", Blame)
def test_preempting_the_task_on_probation_frees_the_workers_probation(blame: Blame) -> None:
    hive = Hive("a")
    hive.accept("suspected", kills=1, priority=LOW)
    hive.submit("urgent", priority=HIGH)
    assert (hive.preempted(), hive.worker("a").probation) == (["suspected"], None)
    hive.cut("urgent", blame=blame, resumable=False)
    assert hive.starts() == [("suspected", "a", 2)]
    assert hive.only(StartStream).watched
    assert hive.worker("a").probation == "suspected"


def test_a_high_task_with_a_slot_to_take_is_not_refused_for_a_full_queue() -> None:
    hive = Hive("a", queue_max_per_key=1)
    for name in ("runs", "waits"):
        hive.submit(name, priority=LOW)
    hive.submit("urgent", priority=HIGH)
    assert (hive.failures(), hive.running("a"), hive.waiting()) == ({}, ["urgent"], ["runs", "waits"])
    hive.submit("urgent-1", priority=HIGH)
    assert hive.failures() == {"urgent-1": "queue_full"}


def test_a_batch_is_worked_off_while_urgent_tasks_come_and_go() -> None:
    hive = a_hive_of_lows("a", "b", slots=4)
    attempts: dict[str, int] = {}
    for number in range(200):
        hive.submit(f"urgent-{number}", priority=HIGH)
        assert hive.is_open(f"urgent-{number}")
        hive.now_ms += REST_INTERVAL_MS // 10
        if number % 3 == 0:
            hive.tick(0)
        if number >= 6 and hive.task(f"urgent-{number - 6}").status is TaskStatus.RUNNING:
            hive.end(f"urgent-{number - 6}")
        attempts |= {f"low-{index}": hive.task(f"low-{index}").preemptions for index in range(8)}
        for name in "ab":
            hive.waggle(name, slots=4)
    assert max(attempts.values()) <= PREEMPTIONS_MAX
    for _ in range(300):
        for name in [*hive.running("a"), *hive.running("b")]:
            hive.end(name, hive.task(name).attempt)
    assert hive.is_at_rest()


def test_what_has_ended_is_forgotten_also_when_nobody_urgent_ever_comes() -> None:
    hive = Hive("a", slots=4)
    for number in range(1_000):
        hive.submit(f"low-{number}", priority=LOW, resumable=True)
        hive.end(f"low-{number}")
    assert len(hive.swarm.dispatcher.victims) < 100
    for number in range(4):
        hive.submit(f"last-{number}", priority=LOW, resumable=True)
    hive.submit("urgent", priority=HIGH)
    assert hive.only(PreemptStream).task_id == "last-3"
