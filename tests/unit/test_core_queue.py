"""The order and the counts of the broodqueue."""

from __future__ import annotations

import pytest

from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId
from swarmesh.core.queue import BroodQueue
from swarmesh.core.task import Task

QWEN, DEMO = ModelName("qwen"), ModelName("demo")
ADA, BOB = KeyId("ada"), KeyId("bob")
HIGH, MEDIUM, LOW = Priority


def a_task(name: str, band: Priority = MEDIUM, *, model: ModelName = QWEN, key: KeyId = ADA) -> Task:
    return Task(TaskId(name), model, band, key, False, 10, 5, 0, band)


def order(queue: BroodQueue, model: ModelName = QWEN) -> list[str]:
    return [task.task_id for task in queue.waiting(model)]


def a_queue(*tasks: Task) -> BroodQueue:
    queue = BroodQueue()
    for task in tasks:
        queue.push(task)
    return queue


def test_more_urgent_bands_come_first_and_within_a_band_who_came_first() -> None:
    queue = a_queue(a_task("l1", LOW), a_task("m1"), a_task("h1", HIGH), a_task("m2"), a_task("h2", HIGH))
    assert order(queue) == ["h1", "h2", "m1", "m2", "l1"]


def test_models_wait_apart() -> None:
    queue = a_queue(a_task("q"), a_task("d", model=DEMO))
    assert (order(queue), order(queue, DEMO), order(queue, ModelName("none"))) == (["q"], ["d"], [])
    assert queue.has(DEMO)
    assert not queue.has(ModelName("none"))


def test_a_task_put_back_stands_at_the_head_of_its_own_band() -> None:
    queue = a_queue(a_task("h1", HIGH), a_task("m1"), a_task("m2"))
    queue.push_front(a_task("m0"))
    assert order(queue) == ["h1", "m0", "m1", "m2"]


def test_taking_out_works_anywhere_and_only_once() -> None:
    tasks = [a_task(name) for name in "abc"]
    queue = a_queue(*tasks)
    assert queue.remove(tasks[1])
    assert not queue.remove(tasks[1])
    assert not queue.remove(a_task("stranger", model=DEMO))
    assert (order(queue), len(queue), queue.size_of_key(ADA)) == (["a", "c"], 2, 2)


def test_counts_per_key_follow_every_change() -> None:
    mine, yours, back = a_task("a"), a_task("b", key=BOB), a_task("c", key=BOB)
    queue = a_queue(mine, yours)
    queue.push_front(back)
    assert (queue.size_of_key(ADA), queue.size_of_key(BOB), len(queue)) == (1, 2, 3)
    for task in (yours, back, mine):
        assert queue.remove(task)
    assert (queue.size_of_key(ADA), queue.size_of_key(BOB), len(queue)) == (0, 0, 0)


def test_depths_leave_out_what_is_empty() -> None:
    first, second = a_task("a", HIGH), a_task("b", LOW, model=DEMO)
    queue = a_queue(first, second)
    assert queue.depths() == {(QWEN, HIGH): 1, (DEMO, LOW): 1}
    queue.remove(first)
    assert queue.depths() == {(DEMO, LOW): 1}
    assert not queue.has(QWEN)


@pytest.mark.parametrize("band", Priority)
def test_a_band_of_many_keeps_its_order(band: Priority) -> None:
    names = [f"t{number:04}" for number in range(1_000)]
    assert order(a_queue(*(a_task(name, band) for name in names))) == names


def test_a_task_that_changes_its_band_is_found_in_the_new_one() -> None:
    low, high = a_task("low", LOW), a_task("high", HIGH)
    queue = a_queue(low, high)
    assert queue.remove(low)
    low.band = HIGH
    queue.push_front(low)
    assert (order(queue), queue.depths(), len(queue)) == (["low", "high"], {(QWEN, HIGH): 2}, 2)
    assert queue.remove(low)
    assert (order(queue), queue.size_of_key(ADA)) == (["high"], 1)
