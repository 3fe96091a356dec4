"""What the scaler learns and keeps: load times, speeds, delays, bounds."""

from __future__ import annotations

import pytest

from scale_bed import Kind, ScaleBed
from swarmesh.core import host_speeds, load_times, scale_books
from swarmesh.core.delays import HALF_LIFE_MS, Delays
from swarmesh.core.events import StreamEnded
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.host_speeds import HostSpeeds
from swarmesh.core.ids import HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.load_times import LIMIT_MS_MAX, LIMIT_MS_MIN, LIMIT_MS_UNKNOWN, TURN_MS_MIN, LoadTimes
from swarmesh.core.scale_books import ScaleBooks
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.supply import NoSupply
from swarmesh.core.task import Task

A, ELM, OAK = ModelName("a"), HostName("elm"), HostName("oak")


def test_load_times_move_halfway_to_the_newest_and_other_hosts_stand_in() -> None:
    loads = LoadTimes()
    assert loads.of(A, ELM) == loads.of(A) == 0
    assert loads.took(A, ELM, 8_000) == 8_000
    assert loads.took(A, ELM, 4_000) == 6_000
    assert (loads.of(A, ELM), loads.of(A, OAK)) == (6_000, 6_000)
    assert loads.turn_ms(A) == 18_000
    assert loads.turn_ms(ModelName("b")) == TURN_MS_MIN


def test_the_limit_of_a_start_grows_with_what_it_took_and_what_it_reads() -> None:
    loads = LoadTimes()
    assert loads.limit_ms(A, ELM, 100) == LIMIT_MS_UNKNOWN
    loads.took(A, ELM, 10_000)
    assert loads.limit_ms(A, ELM, 100) == LIMIT_MS_MIN
    assert loads.limit_ms(A, ELM, 40_000) == 800_000
    assert loads.limit_ms(A, OAK, 100) == LIMIT_MS_UNKNOWN, "what it took elsewhere says little"
    loads.overran(A, LIMIT_MS_MIN)
    assert loads.limit_ms(A, ELM, 100) == 2 * LIMIT_MS_MIN
    loads.took(A, ELM, 300_000)
    assert loads.limit_ms(A, ELM, 100) == 4 * 155_000
    loads.overran(A, LIMIT_MS_MAX)
    assert loads.limit_ms(A, ELM, 100) == loads.limit_ms(A, OAK, 100) == LIMIT_MS_MAX


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_times, "LOAD_TIMES_MAX", 2)
    loads = LoadTimes()
    for name in "abc":
        loads.known(ModelName(name), ELM, 1_000)
    assert [loads.of(ModelName(name)) for name in "abc"] == [0, 1_000, 1_000]
    monkeypatch.setattr(host_speeds, "SPEEDS_MAX", 2)
    speeds = HostSpeeds(Fleet())
    for name in "abc":
        speeds.keep(worker(name))
    assert [speeds.of(ModelName(name), ELM) for name in "abc"] == [0.0, 80.0, 80.0]
    monkeypatch.setattr(scale_books, "BOOKS_MAX", 3)
    books = ScaleBooks(Fleet())
    books.bound(ModelName(""), Bounds())
    for number in range(20):
        assert books.find(ModelName(f"m{number}")) is not None
    assert len(books.of_model) <= 3


def test_speeds_are_those_of_who_runs_there_else_of_who_did() -> None:
    fleet = Fleet()
    speeds = HostSpeeds(fleet)
    gone, here = worker("a", rated=40.0), worker("a", rated=90.0)
    speeds.keep(gone)
    assert speeds.of(A, ELM) == 40.0
    fleet.add(here)
    assert speeds.of(A, ELM) == 90.0
    here.pace.work = 0.0
    assert speeds.of(A, ELM) == 40.0
    assert speeds.of(A, OAK) == 0.0
    speeds.keep(here)
    assert speeds.of(A, ELM) == 40.0


def test_delays_fade_and_leave_out_who_waited_for_a_start() -> None:
    delays = Delays()
    delays.took(task(0), StreamEnded(TaskId("t"), 1))
    assert delays.mean_ms(A) == 0
    delays.watch(A)
    delays.fade(0)
    delays.took(task(1_000), StreamEnded(TaskId("t"), 1, first_token_ms=500))
    delays.took(task(3_000), StreamEnded(TaskId("t"), 1))
    assert delays.mean_ms(A) == 2_250
    delays.fade(HALF_LIFE_MS)
    delays.took(task(0), StreamEnded(TaskId("t"), 1))
    assert delays.mean_ms(A) == 1_125
    delays.fade(20 * HALF_LIFE_MS)
    assert delays.mean_ms(A) == 0
    delays.start_anew(A, 500_000)
    delays.took(task(9_000), StreamEnded(TaskId("t"), 1))
    assert delays.mean_ms(A) == 0
    delays.keep_only(())
    delays.start_anew(A, 0)
    assert delays.mean_ms(A) == 0


def test_bounds_of_a_model_go_before_those_of_all() -> None:
    books = ScaleBooks(Fleet())
    assert books.find(A) is None
    books.bound(ModelName(""), Bounds(0, 2))
    state = books.find(A)
    assert state is not None
    assert (state.bounds, state.own_bounds) == (Bounds(0, 2), False)
    books.bound(A, Bounds(1, 5))
    books.bound(ModelName(""), Bounds(0, 3))
    assert (state.bounds, state.own_bounds) == (Bounds(1, 5), True)
    books.bound(A, None)
    assert (state.bounds, state.own_bounds) == (Bounds(0, 3), False)
    books.bound(ModelName(""), None)
    assert state.bounds is None
    books.close_unbound()
    assert books.find(A) is None


def test_without_a_scaler_nobody_comes() -> None:
    supply = NoSupply()
    assert not supply.expects(A)
    assert supply.shortfall(A) is None
    assert supply.default_model() is None
    supply.asked(A, 0, [])


def test_a_task_that_names_no_model_brings_the_one_that_was_used_last() -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["b"] = Kind()
    bed.scale("a")
    bed.scale("b")
    bed.submit("b")
    bed.run(400_000)
    assert not bed.workers("b")
    bed.submit("")
    bed.run(8_000)
    assert len(bed.workers("b")) == 1
    assert not bed.failed


def worker(model: str, *, rated: float = 80.0) -> Worker:
    made = Worker(WorkerId(f"of-{model}"), ModelName(model), "cpu", ELM, "", 2, False, 0, WorkerStatus.HEALTHY)
    made.pace.work, made.pace.time_s, made.pace.rated = 1_000.0, 10.0, rated
    return made


def task(queue_ms: int) -> Task:
    return Task(TaskId("t"), A, Priority.MEDIUM, KeyId("k"), False, 0, 0, 400_000, Priority.MEDIUM, queue_ms=queue_ms)
