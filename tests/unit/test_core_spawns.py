"""Workers on their way: memory that is reserved for them, starts that go on, fail and end."""

from __future__ import annotations

from roster_bed import DEAD, DRAINING, EXPIRY_MS, OAK, QWEN, STARTING, A, B, Hive
from swarmesh.core.commands import BreakStream, RaiseAlarm, RefuseSpawn, SpawnWorker, StartStream
from swarmesh.core.events import GpuMemory, HostProbed, SpawnFailed, SpawnProgressed, SpawnRequested, WorkerRegistered


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
