"""Silence: who is declared dead for it, how many at once, and what a queen who slept makes of it."""

from __future__ import annotations

import pytest

from core_hive import HIGH, Hive
from swarmesh.core.commands import BreakStream
from swarmesh.core.eviction import SHARE_DIVISOR, WINDOW_MS, Evictions
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.liveness import EXPIRY_FACTOR, OVERDUE_FACTOR, WorkerStatus
from swarmesh.core.patience import PATIENCE_MS
from swarmesh.core.roster import LOOK_STEP_MS_MAX, REST_INTERVAL_MS

OVERDUE_MS = int(REST_INTERVAL_MS * OVERDUE_FACTOR)
EXPIRY_MS = int(REST_INTERVAL_MS * EXPIRY_FACTOR)
DEAD, HEALTHY, STARTING, SUSPECT = (
    WorkerStatus.DEAD,
    WorkerStatus.HEALTHY,
    WorkerStatus.STARTING,
    WorkerStatus.SUSPECT,
)
CAPS = [(1, 1), (2, 1), (3, 1), (5, 1), (6, 2), (10, 3), (30, 10)]


def named(count: int) -> list[str]:
    return [f"w{number}" for number in range(count)]


def dead(hive: Hive) -> list[str]:
    return [worker.worker_id for worker in hive.swarm.fleet if worker.status is DEAD]


# The cap


@pytest.mark.parametrize(("workers", "cap"), CAPS)
def test_silence_alone_buries_a_third_of_the_fleet_and_always_one(workers: int, cap: int) -> None:
    hive = Hive(*named(workers))
    hive.silent(*named(workers))
    assert dead(hive) == named(workers)[:cap]
    codes = [code for _, code in hive.alarms()]
    assert codes == ["rustbee_silent"] * cap + ["eviction_held"] * (workers - cap)
    held = [worker for worker in hive.swarm.fleet if worker.held]
    assert [worker.status for worker in held] == [SUSPECT] * (workers - cap)


@pytest.mark.parametrize(("workers", "cap"), CAPS)
def test_leases_alone_bury_a_third_of_the_fleet_in_a_minute_and_the_rest_in_the_next(workers: int, cap: int) -> None:
    hive = Hive(*named(workers))
    hive.wait(EXPIRY_MS)
    assert dead(hive) == []
    hive.wait(2_000)
    assert len(dead(hive)) == cap
    hive.wait(WINDOW_MS - 2_000)
    assert len(dead(hive)) == cap
    hive.wait(4_000)
    assert len(dead(hive)) == min(workers, 2 * cap)
    hive.wait((workers // cap + 1) * (WINDOW_MS + 4_000))
    assert len(dead(hive)) == workers


def test_both_sides_of_the_window() -> None:
    fleet = Fleet()
    for name in named(SHARE_DIVISOR):
        fleet.add(Worker(WorkerId(name), ModelName("qwen"), "cpu", HostName("oak"), "", 1, False, 0, HEALTHY))
    evictions = Evictions(fleet)
    assert evictions.allow(5, certain=False)
    assert not evictions.allow(5 + WINDOW_MS, certain=False)
    assert evictions.allow(5 + WINDOW_MS + 1, certain=False)


def test_a_refusal_to_evict_is_not_counted_as_one() -> None:
    evictions = Evictions(Fleet())
    assert evictions.allow(0, certain=False)
    for at_ms in range(1, WINDOW_MS, 1_000):
        assert not evictions.allow(at_ms, certain=False)
    assert evictions.allow(WINDOW_MS + 1, certain=False)


def test_those_that_are_certainly_dead_leave_the_cap_to_the_others() -> None:
    hive = Hive(*named(9))
    for name in named(5):
        hive.alarm(name)
    hive.silent("w8")
    assert hive.worker("w8").status is DEAD


def test_a_worker_held_is_alarmed_about_once_and_serves_again_with_its_next_report() -> None:
    hive = Hive("a", "b")
    hive.silent("a", "b")
    assert hive.alarms() == [("a", "rustbee_silent"), ("b", "eviction_held")]
    hive.wait(10_000)
    assert hive.alarms() == []
    hive.waggle("b")
    hive.heard("b")
    assert (hive.worker("b").status, hive.worker("b").held) == (HEALTHY, False)
    hive.submit("t")
    assert hive.starts() == [("t", "b", 1)]


# Second signals


@pytest.mark.parametrize("order", ["silent first", "lease first"])
def test_silence_on_both_ways_needs_no_care(order: str) -> None:
    hive = Hive(*named(9))
    if order == "silent first":
        hive.silent(*named(9))
        hive.wait(EXPIRY_MS + 2_000)
    else:
        hive.wait(OVERDUE_MS + 2_000)
        hive.silent(*named(9))
    assert dead(hive) == named(9)


def test_streams_that_broke_are_no_second_signal_for_they_took_the_same_way() -> None:
    names = named(9)
    hive = Hive(*names)
    for name in names:
        hive.submit(f"t-{name}")
    for name in names:
        hive.cut(f"t-{name}", code="stream_silent")
    assert {hive.worker(name).status for name in names} == {SUSPECT}
    hive.silent(*names)
    assert len(dead(hive)) == 9 // SHARE_DIVISOR


def test_an_alarm_needs_no_care() -> None:
    hive = Hive(*named(9))
    for name in named(9):
        hive.alarm(name)
    assert dead(hive) == named(9)


def test_a_worker_is_not_counted_twice_for_two_signals() -> None:
    hive = Hive(*named(9))
    for name in named(9):
        hive.waggle(name, ready=False)  # Their leases are short now.
    hive.silent("w0", "w1", "w2")
    for _ in range(15):
        hive.tick()
        for name in named(9)[3:]:
            hive.waggle(name)
    assert hive.alarms() == []
    assert not any(hive.worker(name).returning for name in named(3))
    hive.tick(WINDOW_MS - 14_000)  # A minute after they fell silent, not after their leases ended.
    hive.silent("w3")
    assert dead(hive) == named(4)


# What silence means for tasks


def test_a_silent_worker_gives_its_tasks_up_and_gets_nothing_new() -> None:
    hive = Hive("a", "b", slots=2)
    hive.submit("t1")
    hive.silent("a")
    assert [(c.task_id, c.code) for c in hive.all(BreakStream)] == [("t1", "rustbee_silent")]
    hive.cut_as_asked()
    assert hive.starts() == [("t1", "b", 2)]
    assert (hive.worker("a").status, hive.worker("a").returning) == (DEAD, True)
    hive.submit("t2")
    assert hive.starts() == [("t2", "b", 1)]


def test_a_worker_held_keeps_its_streams_and_gets_nothing_new() -> None:
    hive = Hive("a", "b")
    hive.submit("on-a")
    hive.submit("on-b")
    hive.silent("a", "b")
    assert [command.task_id for command in hive.all(BreakStream)] == ["on-a"]
    hive.end("on-b")
    assert hive.submit("t") == []
    hive.heard("b")
    assert hive.starts() == [("t", "b", 1)]


def test_a_silent_worker_that_reports_is_not_used_before_it_is_heard() -> None:
    hive = Hive("a")
    hive.silent("a")
    hive.submit("t")
    hive.waggle("a")
    assert (hive.worker("a").status, hive.starts()) == (HEALTHY, [])
    hive.heard("a")
    assert hive.starts() == [("t", "a", 1)]
    assert hive.heard("a") == []


def test_a_worker_that_is_heard_before_it_reports_is_used_when_it_reports() -> None:
    hive = Hive("a")
    hive.silent("a")
    hive.submit("t")
    assert hive.heard("a") == []
    hive.waggle("a")
    assert hive.starts() == [("t", "a", 1)]


def test_registering_again_does_not_make_a_silent_worker_heard() -> None:
    hive = Hive("a")
    hive.submit("runs")
    hive.silent("a")
    hive.cut_as_asked()
    hive.register("a")
    assert (hive.worker("a").silent, hive.worker("a").status, hive.waiting()) == (True, HEALTHY, ["runs"])
    hive.heard("a")
    assert hive.starts() == [("runs", "a", 2)]


def test_falling_silent_twice_is_once() -> None:
    hive = Hive("a", "b", "c")
    hive.silent("a")
    assert hive.silent("a") == []


def test_silence_of_a_dead_or_unknown_worker_is_no_news() -> None:
    hive = Hive("a")
    hive.alarm("a", returning=True)
    assert hive.silent("a") == []
    assert hive.worker("a").returning
    assert hive.silent("stranger") == hive.heard("stranger") == []


def test_a_worker_that_was_to_stop_is_not_waited_for_when_it_falls_silent() -> None:
    hive = Hive("a")
    hive.submit("t")
    hive.stop("a", grace_ms=60_000)
    hive.silent("a")
    assert not hive.worker("a").may_serve
    hive.cut_as_asked()
    assert hive.failures() == {"t": "rustbee_lost"}


def test_nobody_waits_forever_for_a_worker_that_reports_and_is_not_heard() -> None:
    hive = Hive("a")
    hive.silent("a")
    hive.submit("t")
    hive.submit("kept", durable=True)
    for _ in range(PATIENCE_MS // 1_000 + 1):
        hive.waggle("a")
        assert hive.tick() == []
    hive.tick()
    assert hive.failures() == {"t": "no_stable_rustbees"}
    assert hive.failure().message == "no stable rustbee serves 'qwen': a is healthy and silent"
    assert hive.waiting() == ["kept"]


def test_a_task_goes_back_to_a_well_worker_when_the_other_one_is_silent() -> None:
    hive = Hive("a", "b", slots=2)
    hive.submit("t")
    hive.cut("t")
    assert hive.starts() == [("t", "b", 2)]
    hive.waggle("a", slots=2)  # It is well again before the task needs it.
    hive.register("c", ready=False)
    hive.silent("c")
    hive.waggle("c", ready=False)  # It reports that it starts, and cannot be reached.
    hive.cut("t")
    assert hive.starts() == [("t", "a", 3)]


def test_a_task_barred_from_the_only_worker_that_is_heard_does_not_wait_forever() -> None:
    hive = Hive("a", "b")
    hive.submit("t")
    hive.silent("b")
    hive.cut("t", final=True)
    for _ in range(PATIENCE_MS // 1_000 + 2):
        hive.waggle("a")
        hive.waggle("b")
        hive.tick()
    assert not hive.is_open("t")


# Amnesty


def test_nobody_is_declared_dead_for_silence_during_the_amnesty() -> None:
    hive = Hive("a", "b", "c", "d", amnesty_until_ms=EXPIRY_MS + 11_000)
    hive.silent("a")
    assert (hive.last, hive.worker("a").silent, hive.worker("a").status) == ([], True, HEALTHY)
    hive.wait(EXPIRY_MS + 8_000)
    assert {hive.worker(name).status for name in "abcd"} == {SUSPECT}
    assert hive.alarms() == []
    hive.wait(2_000)  # Both sides of its end.
    assert dead(hive) == ["a", "b"]  # One was silent on both ways, of the others one in three may go.


def test_an_alarm_counts_during_the_amnesty() -> None:
    hive = Hive("a", amnesty_until_ms=60_000)
    hive.alarm("a")
    assert hive.worker("a").status is DEAD


def test_a_worker_that_was_silent_through_the_amnesty_gets_nothing_until_it_is_heard() -> None:
    hive = Hive("a", amnesty_until_ms=60_000)
    hive.silent("a")
    hive.submit("t")
    hive.tick(61_000)
    hive.waggle("a")
    assert hive.waiting() == ["t"]
    hive.heard("a")
    assert hive.starts() == [("t", "a", 1)]


# A queen who slept


@pytest.mark.parametrize("slept_ms", [LOOK_STEP_MS_MAX + 1, 150_000, 100 * EXPIRY_MS])
def test_a_queen_who_slept_buries_nobody(slept_ms: int) -> None:
    hive = Hive(*named(10))
    for _ in range(10):
        hive.tick(slept_ms)
        assert {worker.status for worker in hive.swarm.fleet} == {HEALTHY}
    assert hive.worker("w0").lease_age_ms == 10 * LOOK_STEP_MS_MAX


def test_both_sides_of_the_longest_step_a_look_may_age_a_lease() -> None:
    hive = Hive("a")
    hive.tick(LOOK_STEP_MS_MAX - 1)
    assert hive.worker("a").lease_age_ms == LOOK_STEP_MS_MAX - 1
    hive.waggle("a")
    assert hive.worker("a").lease_age_ms == 0
    hive.tick(LOOK_STEP_MS_MAX + 1)
    assert hive.worker("a").lease_age_ms == LOOK_STEP_MS_MAX


def test_the_first_look_ages_nothing_however_late_it_comes() -> None:
    hive = Hive()
    hive.swarm.roster._looked_at_ms = None
    hive.register("a")
    hive.tick(EXPIRY_MS)
    assert hive.worker("a").lease_age_ms == 0


def test_a_worker_of_which_nothing_came_is_still_buried_when_the_queen_is_awake() -> None:
    hive = Hive("a")
    hive.tick(10 * EXPIRY_MS)
    hive.wait(EXPIRY_MS)
    assert hive.worker("a").status is DEAD


def test_short_leases_of_starting_workers_age_no_faster_than_the_queen_is_awake() -> None:
    hive = Hive()
    hive.register("a", ready=False)
    for _ in range(5):
        hive.tick(60_000)
    assert hive.worker("a").status is STARTING
    hive.tick(60_000)
    assert hive.worker("a").status is DEAD


def test_a_high_task_may_wait_for_a_worker_held() -> None:
    hive = Hive("a", "b")
    hive.silent("a", "b")
    hive.submit("urgent", priority=HIGH)
    assert hive.waiting() == ["urgent"]
    hive.heard("b")
    assert hive.starts() == [("urgent", "b", 1)]
