"""Starts that fail: tried again, given up for a while, told to those who wait."""

from __future__ import annotations

import pytest

from scale_bed import Kind, ScaleBed
from swarmesh.core.breaker import FAILURES_MAX, OPEN_MS, OPEN_MS_MAX, Breaker
from swarmesh.core.events import (
    LoadTimeKnown,
    SitesFound,
    SpawnProgressed,
    WorkerAlarmed,
    WorkerRegistered,
    WorkerStopRequested,
    WorkerWaggled,
)
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.load_times import LIMIT_MS_MIN, LIMIT_MS_UNKNOWN, SILENT_MS_MAX
from swarmesh.core.scale_action import SEEK_LIMIT_MS
from swarmesh.core.scale_fresh import FRESH_MS


def test_three_failures_in_a_row_open_it_and_each_trial_doubles_the_time() -> None:
    breaker = Breaker()
    now_ms = 1_000
    assert [breaker.failed({"elm": "no"}, now_ms) for _ in range(FAILURES_MAX)] == [False, False, True]
    lengths = []
    for _ in range(8):
        lengths.append(breaker.left_ms(now_ms))
        assert breaker.holds(now_ms)
        now_ms += breaker.left_ms(now_ms)
        assert breaker.left_ms(now_ms) == 0
        assert breaker.failed({"elm": "still no"}, now_ms)
    assert lengths[:3] == [OPEN_MS, OPEN_MS * 2, OPEN_MS * 4]
    assert max(lengths) == OPEN_MS_MAX
    assert breaker.in_words() == "elm: still no"
    breaker.succeeded()
    assert not breaker.holds(now_ms)
    assert not breaker.failed({}, now_ms)


def test_starts_that_fail_open_the_breaker_and_tell_those_who_wait() -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["a"] = Kind(fails="no such engine", load_ms=1_000)
    bed.scale("a")
    waiting = bed.submit("a")
    durable = bed.submit("a", durable=True)
    bed.run_until(lambda: bed.failed)
    assert len(bed.spawned) == FAILURES_MAX
    error = bed.failed[waiting]
    assert (error.code, error.status) == ("model_cannot_be_placed", 503)
    assert "elm: no such engine" in error.message
    assert error.retry_after_s == OPEN_MS // 1_000
    assert bed.alarms[-1].code == "model_cannot_be_placed"
    assert durable in bed.swarm.dispatcher.tasks
    later = bed.submit("a")
    assert bed.failed[later].code == "model_cannot_be_placed"
    assert bed.state().breaker_ms > 0
    assert bed.state().blocked.startswith("breaker: not tried for another ")
    bed.kinds["a"].fails = ""
    bed.run(OPEN_MS + 10_000)
    assert durable in bed.done
    bed.run(FRESH_MS)
    assert bed.state().breaker_reason == ""


def test_new_bounds_close_the_breaker() -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["a"] = Kind(fails="no such engine", load_ms=1_000)
    bed.scale("a")
    bed.submit("a")
    bed.run_until(lambda: bed.failed)
    bed.kinds["a"].fails = ""
    bed.scale("a", 0, 2)
    task = bed.submit("a")
    bed.run(5_000)
    assert task in bed.done


def test_a_model_that_fits_nowhere_is_refused_with_the_numbers() -> None:
    bed = ScaleBed(elm=2_000, oak=3_000).settle()
    bed.scale("a")
    task = bed.submit("a")
    bed.run(20_000)
    message = bed.failed[task].message
    assert "elm: needs 4000 MiB and has 1840 MiB of ram free" in message
    assert "oak: needs 4000 MiB and has 2760 MiB of ram free" in message
    placement = bed.state().placement
    assert placement is not None
    assert placement.choice is None


def test_what_no_place_can_mend_opens_it_at_once() -> None:
    bed = ScaleBed("elm").settle()
    bed.answers_seeks = False
    bed.scale("a")
    task = bed.submit("a")
    bed.handle(SitesFound(ModelName("a"), bed.seeks[-1].action, (), ((HostName(""), "its file is gone"),)))
    assert "its file is gone" in bed.failed[task].message


def test_hosts_that_cannot_be_asked_are_named() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.scale("a")
    bed.machines["elm"].down = "the connection broke"
    bed.machines["oak"].facts["usable"] = False
    task = bed.submit("a")
    bed.run_until(lambda: bed.failed)
    assert "elm: the connection broke" in bed.failed[task].message
    assert "oak: not connected" in bed.failed[task].message


def test_an_answer_that_never_comes_is_a_failure() -> None:
    bed = ScaleBed("elm").settle()
    bed.answers_seeks = False
    bed.scale("a")
    task = bed.submit("a")
    took_ms = bed.run_until(lambda: task in bed.failed)
    assert took_ms < (SEEK_LIMIT_MS + 15_000) * FAILURES_MAX
    assert "no host has said within 60 s" in bed.failed[task].message


def test_a_late_answer_starts_nothing() -> None:
    bed = ScaleBed("elm").settle()
    bed.scale("a")
    bed.submit("a")
    action = bed.seeks[-1].action
    bed.run(8_000)
    bed.handle(SitesFound(ModelName("a"), action, ()))
    bed.handle(SitesFound(ModelName("nobody"), action, ()))
    assert len(bed.spawned) == 1
    assert bed.state().breaker_reason == ""


@pytest.mark.parametrize("learned_ms", [0, 60_000])
def test_a_start_of_which_nothing_is_heard_has_a_short_limit(learned_ms: int) -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["a"] = Kind(hangs=True)
    bed.handle(LoadTimeKnown(ModelName("a"), HostName("elm"), learned_ms))
    bed.scale("a")
    task = bed.submit("a")
    bed.run(1_000)
    first = bed.spawned[0]
    took_ms = bed.run_until(lambda: first not in bed.workers())
    assert SILENT_MS_MAX - 1_000 <= took_ms <= SILENT_MS_MAX + 2_000
    bed.run_until(lambda: bed.failed, limit_ms=2_000_000)
    assert "nothing was heard of it for 120 s" in bed.failed[task].message
    bed.run(10_000)
    assert not bed.workers()
    [pool] = bed.swarm.memory.free(HostName("elm"))
    assert pool.free_mib == 9_200


def test_a_first_start_may_load_for_minutes_while_its_agent_reports() -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["a"] = Kind(hangs=True)
    bed.scale("a")
    task = bed.submit("a")
    bed.run(1_000)
    load(bed, bed.spawned[0], 600_000)
    assert bed.workers() == bed.spawned
    assert not bed.failed
    bed.register(bed.spawned[0])
    bed.run(2_000)
    assert task in bed.done
    assert 600_000 <= bed.load_times[0].load_ms < 610_000


@pytest.mark.parametrize(("learned_ms", "limit_ms"), [(0, LIMIT_MS_UNKNOWN), (10_000, LIMIT_MS_MIN)])
def test_one_that_reports_and_is_never_ready_is_given_up_in_the_end(learned_ms: int, limit_ms: int) -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["a"] = Kind(hangs=True)
    bed.handle(LoadTimeKnown(ModelName("a"), HostName("elm"), learned_ms))
    bed.scale("a")
    bed.submit("a")
    bed.run(1_000)
    first = bed.spawned[0]
    load(bed, first, limit_ms - 5_000)
    assert bed.workers() == [first]
    load(bed, first, 10_000)
    assert first not in bed.workers()
    assert f"it was not ready after {limit_ms // 1_000} s" in bed.state().breaker_reason


def load(bed: ScaleBed, worker_id: str, for_ms: int) -> None:
    """A worker's agent is there, and says every 2 s that it is not ready."""
    at = WorkerId(worker_id), ModelName("a"), "cpu", HostName("elm"), "elm:1", 2
    bed.handle(WorkerRegistered(*at, ready=False, need_mib=bed.kinds["a"].need_mib))
    for _ in range(for_ms // 2_000):
        bed.run(2_000)
        bed.handle(WorkerWaggled(WorkerId(worker_id), False, 0.0, 0, 1.0, 1, 2))


@pytest.mark.parametrize("proof", ["task", "stop"])
def test_a_worker_that_has_ended_a_task_or_was_stopped_ends_a_row_of_failures(proof: str) -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["a"] = Kind(load_ms=1_000, task_ms=500)
    bed.scale("a")
    tasks = []
    for _ in range(2 * FAILURES_MAX):
        bed.kinds["a"].fails = "out of luck"
        tasks.append(bed.submit("a", durable=proof == "stop"))
        bed.run_until(lambda: bed.state().breaker_reason)
        bed.kinds["a"].fails = ""
        bed.run_until(lambda: bed.serving() == 1)
        if proof == "task":
            bed.run_until(lambda: tasks[-1] in bed.done)
            bed.end_worker(bed.workers()[0], "killed")
        else:
            bed.handle(WorkerStopRequested(WorkerId(bed.workers()[0]), 10_000))
        bed.run(1_000)
        assert bed.state().breaker_reason == ""
    assert not bed.failed


def test_signs_of_progress_keep_a_start_alive() -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["a"] = Kind(hangs=True)
    bed.scale("a")
    task = bed.submit("a")
    bed.run(1_000)
    for _ in range(30):
        bed.run(20_000)
        bed.handle(SpawnProgressed(WorkerId(bed.spawned[0])))
    assert bed.workers() == bed.spawned
    assert not bed.failed
    bed.register(bed.spawned[0])
    bed.run(2_000)
    assert task in bed.done


def test_a_host_where_a_start_failed_is_not_tried_again_before_the_others() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.machines["elm"].facts["file_there"] = True
    bed.kinds["a"] = Kind(load_ms=1_000, fails="no such engine")
    bed.scale("a")
    task = bed.submit("a")
    bed.run(1_000)
    assert bed.homes == {bed.spawned[0]: "elm"}
    bed.run(500)
    bed.kinds["a"].fails = ""
    bed.run(10_000)
    assert task in bed.done
    assert bed.homes[bed.workers()[0]] == "oak"
    placement = bed.state().placement
    assert placement is not None
    assert placement.vetoes == {"elm": "the last start there failed, so others come first"}


def test_a_worker_that_dies_while_it_loads_is_tried_again() -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["a"] = Kind(load_ms=10_000)
    bed.scale("a")
    task = bed.submit("a")
    bed.run(3_000)
    bed.handle(WorkerAlarmed(WorkerId(bed.spawned[0]), "engine_gave_up", "the engine crashed 3 times"))
    bed.end_worker(bed.spawned[0], "it exited")
    assert bed.state().breaker_reason == "elm: the engine crashed 3 times"
    bed.run(20_000)
    assert task in bed.done


def test_workers_that_always_crash_soon_after_they_are_ready_do_not_loop_for_ever() -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["a"] = Kind(load_ms=1_000, dies_after_ms=2_000)
    bed.scale("a", 1, 1)
    bed.run(600_000)
    assert len(bed.spawned) <= FAILURES_MAX + 6
    assert "ended 2 s after it was ready: its engine crashed" in bed.state().breaker_reason


def test_the_death_of_the_last_worker_loses_no_interactive_task() -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["a"] = Kind(task_ms=20_000)
    bed.scale("a", 0, 1)
    task = bed.submit("a")
    bed.run(100_000)
    task = bed.submit("a")
    bed.run(2_000)
    bed.end_worker(bed.workers()[0], "killed")
    bed.run(40_000)
    assert task in bed.done
    assert not bed.failed


def test_failed_starts_of_one_more_fail_nobody_who_is_served() -> None:
    bed = ScaleBed("elm", "oak", "ash").settle()
    bed.kinds["a"] = Kind(slots=1, task_ms=2_000)
    bed.scale("a", 1, 3)
    bed.run_until(lambda: bed.serving() == 1)
    bed.kinds["a"].fails = "no more licences"
    bed.load("a", 0.48, 300_000)
    bed.run(400_000)
    assert not bed.failed
    assert bed.serving() == 1
