"""Up, down, to zero and back, within bounds, without flapping."""

from __future__ import annotations

import pytest

from scale_bed import Kind, ScaleBed
from swarmesh.core.commands import SeekSites, SpawnWorker
from swarmesh.core.events import (
    HostDrainRequested,
    LoadTimeKnown,
    SpawnProgressed,
    WorkerFellSilent,
    WorkerStopRequested,
)
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.scale_book import DOWN_COOL_DOWN_MS, REGRET_MS, UP_COOL_DOWN_MS
from swarmesh.core.scale_rule import IDLE_KEPT_MS, IDLE_MS
from swarmesh.core.scale_view import ScaleKind


def test_the_first_request_seeks_a_place_in_the_same_call_and_waits() -> None:
    bed = ScaleBed("elm").settle()
    bed.scale("a")
    assert bed.workers() == []
    task = bed.submit("a")
    assert [type(command) for command in bed.out] == [SeekSites]
    assert not bed.failed
    bed.run(8_000)
    assert task in bed.done
    assert bed.decisions() == [("up", 1, "first_request")]
    [decision] = bed.state().history
    assert decision.workers == (bed.workers()[0],)
    assert decision.reason == "1 task waits and no rustbee serves the modelcell"


def test_a_model_without_bounds_is_left_alone() -> None:
    bed = ScaleBed("elm").settle()
    task = bed.submit("a")
    assert bed.failed[task].code == "no_rustbees_available"
    assert not bed.seeks


def test_bounds_for_all_hold_for_every_known_model() -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["a"] = Kind()
    bed.scale("")
    task = bed.submit("a")
    bed.run(8_000)
    assert task in bed.done
    assert bed.state().own_bounds is False
    bed.unscale("")
    bed.run(IDLE_MS * 2)
    assert len(bed.workers()) == 1


def test_the_minimum_is_filled_at_once_and_kept() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.scale("a", 2, 3)
    bed.run(7_000)
    assert bed.serving() == 2
    assert bed.decisions() == [("up", 2, "min")]
    bed.end_worker(bed.workers()[0], "killed")
    bed.run(9_000)
    assert bed.serving() == 2


def test_high_load_wants_more_and_low_load_one_less() -> None:
    bed = ScaleBed("elm", "oak", "ash", "fir").settle()
    bed.kinds["a"] = Kind(need_mib=2_000, slots=20, task_ms=4_000)
    bed.scale("a", 1, 8)
    bed.run(40_000)
    bed.load("a", 4.3, 200_000)
    bed.run(180_000)
    assert bed.decisions() == [("up", 1, "min"), ("up", 1, "load")], "at 0.86 two are enough"
    assert bed.serving() == 2
    bed.run(1_500_000)
    assert bed.serving() == 1
    assert not bed.stopped_busy
    assert not bed.failed


def test_nothing_goes_beyond_the_bounds() -> None:
    bed = ScaleBed("elm", "oak", "ash").settle()
    bed.kinds["a"] = Kind(slots=1, task_ms=3_000)
    bed.scale("a", 0, 2)
    for _ in range(60):
        bed.submit("a", durable=True)
    most = 0
    for _ in range(60):
        bed.run(1_000)
        most = max(most, len(bed.workers()))
    assert most == 2
    assert "no more than 2 are allowed" in (bed.state().last or pytest.fail("no decision")).reason


def test_a_deep_queue_brings_more_than_one_but_at_most_doubles() -> None:
    bed = ScaleBed("elm", "oak", "ash", "fir").settle()
    bed.kinds["a"] = Kind(need_mib=1_000, slots=2, task_ms=20_000)
    bed.scale("a", 0, 20)
    for _ in range(150):
        bed.submit("a", durable=True)
    bed.run(10_000)
    first = bed.serving()
    bed.run(60_000)
    counts = [count for _, count, _ in bed.decisions()]
    assert first >= 1
    assert all(count <= max(2, before) for before, count in zip([0, first, first * 2], counts, strict=False))
    assert bed.serving() > first


def test_to_zero_after_five_idle_minutes_and_not_before() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.scale("a", 0, 2)
    bed.submit("a")
    bed.run_until(lambda: bed.serving() == 1)
    bed.run_until(lambda: bed.done)
    waited_ms = bed.run_until(lambda: not bed.workers())
    assert IDLE_MS - 1_000 <= waited_ms <= IDLE_MS + 3_000
    assert bed.decisions()[-1] == ("down", 1, "idle")
    bed.run(5_000)
    assert bed.state().action is None
    task = bed.submit("a")
    bed.run(7_000)
    assert task in bed.done


def test_a_request_during_the_stop_of_the_last_worker_is_served() -> None:
    bed = ScaleBed(elm=5_000).settle()
    bed.stop_ms = 20_000
    bed.scale("a")
    bed.submit("a")
    bed.run_until(lambda: bed.done)
    bed.run_until(lambda: not bed.workers())
    task = bed.submit("a")
    bed.run(40_000)
    assert task in bed.done
    assert not bed.failed


def test_cool_downs_are_kept_and_told() -> None:
    bed = ScaleBed("elm", "oak", "ash", "fir").settle()
    bed.kinds["a"] = Kind(need_mib=1_000, slots=1, task_ms=60_000)
    bed.scale("a", 1, 20)
    bed.run_until(lambda: bed.serving() == 1)
    for _ in range(30):
        bed.submit("a", durable=True)
    bed.run(10_000)
    assert bed.state().blocked.startswith("cool-down: no rustbee is started for another ")
    assert 0 < bed.state().up_in_ms <= UP_COOL_DOWN_MS
    took_ms = bed.run_until(lambda: len(bed.workers()) > 1)
    assert UP_COOL_DOWN_MS - 12_000 <= took_ms <= UP_COOL_DOWN_MS
    assert 0 < bed.state().down_in_ms <= DOWN_COOL_DOWN_MS


def test_a_stop_that_was_a_mistake_forbids_the_next() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.kinds["a"] = Kind(need_mib=1_000, slots=2, task_ms=1_000)
    bed.scale("a", 1, 4)
    bed.run_until(lambda: bed.serving() == 1)
    bed.load("a", 2.5, 60_000)
    bed.run_until(lambda: bed.serving() > 1)
    bed.run_until(lambda: bed.decisions()[-1][0] == "down", limit_ms=2_000_000)
    bed.load("a", 40, 30_000)
    bed.run_until(lambda: bed.decisions()[-1][0] == "up")
    assert bed.state().down_in_ms > DOWN_COOL_DOWN_MS
    bed.run_until(lambda: bed.decisions()[-1][0] == "down", limit_ms=3_000_000)
    down, up = bed.state().history[:2]
    assert down.at_ms - up.at_ms >= REGRET_MS


def test_a_burst_of_seconds_on_a_small_worker_brings_nobody() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.kinds["a"] = Kind(need_mib=1_000, slots=1, task_ms=4_000)
    bed.scale("a", 1, 6)
    bed.run_until(lambda: bed.serving() == 1)
    for _ in range(20):
        bed.submit("a")
        bed.run(60_000)
    assert bed.decisions() == [("up", 1, "min")]


def test_after_a_stop_more_come_only_for_tasks_that_wait() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.kinds["a"] = Kind(need_mib=1_000, slots=10, task_ms=1_000)
    bed.scale("a", 1, 2)
    bed.run_until(lambda: bed.serving() == 1)
    bed.load("a", 20, 60_000)
    bed.run_until(lambda: bed.serving() == 2)
    bed.run_until(lambda: bed.decisions()[-1][0] == "down", limit_ms=2_000_000)
    bed.run(60_000)
    bed.load("a", 8.9, 200_000)
    bed.run(180_000)
    assert bed.decisions()[-1][0] == "down"
    assert bed.state().blocked.startswith("cool-down: no rustbee is started for another ")
    bed.load("a", 20, 60_000)
    bed.run(60_000)
    assert bed.decisions()[-1][0] == "up"


def test_all_but_the_minimum_go_when_nobody_has_asked_for_ten_minutes() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.kinds["a"] = Kind(need_mib=1_000, slots=2, task_ms=1_000)
    bed.scale("a", 1, 6)
    bed.run_until(lambda: bed.serving() == 1)
    bed.load("a", 12, 120_000)
    bed.run(120_000)
    bed.run_until(lambda: not bed.swarm.dispatcher.tasks)
    assert bed.serving() > 3
    bed.run(IDLE_KEPT_MS + 5_000)
    assert bed.serving() == 1


def test_lowered_bounds_stop_idle_workers_and_never_a_busy_one() -> None:
    bed = ScaleBed("elm", "oak", "ash").settle()
    bed.kinds["a"] = Kind(slots=1, task_ms=50_000)
    bed.scale("a", 3, 3)
    bed.run_until(lambda: bed.serving() == 3)
    bed.submit("a")
    bed.submit("a")
    bed.scale("a", 0, 1)
    bed.run(10_000)
    assert bed.serving() == 2
    assert bed.state().blocked == "every rustbee of it is in use"
    bed.run(60_000)
    assert bed.serving() == 1
    assert not bed.stopped_busy
    assert [rule for _, _, rule in bed.decisions()[1:]] == ["max", "max"]


def test_a_raised_minimum_needs_no_cool_down() -> None:
    bed = ScaleBed("elm", "oak", "ash").settle()
    bed.scale("a", 1, 3)
    bed.run_until(lambda: bed.serving() == 1)
    bed.scale("a", 3, 3)
    assert bed.run_until(lambda: bed.serving() == 3) < 8_000


def test_paused_begins_nothing_but_ends_what_is_under_way() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.scale("a", 1, 2)
    bed.run(1_000)
    bed.pause()
    bed.run(10_000)
    assert bed.serving() == 1
    bed.end_worker(bed.workers()[0], "killed")
    bed.run(10_000)
    assert (bed.serving(), bed.state().blocked) == (0, "paused")
    task = bed.submit("a")
    assert bed.failed[task].message == "no rustbee serves 'a', and scaling is paused"
    bed.pause(paused=False)
    bed.run(10_000)
    assert bed.serving() == 1
    bed.scale("a", 2, 2, paused=True)
    bed.run(10_000)
    assert bed.serving() == 1


def test_a_queen_that_has_just_started_waits_for_workers_that_are_there() -> None:
    bed = ScaleBed("elm", "oak")
    bed.scale("a", 1, 1)
    task = bed.submit("a")
    bed.run(4_000)
    assert not bed.seeks
    assert "has just started" in bed.state().blocked
    bed.adopt("old", "a", "elm")
    bed.run(20_000)
    assert task in bed.done
    assert bed.workers() == ["old"]
    assert not bed.seeks


def test_after_that_a_first_request_is_not_forgotten() -> None:
    bed = ScaleBed("elm")
    bed.scale("a")
    task = bed.submit("a")
    bed.run(20_000)
    assert task in bed.done


def test_a_worker_stopped_by_hand_is_replaced_below_the_minimum() -> None:
    bed = ScaleBed("elm").settle()
    bed.scale("a", 1, 1)
    bed.run_until(lambda: bed.serving() == 1)
    [before] = bed.workers()
    bed.handle(WorkerStopRequested(WorkerId(before), 0))
    bed.run(20_000)
    assert bed.serving() == 1
    assert bed.workers() != [before]
    assert bed.state().breaker_reason == ""


def test_a_drained_host_does_not_count() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.scale("a", 1, 1)
    bed.run_until(lambda: bed.serving() == 1)
    home = bed.homes[bed.workers()[0]]
    bed.machines[home].facts["draining"] = True
    bed.handle(HostDrainRequested(HostName(home), 60_000))
    bed.run(10_000)
    [worker] = bed.workers()
    assert bed.homes[worker] != home
    assert bed.serving() == 1


def test_a_silent_worker_is_neither_replaced_beyond_the_maximum_nor_free() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.kinds["a"] = Kind(slots=2, task_ms=60_000)
    bed.scale("a", 1, 3)
    bed.run_until(lambda: bed.serving() == 1)
    bed.run(60_000)
    [worker] = bed.workers()
    other = bed.swarm.fleet.get(WorkerId(worker))
    assert other is not None
    bed.handle(WorkerFellSilent(WorkerId(worker), "nothing heard"))
    bed.submit("a", durable=True)
    bed.run(30_000)
    assert len(bed.workers()) > 1


def test_unknown_load_is_not_zero_load() -> None:
    bed = ScaleBed("elm").settle()
    bed.scale("a", 0, 1)
    bed.adopt("mute", "a", "elm")
    worker = bed.swarm.fleet.get(WorkerId("mute"))
    assert worker is not None
    bed.alive.pop("mute")
    worker.reported = False
    worker.interval_ms = 10_000_000
    bed.run(IDLE_MS * 2)
    assert bed.workers() == ["mute"]
    worker.reported = True
    bed.run(IDLE_MS)
    assert bed.workers() == []


def test_an_adopted_server_is_never_stopped() -> None:
    bed = ScaleBed("elm").settle()
    bed.scale("a", 0, 1)
    bed.adopt("ollama", "a", "elm")
    worker = bed.swarm.fleet.get(WorkerId("ollama"))
    assert worker is not None
    worker.direct = True
    bed.run(IDLE_MS * 3)
    assert bed.workers() == ["ollama"]


def test_load_times_are_learned_and_recorded() -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["a"] = Kind(load_ms=7_500)
    bed.handle(LoadTimeKnown(ModelName("a"), HostName("elm"), 3_500))
    bed.scale("a")
    bed.submit("a")
    bed.run(2_000)
    action = bed.state().action
    assert action is not None
    assert (action.kind, action.phase, action.host, action.load_ms) == (ScaleKind.UP, "loading", "elm", 3_500)
    assert action.words == "loading a on elm, which took 3.5 s before"
    bed.run(8_000)
    [recorded] = bed.load_times
    assert recorded.load_ms == 5_500


def test_a_file_that_is_copied_does_not_count_as_load_time() -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["a"] = Kind(load_ms=35_000)
    bed.scale("a")
    bed.submit("a")
    bed.run(1_000)
    for _ in range(3):
        bed.run(10_000)
        bed.handle(SpawnProgressed(WorkerId(bed.spawned[0])))
    bed.run(10_000)
    [recorded] = bed.load_times
    assert recorded.load_ms < 6_000


def test_only_one_action_is_under_way_and_more_are_placed_without_waiting_for_each() -> None:
    bed = ScaleBed("elm", "oak", "ash").settle()
    bed.kinds["a"] = Kind(load_ms=30_000)
    bed.scale("a", 3, 3)
    bed.run(3_000)
    assert len(bed.spawned) == 3
    assert bed.run_until(lambda: bed.serving() == 3) < 30_000
    assert len(bed.state().history) == 1


def test_a_worker_spawned_by_hand_meanwhile_counts() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.scale("a", 0, 1)
    bed.submit("a")
    bed.adopt("mine", "a", "oak")
    bed.run(10_000)
    assert bed.workers() == ["mine"]
    assert not any(isinstance(command, SpawnWorker) for command in bed.out)
    assert bed.spawned == []
    assert bed.state().action is None
