"""The life of workers: registered, heard of, suspected, alarmed, dead and back again."""

from __future__ import annotations

import pytest

from roster_bed import DEAD, DEMO, DRAINING, EXPIRY_MS, HEALTHY, OAK, QWEN, STARTING, SUSPECT, A, B, Hive
from swarmesh.core.commands import BreakStream, RaiseAlarm, StartStream
from swarmesh.core.events import WorkerRegistered, WorkerWaggled
from swarmesh.core.liveness import OVERDUE_FACTOR, WorkerStatus
from swarmesh.core.roster import REST_INTERVAL_MS, STARTING_INTERVAL_MS

OVERDUE_MS = int(REST_INTERVAL_MS * OVERDUE_FACTOR)


def test_a_registered_worker_serves_from_the_first_ready_report() -> None:
    hive = Hive()
    hive.register(ready=False)
    assert (hive.worker().status, hive.worker().interval_ms) == (STARTING, STARTING_INTERVAL_MS)
    hive.submit()
    assert hive.last == []
    hive.waggle()
    assert [start.task_id for start in hive.all(StartStream)] == ["t1"]
    assert (hive.worker().status, hive.worker().interval_ms) == (HEALTHY, REST_INTERVAL_MS)


def test_a_waggle_is_taken_in() -> None:
    hive = Hive(A)
    hive.now_ms += 10
    hive.waggle(slots=5)
    worker = hive.worker()
    assert (worker.load_ratio, worker.vram_used_mib, worker.quality) == (0.25, 300, 0.5)
    assert (worker.engine_pid, worker.slots, worker.last_waggle_ms) == (77, 5, hive.now_ms)


def test_a_waggle_without_a_backend_keeps_the_known_one() -> None:
    hive = Hive(A)
    hive.tell(WorkerWaggled(A, True, 0.0, 0, 1.0, 1, 2, "metal"))
    hive.waggle()
    assert hive.worker().backend == "metal"


def test_an_unknown_waggle_changes_nothing() -> None:
    hive = Hive()
    assert hive.waggle() == []
    assert len(hive.swarm.fleet) == 0


def test_more_slots_in_a_waggle_are_used_at_once() -> None:
    hive = Hive(A, slots=1)
    hive.submit(3)
    hive.waggle(slots=2)
    assert [start.task_id for start in hive.all(StartStream)] == ["t2"]


def test_fewer_slots_in_a_waggle_end_nothing_and_start_nothing() -> None:
    hive = Hive(A)
    hive.submit(3)
    hive.waggle(slots=1)
    assert hive.last == []
    hive.end("t1")
    assert hive.last == []
    hive.end("t2")
    assert [start.task_id for start in hive.all(StartStream)] == ["t3"]


def test_no_slots_at_all_is_busy_and_not_an_error() -> None:
    hive = Hive(A)
    hive.waggle(slots=0)
    hive.submit()
    assert hive.last == []
    hive.waggle(slots=1)
    assert len(hive.all(StartStream)) == 1


def test_registering_again_keeps_identity_books_and_turn() -> None:
    hive = Hive(A, B)
    hive.submit(2)
    before = hive.worker()
    hive.register(A, pid=42)
    after = hive.worker()
    assert (after.running, after.backlog, after.last_chosen) == (before.running, before.backlog, before.last_chosen)
    assert (after.pid, after.status, list(hive.swarm.fleet.of_model(QWEN))) == (42, HEALTHY, [A, B])
    hive.end("t1")
    assert (after.running, after.backlog) == ({}, 0.0)


def test_registering_again_as_starting_stops_new_tasks() -> None:
    hive = Hive(A)
    hive.register(A, ready=False)
    hive.submit()
    assert hive.last == []
    assert hive.worker().status is STARTING


def test_a_worker_that_comes_back_with_another_model_gives_its_tasks_up() -> None:
    hive = Hive(A, B)
    hive.submit(2)
    hive.register(A, model=DEMO)
    assert [broken.task_id for broken in hive.all(BreakStream)] == ["t1"]
    assert (hive.worker(A).running, hive.worker(A).backlog) == ({}, 0.0)
    hive.cut("t1")
    assert [(start.task_id, start.worker_id) for start in hive.all(StartStream)] == [("t1", B)]


@pytest.mark.parametrize("status", [STARTING, HEALTHY, SUSPECT, DRAINING, DEAD])
def test_an_alarm_is_death_at_once_and_breaks_every_stream(status: WorkerStatus) -> None:
    hive = Hive(A)
    hive.submit(2)
    hive.worker().status = status
    hive.alarm()
    assert hive.worker().status is DEAD
    assert [(alarm.worker_id, alarm.code) for alarm in hive.all(RaiseAlarm)] == [(A, "engine_died")]
    broken = [(stream.task_id, stream.attempt, stream.code) for stream in hive.all(BreakStream)]
    assert broken == [("t2", 1, "engine_died"), ("t1", 1, "engine_died")]


def test_an_alarm_of_a_stranger_is_passed_on() -> None:
    hive = Hive()
    hive.alarm()
    assert [type(command) for command in hive.last] == [RaiseAlarm]


def test_a_dead_worker_that_reports_again_is_the_same_worker() -> None:
    hive = Hive(A)
    hive.alarm()
    hive.waggle()
    assert hive.worker().status is HEALTHY
    hive.submit()
    assert [start.worker_id for start in hive.all(StartStream)] == [A]


def test_tasks_may_wait_for_a_worker_that_returns_by_itself() -> None:
    hive = Hive(A)
    hive.alarm(returning=True)
    hive.submit()
    assert hive.last == []
    hive.waggle(ready=False)
    assert (hive.worker().status, hive.worker().returning) == (STARTING, False)
    hive.waggle()
    assert len(hive.all(StartStream)) == 1


def test_a_worker_that_does_not_return_in_time_is_not_waited_for() -> None:
    hive = Hive(A)
    hive.alarm(returning=True)
    hive.tick(EXPIRY_MS)
    assert hive.worker().may_serve
    hive.tick(1)
    assert [alarm.code for alarm in hive.all(RaiseAlarm)] == ["lease_expired"]
    assert not hive.worker().may_serve
    assert hive.tick(EXPIRY_MS) == []


def test_both_sides_of_both_lease_deadlines() -> None:
    hive = Hive(A)
    hive.submit()
    assert hive.tick(OVERDUE_MS) == []
    assert hive.worker().status is HEALTHY
    assert hive.tick(1) == []
    assert hive.worker().status is SUSPECT
    hive.tick(EXPIRY_MS - OVERDUE_MS - 1)
    assert hive.worker().status is SUSPECT
    hive.tick(1)
    assert hive.worker().status is DEAD
    assert [alarm.code for alarm in hive.all(RaiseAlarm)] == ["lease_expired"]
    assert [broken.task_id for broken in hive.all(BreakStream)] == ["t1"]
    assert hive.tick(EXPIRY_MS) == []


def test_a_waggle_renews_the_lease_of_a_suspect() -> None:
    hive = Hive(A)
    hive.tick(OVERDUE_MS + 1)
    hive.waggle()
    assert hive.worker().status is HEALTHY
    hive.tick(OVERDUE_MS)
    assert hive.worker().status is HEALTHY


def test_an_overdue_worker_that_never_was_ready_gets_no_task() -> None:
    hive = Hive()
    hive.register(ready=False)
    hive.tick(int(STARTING_INTERVAL_MS * OVERDUE_FACTOR) + 1)
    hive.submit()
    assert hive.last == []
    assert hive.worker().status is STARTING


def test_uptime_survives_a_registration() -> None:
    hive = Hive()
    hive.now_ms = 100_000
    hive.tell(WorkerRegistered(A, QWEN, "cpu", OAK, "unix:/w", 1, ready=True, uptime_ms=60_000))
    assert hive.worker().registered_at_ms == 40_000
