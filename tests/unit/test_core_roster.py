"""The life of workers: spawned, registered, suspected, alarmed, drained, gone."""

from __future__ import annotations

from typing import TypeVar

import pytest

from swarmesh.core.commands import (
    BreakStream,
    Command,
    ForgetWorker,
    RaiseAlarm,
    RefuseSpawn,
    SpawnWorker,
    StartStream,
    StopWorker,
)
from swarmesh.core.events import (
    Event,
    GpuMemory,
    HostProbed,
    SpawnFailed,
    SpawnProgressed,
    SpawnRequested,
    StreamBroke,
    StreamEnded,
    TaskSubmitted,
    Ticked,
    WorkerAlarmed,
    WorkerGone,
    WorkerRegistered,
    WorkerStopRequested,
    WorkerWaggled,
)
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import Blame, HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.liveness import EXPIRY_FACTOR, OVERDUE_FACTOR, WorkerStatus
from swarmesh.core.roster import LOOK_STEP_MS_MAX, REST_INTERVAL_MS, STARTING_INTERVAL_MS, STOP_RETRY_MS
from swarmesh.core.swarm import Swarm

C = TypeVar("C", bound=Command)
A, B = WorkerId("a"), WorkerId("b")
QWEN, DEMO, OAK = ModelName("qwen"), ModelName("demo"), HostName("oak")
OVERDUE_MS = int(REST_INTERVAL_MS * OVERDUE_FACTOR)
EXPIRY_MS = int(REST_INTERVAL_MS * EXPIRY_FACTOR)
DEAD, DRAINING, HEALTHY = WorkerStatus.DEAD, WorkerStatus.DRAINING, WorkerStatus.HEALTHY
STARTING, SUSPECT = WorkerStatus.STARTING, WorkerStatus.SUSPECT


class Hive:
    """A swarm and the time; every call tells it one fact and keeps the commands."""

    def __init__(self, *ready: WorkerId, slots: int = 2) -> None:
        self.swarm = Swarm()
        self.now_ms = 1_000
        self.last: list[Command] = []
        self.made = 0
        self.tell(Ticked())  # The first look sets the clock, and ages nothing.
        for name in ready:
            self.register(name, slots=slots)

    def tell(self, event: Event) -> list[Command]:
        self.last = self.swarm.handle(event, self.now_ms)
        return self.last

    def register(
        self, name: WorkerId = A, *, slots: int = 2, model: ModelName = QWEN, ready: bool = True, pid: int = 0
    ) -> list[Command]:
        return self.tell(WorkerRegistered(name, model, "cpu", OAK, "unix:/w", slots, ready, pid=pid))

    def waggle(self, name: WorkerId = A, *, ready: bool = True, slots: int = 2) -> list[Command]:
        return self.tell(WorkerWaggled(name, ready, 0.25, 300, 0.5, 77, slots))

    def submit(self, count: int = 1) -> list[Command]:
        for _ in range(count):
            self.made += 1
            self.tell(TaskSubmitted(TaskId(f"t{self.made}"), QWEN, Priority.MEDIUM, KeyId("k"), 40, 10))
        return self.last

    def alarm(self, name: WorkerId = A, *, returning: bool = False) -> list[Command]:
        return self.tell(WorkerAlarmed(name, "engine_died", "signal 9", returning))

    def stop(self, name: WorkerId = A, grace_ms: int = 5_000) -> list[Command]:
        return self.tell(WorkerStopRequested(name, grace_ms))

    def gone(self, name: WorkerId = A) -> list[Command]:
        return self.tell(WorkerGone(name, "exit status 1"))

    def spawn(self, name: WorkerId = A, need_mib: int = 4_000) -> list[Command]:
        return self.tell(SpawnRequested(name, QWEN, "cpu", OAK, 2, need_mib))

    def tick(self, after_ms: int) -> list[Command]:
        """So much time passes, and the queen is awake for all of it."""
        told: list[Command] = []
        while after_ms > 0:
            step_ms = min(after_ms, LOOK_STEP_MS_MAX)
            self.now_ms += step_ms
            after_ms -= step_ms
            told += self.tell(Ticked())
        self.last = told
        return told

    def cut(self, name: str, attempt: int = 1) -> list[Command]:
        return self.tell(StreamBroke(TaskId(name), attempt, Blame.WORKER, "cut", "closed"))

    def end(self, name: str) -> list[Command]:
        return self.tell(StreamEnded(TaskId(name), 1))

    def worker(self, name: WorkerId = A) -> Worker:
        worker = self.swarm.fleet.get(name)
        assert worker is not None
        return worker

    def all(self, kind: type[C]) -> list[C]:
        return [command for command in self.last if isinstance(command, kind)]

    def free_mib(self) -> int:
        return self.swarm.memory.free(OAK)[0].free_mib


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


def test_a_spawn_reserves_memory_and_starts_the_worker() -> None:
    hive = Hive()
    hive.tell(HostProbed(OAK, 10_000, 10_000))
    hive.spawn()
    assert hive.all(SpawnWorker) == [SpawnWorker(A, OAK)]
    assert (hive.worker().status, hive.free_mib()) == (STARTING, 5_200)


def test_a_spawn_without_room_is_refused_with_need_and_have() -> None:
    hive = Hive()
    hive.tell(HostProbed(OAK, 10_000, 3_000))
    hive.spawn()
    (refused,) = hive.all(RefuseSpawn)
    assert refused.error.message == "qwen needs 4000 MiB on oak, which has 3000 MiB free in main memory"
    assert (refused.error.code, A in hive.swarm.fleet) == ("not_enough_memory", False)


def test_a_spawn_says_which_gpus_were_reserved() -> None:
    hive = Hive()
    hive.tell(HostProbed(OAK, 10_000, 10_000, (GpuMemory(0, 6_000, 2_000), GpuMemory(1, 6_000, 6_000))))
    hive.tell(SpawnRequested(A, QWEN, "cuda", OAK, 2, 4_000, (0, 1)))
    assert hive.all(SpawnWorker) == [SpawnWorker(A, OAK, (1,))]
    hive.tell(SpawnRequested(B, QWEN, "cuda", OAK, 2, 3_000, (0, 1)))
    assert hive.all(SpawnWorker) == [SpawnWorker(B, OAK, (0, 1))]
    assert hive.free_mib() == 9_200


def test_a_worker_that_was_there_before_the_queen_is_put_into_the_books_and_out_again() -> None:
    hive = Hive()
    known = WorkerRegistered(A, QWEN, "cuda", OAK, "unix:/w", 2, ready=True, need_mib=5_000, gpus=(0,))
    hive.tell(known)
    hive.tell(HostProbed(OAK, 10_000, 10_000, (GpuMemory(0, 8_000, 3_000),)))
    hive.tell(known)
    assert hive.swarm.memory.free(OAK)[1].free_mib == 7_600 - 5_000
    hive.tell(SpawnRequested(B, QWEN, "cuda", OAK, 2, 3_000, (0,)))
    assert "(held: a 5000 MiB)" in hive.all(RefuseSpawn)[0].error.message
    hive.gone()
    hive.tell(HostProbed(OAK, 10_000, 10_000, (GpuMemory(0, 8_000, 8_000),)))
    assert hive.swarm.memory.free(OAK)[1].free_mib == 7_600


def test_a_start_that_goes_on_is_not_taken_for_dead_and_one_that_does_not_is() -> None:
    hive = Hive()
    hive.tell(HostProbed(OAK, 10_000, 10_000))
    hive.spawn()
    for _ in range(5):
        hive.tick(EXPIRY_MS - 1_000)
        assert hive.tell(SpawnProgressed(A)) == []
        assert (hive.worker().status, hive.worker().lease_age_ms) == (STARTING, 0)
    hive.submit()
    assert hive.last == []  # It waits for the worker.
    hive.tick(EXPIRY_MS + 1)
    assert [alarm.code for alarm in hive.all(RaiseAlarm)] == ["lease_expired"]
    assert not hive.worker().may_serve
    hive.tell(SpawnProgressed(A))
    assert hive.worker().may_serve


def test_progress_of_a_start_says_nothing_about_a_worker_that_speaks_for_itself() -> None:
    hive = Hive(A)
    hive.alarm()
    assert hive.tell(SpawnProgressed(A)) == hive.tell(SpawnProgressed(B)) == []
    assert hive.worker().status is DEAD


def test_a_start_to_be_stopped_stays_so_while_it_goes_on() -> None:
    hive = Hive()
    hive.tell(HostProbed(OAK, 10_000, 10_000))
    hive.spawn()
    hive.stop()
    hive.tell(SpawnProgressed(A))
    assert hive.worker().status is DRAINING


def test_memory_is_free_again_when_the_spawn_failed_or_the_worker_is_gone() -> None:
    hive = Hive()
    hive.tell(HostProbed(OAK, 10_000, 10_000))
    hive.spawn()
    hive.tell(SpawnFailed(A, "engine_start_failed", "no such file"))
    assert [alarm.code for alarm in hive.all(RaiseAlarm)] == ["engine_start_failed"]
    assert (len(hive.swarm.fleet), hive.free_mib()) == (0, 9_200)
    hive.spawn()
    hive.register()
    hive.gone()
    assert (len(hive.swarm.fleet), hive.free_mib()) == (0, 9_200)


def test_a_start_found_failed_after_registration_moves_the_tasks() -> None:
    hive = Hive(A, B)
    hive.submit(2)
    hive.tell(SpawnFailed(A, "engine_start_failed", "gave up waiting"))
    assert [broken.task_id for broken in hive.all(BreakStream)] == ["t1"]
    hive.cut("t1")
    assert [(start.task_id, start.worker_id) for start in hive.all(StartStream)] == [("t1", B)]


def test_an_empty_worker_is_stopped_at_once() -> None:
    hive = Hive(A)
    hive.stop()
    assert hive.last == [StopWorker(A, OAK, direct=False)]
    assert hive.worker().status is DRAINING


def test_what_runs_may_end_within_the_grace() -> None:
    hive = Hive(A)
    hive.submit()
    assert hive.stop(grace_ms=5_000) == []
    assert hive.tick(1_000) == []
    hive.end("t1")
    hive.tick(1_000)
    assert hive.last == [StopWorker(A, OAK, direct=False)]


def test_what_still_runs_after_the_grace_is_moved() -> None:
    hive = Hive(A)
    hive.submit()
    hive.stop(grace_ms=5_000)
    assert hive.tick(4_999) == []
    hive.tick(1)
    assert [broken.code for broken in hive.all(BreakStream)] == ["rustbee_stopped"]
    assert len(hive.all(StopWorker)) == 1


def test_a_second_request_may_shorten_the_grace_and_never_lengthen_it() -> None:
    hive = Hive(A)
    hive.submit()
    hive.stop(grace_ms=5_000)
    assert hive.stop(grace_ms=50_000) == []
    hive.tick(5_000)
    assert len(hive.all(StopWorker)) == 1
    hive = Hive(A)
    hive.submit()
    hive.stop(grace_ms=5_000)
    hive.stop(grace_ms=0)
    assert len(hive.all(StopWorker)) == 1


def test_a_stop_is_repeated_while_nothing_comes_of_it_and_not_every_tick() -> None:
    hive = Hive(A)
    hive.stop()
    assert [len(hive.tick(1_000)) for _ in range(STOP_RETRY_MS // 1_000)] == [0] * (STOP_RETRY_MS // 1_000 - 1) + [1]
    hive.stop()
    assert len(hive.all(StopWorker)) == 1
    hive.gone()
    assert hive.last == [ForgetWorker(A)]


def test_a_worker_to_be_stopped_is_not_waited_for_although_it_would_return() -> None:
    hive = Hive(A)
    hive.submit()
    hive.stop(grace_ms=60_000)
    hive.alarm(returning=True)
    assert not hive.worker().may_serve


@pytest.mark.parametrize("again", ["waggle", "register"])
def test_a_worker_that_was_to_stop_comes_back_only_to_end(again: str) -> None:
    hive = Hive(A)
    hive.submit()
    hive.stop(grace_ms=60_000)
    hive.alarm()
    _ = hive.waggle() if again == "waggle" else hive.register()
    assert hive.worker().status is DRAINING
    hive.submit()
    assert hive.all(StartStream) == []


def test_a_dead_worker_can_be_asked_to_stop() -> None:
    hive = Hive(A)
    hive.alarm()
    hive.stop()
    assert hive.last == [StopWorker(A, OAK, direct=False)]
    hive.waggle()
    assert hive.worker().status is DRAINING


def test_stopping_a_stranger_is_nothing() -> None:
    assert Hive().stop() == []


def test_a_worker_that_ends_unasked_raises_an_alarm_and_is_forgotten() -> None:
    hive = Hive(A)
    hive.submit()
    hive.gone()
    assert [type(command) for command in hive.last] == [RaiseAlarm, BreakStream, ForgetWorker]
    assert len(hive.swarm.fleet) == 0
    assert hive.gone() == []


def test_a_worker_that_ends_as_asked_raises_none() -> None:
    hive = Hive(A)
    hive.stop()
    hive.gone()
    assert hive.last == [ForgetWorker(A)]


def test_an_id_that_comes_back_after_it_was_forgotten_has_empty_books() -> None:
    hive = Hive(A, B)
    hive.submit(2)
    hive.gone(A)
    hive.register(A)
    assert hive.worker(A).running == {}
    hive.cut("t1")
    assert [(start.task_id, start.worker_id) for start in hive.all(StartStream)] == [("t1", B)]
    assert (hive.worker(A).running, hive.worker(A).backlog) == ({}, 0.0)


def test_uptime_survives_a_registration() -> None:
    hive = Hive()
    hive.now_ms = 100_000
    hive.tell(WorkerRegistered(A, QWEN, "cpu", OAK, "unix:/w", 1, ready=True, uptime_ms=60_000))
    assert hive.worker().registered_at_ms == 40_000
