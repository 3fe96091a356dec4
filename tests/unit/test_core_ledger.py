"""The books of predicted work."""

from __future__ import annotations

import pytest

from swarmesh.core.fleet import Worker
from swarmesh.core.ids import HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.ledger import CHARS_PER_TOKEN, DEFAULT_OUTPUT_TOKENS, charge, predicted_work, settle
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.task import Task

LOW = Priority.LOW


def a_worker() -> Worker:
    return Worker(
        WorkerId("w"), ModelName("qwen"), "cpu", HostName("oak"), "unix:/w", 4, False, 0, WorkerStatus.HEALTHY
    )


def a_task(number: int, chars: int = 400, max_tokens: int = 50) -> Task:
    return Task(TaskId(f"t{number}"), ModelName("qwen"), LOW, KeyId("k"), False, chars, max_tokens, 0, LOW)


@pytest.mark.parametrize(
    ("chars", "max_tokens", "work"),
    [
        (0, 1, 1.0),
        (400, 50, 60.0),
        (400, 0, DEFAULT_OUTPUT_TOKENS + 10.0),
        (0, 100_000, DEFAULT_OUTPUT_TOKENS),
        (40_000, 1, 1_001.0),
    ],
)
def test_work_is_what_may_be_written_plus_a_tenth_of_what_is_read(chars: int, max_tokens: int, work: float) -> None:
    assert predicted_work(chars / CHARS_PER_TOKEN, max_tokens) == pytest.approx(work)


def test_what_is_cached_need_not_be_read_and_what_was_learned_is_used() -> None:
    assert predicted_work(400.0, 0, output_tokens=20.0, prefill_weight=0.05) == pytest.approx(40.0)
    assert predicted_work(0.0, 5, output_tokens=20.0) == 5.0


def test_a_charge_names_the_worker_and_adds_up() -> None:
    worker, tasks = a_worker(), [a_task(number) for number in range(3)]
    for task in tasks:
        charge(worker, task, predicted_work(task.prompt_chars / CHARS_PER_TOKEN, task.max_tokens))
    assert worker.running == {task.task_id: 60.0 for task in tasks}
    assert worker.backlog == pytest.approx(180.0)
    assert {task.worker_id for task in tasks} == {worker.worker_id}


def test_one_dispatch_is_charged_once() -> None:
    worker, task = a_worker(), a_task(1)
    charge(worker, task, 60.0)
    with pytest.raises(AssertionError, match="charged once"):
        charge(worker, task, 60.0)
    assert worker.backlog == 60.0


def test_settling_an_unknown_task_changes_nothing() -> None:
    worker = a_worker()
    charge(worker, a_task(1), 60.0)
    settle(worker, a_task(2))
    assert (worker.backlog, list(worker.running)) == (60.0, ["t1"])


def test_an_empty_book_is_exactly_zero_although_floats_drift() -> None:
    worker, tasks = a_worker(), [a_task(number, chars=number * 7 + 3, max_tokens=0) for number in range(50)]
    for task in tasks:
        charge(worker, task, predicted_work(task.prompt_chars / CHARS_PER_TOKEN, task.max_tokens))
    for task in tasks:
        settle(worker, task)
    assert worker.backlog == 0.0
    assert not worker.running


def test_settling_twice_is_harmless() -> None:
    worker, first, second = a_worker(), a_task(1), a_task(2)
    charge(worker, first, 60.0)
    charge(worker, second, 60.0)
    settle(worker, first)
    settle(worker, first)
    assert worker.backlog == pytest.approx(60.0)
