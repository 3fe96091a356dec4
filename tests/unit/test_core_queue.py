"""The order and the counts of the broodqueue."""

from __future__ import annotations

import pytest

from swarmesh.core.events import StreamEnded
from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId
from swarmesh.core.queue import BroodQueue
from swarmesh.core.task import Task

QWEN, DEMO = ModelName("qwen"), ModelName("demo")
ADA, BOB = KeyId("ada"), KeyId("bob")
HIGH, MEDIUM, LOW = Priority


def a_task(name: str, band: Priority = MEDIUM, *, model: ModelName = QWEN, key: KeyId = ADA) -> Task:
    return Task(TaskId(name), model, band, key, False, 0, 50, 0, band)


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


def test_keys_take_turns_and_pay_once_for_what_they_start() -> None:
    tasks = {name: a_task(name, key=KeyId(name[0])) for name in ("a0", "a1", "a2", "b0", "b1", "b2")}
    queue = a_queue(*tasks.values())
    assert order(queue) == ["a0", "b0", "a1", "b1", "a2", "b2"]
    queue.take(tasks["a0"])
    queue.push_front(tasks["a0"])
    assert order(queue)[:3] == ["a0", "b0", "a1"]
    queue.take(tasks["a0"])
    assert order(queue)[:3] == ["b0", "a1", "b1"]
    for _ in range(2):
        queue.settle(tasks["a0"], StreamEnded(TaskId("a0"), 2, 150))
    assert order(queue)[:4] == ["b0", "b1", "b2", "a1"]


def test_who_begins_to_wait_comes_before_those_who_have_all_the_slots() -> None:
    queue = BroodQueue()
    running = [a_task(f"a{number}", key=ADA) for number in range(3)]
    for task in running:
        queue.take(task)
    for name, key in (("a3", ADA), ("a4", ADA), ("b0", BOB), ("b1", BOB), ("b2", BOB), ("b3", BOB)):
        queue.push(a_task(name, key=key))
    assert order(queue) == ["b0", "b1", "b2", "a3", "b3", "a4"]
    queue.settle(running[0])
    assert order(queue)[-1] == "a4", "what was running when somebody came is not forgotten"
    for task in list(queue.waiting(QWEN)):
        queue.remove(task)
    for task in running:
        queue.settle(task)
    queue.push(a_task("a4"))
    queue.push(a_task("b4", key=BOB))
    assert order(queue) == ["a4", "b4"], "nobody waited, nothing runs"


def test_a_model_of_which_a_held_task_may_run_is_told_once() -> None:
    held = {"a0"}
    queue = BroodQueue(lambda task: task.task_id in held)
    task = Task(TaskId("a0"), QWEN, MEDIUM, ADA, True, 10, 5, 0, MEDIUM)
    queue.push(task)
    assert (list(queue.ready(QWEN)), order(queue), queue.take_freed()) == ([], ["a0"], None)
    held.clear()
    queue.look_again(BOB)
    assert queue.take_freed() is None
    queue.look_again(ADA)
    assert (order(queue), queue.take_freed(), queue.take_freed()) == (["a0"], QWEN, None)
