"""Workers by id and by model."""

from __future__ import annotations

import pytest

from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import HostName, ModelName, TaskId, WorkerId
from swarmesh.core.liveness import WorkerStatus

QWEN, DEMO = ModelName("qwen"), ModelName("demo")


def a_worker(name: str, model: ModelName = QWEN, status: WorkerStatus = WorkerStatus.HEALTHY) -> Worker:
    return Worker(WorkerId(name), model, "cpu", HostName("oak"), "unix:/w", 4, False, 0, status)


def a_fleet(*workers: Worker) -> Fleet:
    fleet = Fleet()
    for worker in workers:
        fleet.add(worker)
    return fleet


def test_a_worker_is_found_by_id_and_by_model() -> None:
    bee, other = a_worker("bee"), a_worker("other", DEMO)
    fleet = a_fleet(bee, other)
    assert fleet.get(WorkerId("bee")) is bee
    assert list(fleet.of_model(DEMO).values()) == [other]
    assert (len(fleet), list(fleet), fleet.models()) == (2, [bee, other], [QWEN, DEMO])
    assert "bee" in fleet


def test_a_worker_that_registers_again_keeps_its_turn_in_every_order() -> None:
    fleet = a_fleet(a_worker("a"), a_worker("b"), a_worker("c", DEMO))
    again = a_worker("a")
    fleet.add(again)
    assert list(fleet.of_model(QWEN)) == ["a", "b"]
    assert [worker.worker_id for worker in fleet] == ["a", "b", "c"]
    assert fleet.models() == [QWEN, DEMO]
    assert fleet.get(WorkerId("a")) is again


def test_a_worker_with_another_model_leaves_the_first_one() -> None:
    fleet = a_fleet(a_worker("a"))
    fleet.add(a_worker("a", DEMO))
    assert (fleet.models(), len(fleet), fleet.of_model(QWEN)) == ([DEMO], 1, {})


def test_forgetting_is_complete_and_twice_is_harmless() -> None:
    fleet = a_fleet(a_worker("a"))
    assert fleet.remove(WorkerId("a")) is not None
    assert fleet.remove(WorkerId("a")) is None
    assert (fleet.models(), len(fleet), fleet.get(WorkerId("a"))) == ([], 0, None)


@pytest.mark.parametrize(
    ("status", "returning", "stop_at_ms", "may_serve"),
    [
        (WorkerStatus.STARTING, False, 0, True),
        (WorkerStatus.HEALTHY, False, 0, True),
        (WorkerStatus.SUSPECT, False, 0, True),
        (WorkerStatus.DRAINING, False, 1, False),
        (WorkerStatus.DEAD, False, 0, False),
        (WorkerStatus.DEAD, True, 0, True),
        (WorkerStatus.DEAD, True, 1, False),
    ],
)
def test_who_may_be_waited_for(status: WorkerStatus, returning: bool, stop_at_ms: int, may_serve: bool) -> None:  # noqa: FBT001 - a table's columns
    worker = a_worker("a", status=status)
    worker.returning, worker.stop_at_ms = returning, stop_at_ms
    assert worker.may_serve is may_serve


def test_free_slots_are_never_negative_when_a_worker_shrinks() -> None:
    worker = a_worker("a")
    worker.running = {TaskId(str(number)): 1.0 for number in range(3)}
    assert worker.slots_free == 1
    worker.slots = 2
    assert worker.slots_free == 0


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("status", WorkerStatus)
def test_in_reach_is_who_may_serve_and_is_heard(*, silent: bool, status: WorkerStatus) -> None:
    worker = a_worker("a", status=status)
    worker.silent = silent
    assert worker.is_in_reach is (worker.may_serve and not silent)
