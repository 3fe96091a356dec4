"""Tasks whose stream broke: to whom they move, how often, and where they wait meanwhile."""

from __future__ import annotations

import pytest

from core_hive import LOW, Hive
from swarmesh.core.commands import BreakStream
from swarmesh.core.ids import Blame
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.look_ahead import KINDS_MAX as LOOK_AHEAD_MAX
from swarmesh.core.refusals import MOVES_MAX


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


def test_an_end_that_overtakes_the_demand_to_break_is_an_end() -> None:
    hive = Hive("a", "b")
    hive.submit("t")
    hive.gone("a")
    assert hive.end("t") == []
    assert hive.cut("t") == []
    assert not hive.swarm.dispatcher.tasks


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


def test_tasks_of_a_lost_worker_wait_in_the_order_they_came_in() -> None:
    hive = Hive("a", slots=3)
    for name in ("t1", "t2", "t3"):
        hive.submit(name)
    hive.alarm("a", returning=True)
    for command in [c for c in hive.last if isinstance(c, BreakStream)]:
        hive.cut(command.task_id)
    assert hive.waiting() == ["t1", "t2", "t3"]
