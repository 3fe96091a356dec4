"""Tasks that a queen before this one had accepted: where they go on, in which order, and as which attempt."""

from __future__ import annotations

import pytest

from core_hive import HIGH, LOW, Hive
from swarmesh.core.commands import RecordTask, StartStream
from swarmesh.core.patience import PATIENCE_MS
from swarmesh.core.task import TaskStatus


def test_a_task_goes_on_where_it_ran_as_the_next_attempt() -> None:
    hive = Hive("a", "b")
    hive.accept("t", attempts=3, running_on="b")
    start = hive.only(StartStream)
    assert (start.worker_id, start.attempt, start.decision.policy) == ("b", 4, "return")
    assert [(c.status, c.attempt, c.worker_id) for c in hive.all(RecordTask)] == [(TaskStatus.RUNNING, 4, "b")]
    assert hive.end("t", 3) == []
    hive.end("t", 4)
    assert hive.is_at_rest()


def test_it_goes_there_although_others_have_less_to_do_and_others_wait_before_it() -> None:
    hive = Hive("a", "b", slots=2)
    hive.submit("on-a")
    hive.submit("on-b")
    hive.accept("t", running_on="b")
    assert hive.running("b") == ["on-b", "t"]


@pytest.mark.parametrize("place", ["unknown", "dead", "draining", "starting", "silent", "full", "another model"])
def test_where_it_ran_cannot_take_it_so_another_does(place: str) -> None:
    hive = Hive("a", "b")
    match place:
        case "unknown":
            hive.gone("b")
        case "dead":
            hive.alarm("b", returning=True)
        case "draining":
            hive.stop("b", 60_000)
        case "starting":
            hive.register("b", ready=False)
        case "silent":
            hive.silent("b")
        case "full":
            hive.submit("on-a")
            hive.submit("on-b")
            hive.end("on-a")
        case _:
            hive.register("b", model="demo")
    hive.accept("t", attempts=1, running_on="b")
    assert hive.starts() == [("t", "a", 2)]
    assert hive.only(StartStream).decision.policy == "swarm"


def test_when_nobody_can_take_it_it_waits_and_is_never_refused() -> None:
    hive = Hive()
    hive.accept("t", attempts=1, running_on="b")
    hive.tick(0)
    hive.tick(100 * PATIENCE_MS)
    assert hive.waiting() == ["t"]
    hive.register("b")
    assert hive.starts() == [("t", "b", 2)]


def test_a_suspect_takes_back_what_it_ran() -> None:
    hive = Hive("a", "b")
    hive.wait(80_000)
    hive.waggle("a")
    assert hive.worker("b").status == "suspect"
    hive.accept("t", running_on="b")
    assert hive.starts() == [("t", "b", 1)]


def test_tasks_that_waited_wait_in_the_order_they_are_handed_in_and_bands_come_first() -> None:
    hive = Hive()
    for name, priority in [("l1", LOW), ("h1", HIGH), ("l2", LOW), ("h2", HIGH)]:
        hive.accept(name, priority=priority)
    assert hive.waiting() == ["h1", "h2", "l1", "l2"]


def test_whoever_runs_is_taken_up_first_and_keeps_its_slot_from_those_that_waited() -> None:
    hive = Hive("a", "b")
    hive.accept("ran-1", attempts=1, running_on="b")
    hive.accept("ran-2", attempts=1, running_on="a")
    hive.accept("waited", attempts=0)
    assert (hive.running("a"), hive.running("b"), hive.waiting()) == (["ran-2"], ["ran-1"], ["waited"])


def test_a_low_task_taken_up_gives_way_to_a_high_one_that_waited() -> None:
    hive = Hive("a")
    hive.accept("low", attempts=1, priority=LOW, running_on="a")
    hive.accept("urgent", priority=HIGH)
    assert (hive.preempted(), hive.running("a"), hive.waiting()) == (["low"], ["urgent"], ["low"])


def test_suspicion_outlives_the_queen_and_two_suspects_do_not_share_a_worker() -> None:
    hive = Hive("a", slots=2)
    hive.accept("t1", attempts=1, kills=1, running_on="a")
    assert hive.only(StartStream).watched
    hive.accept("t2", attempts=1, kills=1, running_on="a")
    assert hive.waiting() == ["t2"]
    hive.progress("t1", 2)
    assert hive.starts() == [("t2", "a", 2)]


def test_a_task_that_crashed_an_engine_under_the_queen_before_has_one_left() -> None:
    hive = Hive("a", "b", "c")
    hive.accept("t", attempts=1, kills=1)
    hive.crash("t")
    assert hive.failures() == {"t": "failed_poison"}


def test_the_same_worker_may_fail_it_again_without_harm() -> None:
    hive = Hive("a", "b")
    hive.accept("t", attempts=2, running_on="a")
    hive.cut("t")
    assert hive.starts() == [("t", "b", 4)]
    assert hive.task("t").moves == 1
