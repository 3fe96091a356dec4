"""Turns between keys in one band."""

from __future__ import annotations

import pytest

from core_hive import Hive
from fair_shares import jain
from swarmesh.core.events import StreamEnded, TaskCancelled
from swarmesh.core.fairness import QUANTUM, Running, Turns, expected_work, real_work, rounds_in_debt
from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId
from swarmesh.core.task import Task

LOW = Priority.LOW
TASK = 256.0
"""What a task of these tests is expected to cost."""


def a_task(name: str, *, tokens: int = 256, durable: bool = False) -> Task:
    """A task of the key that its name begins with."""
    return Task(TaskId(name), ModelName("qwen"), LOW, KeyId(name[0]), durable, 0, tokens, 0, LOW)


class Band:
    """Turns, and keys that are held."""

    def __init__(self, *names: str, tokens: int = 256, durable: bool = False) -> None:
        self.held: set[str] = set()
        self.running = Running()
        self.turns = Turns(lambda task: task.durable and task.key_id in self.held, self.running)
        self.tasks: dict[str, Task] = {}
        self._serial = 0
        self.push(*names, tokens=tokens, durable=durable)

    def push(self, *names: str, tokens: int = 256, durable: bool = False) -> None:
        for name in names:
            self._serial += 1
            self.tasks[name] = a_task(name, tokens=tokens, durable=durable)
            self.turns.push(self.tasks[name], self._serial)

    def order(self) -> str:
        return " ".join(task.task_id for task in self.turns.ready())

    def serve(self, times: int = 1) -> list[str]:
        served = []
        for _ in range(times):
            task = next(self.turns.ready())
            self.turns.pay(task.key_id, expected_work(task))
            self.running.add(task.key_id, expected_work(task))
            assert self.turns.remove(task)
            served.append(task.task_id)
        return served

    def end(self, name: str, work: float) -> None:
        task = self.tasks[name]
        self.turns.pay(task.key_id, work - expected_work(task))
        self.running.remove(task.key_id, expected_work(task))

    def hold(self, *keys: str) -> bool:
        changed = self.held ^ set(keys)
        self.held = set(keys)
        return sum(self.turns.look_again(KeyId(key)) for key in sorted(changed)) > 0


def names(key: str, count: int) -> list[str]:
    return [f"{key}{number}" for number in range(count)]


def test_keys_take_turns_and_each_keeps_its_order() -> None:
    band = Band(*names("a", 4), *names("b", 2), *names("c", 1))
    assert band.order() == "a0 b0 c0 a1 b1 a2 a3"
    assert band.serve(7) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]
    assert len(band.turns) == 0


def test_small_tasks_share_a_turn() -> None:
    band = Band(*names("a", 4), *names("b", 4), tokens=int(QUANTUM / 2))
    assert band.order() == "a0 a1 b0 b1 a2 a3 b2 b3"


def test_small_tasks_make_up_for_a_large_one() -> None:
    band = Band(*names("a", 6), tokens=64)
    band.push(*names("b", 2))
    assert band.order() == "a0 b0 a1 a2 a3 a4 b1 a5"


def test_looking_ahead_changes_nothing() -> None:
    band = Band(*names("a", 5), tokens=100)
    band.push(*names("b", 5), tokens=300)
    foreseen = band.order()
    assert band.order() == foreseen
    next(band.turns.ready())
    assert band.serve(10) == foreseen.split()


def test_a_key_pays_for_what_it_really_wrote() -> None:
    band = Band(*names("a", 9), *names("b", 9))
    assert band.serve(2) == ["a0", "b0"]
    band.end("a0", 3 * TASK)
    assert band.order().startswith("b1 b2 a1 b3 a2")
    band.end("b0", TASK)
    assert band.serve(4) == ["b1", "b2", "a1", "b3"]


def test_what_was_not_used_is_given_back() -> None:
    band = Band(*names("a", 9), *names("b", 9))
    band.serve(2)
    band.end("a0", 1.0)
    assert band.order().startswith("a1 b1 a2 b2")


def test_a_debt_outlives_the_last_task_for_as_many_turns() -> None:
    band = Band("a0", *names("b", 9))
    band.serve(1)
    band.end("a0", 3 * TASK)
    band.push("a1")
    assert band.order().startswith("b0 b1 b2 a1 b3")
    band.serve(3)
    band.turns.remove(band.tasks["a1"])
    band.push("a2")
    assert band.order().startswith("a2 b3") or band.order().startswith("b3 a2")


def test_credit_is_not_saved() -> None:
    band = Band("a0", *names("b", 9))
    band.serve(1)
    band.end("a0", 0.0)
    for name in band.serve(4):
        band.end(name, TASK)
    band.push(*names("a", 3))
    assert band.order() == "b4 a0 b5 a1 b6 a2 b7 b8"


def test_what_is_given_back_between_two_tasks_counts() -> None:
    band = Band("a0", "a1", *names("b", 9))
    assert band.serve(3) == ["a0", "b0", "a1"]
    band.end("a0", 0.0)
    band.push(*names("a", 2))
    assert band.order().startswith("b1 a0 b2 a1")


def test_what_others_have_running_is_not_held_against_who_comes() -> None:
    band = Band(*names("b", 9))
    band.serve(3)
    band.push(*names("a", 6))
    assert band.order() == "a0 a1 a2 b3 a3 b4 a4 b5 a5 b6 b7 b8"


def test_nothing_is_remembered_when_nobody_waits() -> None:
    band = Band("a0", "b0", "a1", "b1")
    band.serve(2)
    band.end("a0", 1_000 * TASK)
    assert band.order() == "b1 a1"
    band.serve(2)
    for name in ("b0", "b1", "a1"):
        band.running.remove(band.tasks[name].key_id, TASK)
    band.push(*names("a", 2), *names("b", 2))
    assert band.order() == "a0 b0 a1 b1"


def test_a_key_alone_owes_nobody_anything_for_long() -> None:
    band = Band(*names("a", 50))
    band.serve(20)
    for number in range(20):
        band.end(f"a{number}", 100 * TASK)
    band.push("b0")
    assert "b0" in band.order().split()[:2]


def test_a_task_that_comes_back_stands_before_all_keys() -> None:
    band = Band(*names("a", 3), *names("b", 3))
    band.serve(1)
    band.turns.push_front(band.tasks["a0"])
    assert band.order() == "a0 b0 a1 b1 a2 b2"


def test_held_keys_are_passed_over_and_come_back_into_the_round() -> None:
    band = Band(*names("a", 2), *names("b", 2), durable=True)
    assert not band.hold("a")
    assert (band.order(), [task.task_id for task in band.turns.held()]) == ("b0 b1", ["a0", "a1"])
    assert band.serve(1) == ["b0"]
    assert band.hold()
    assert band.order() in {"b1 a0 a1", "a0 b1 a1"}
    assert list(band.turns.held()) == []


def test_a_held_key_gets_its_interactive_tasks_through() -> None:
    band = Band("a0", "a2", durable=True)
    band.push("a1")
    band.hold("a")
    assert band.order() == "a1"
    band.hold()
    assert band.order() == "a0 a2 a1"


def test_everybody_held_is_nobody_served() -> None:
    band = Band("a0", "b0", durable=True)
    band.hold("a", "b")
    assert (band.order(), len(band.turns)) == ("", 2)
    band.push("c0", "a1")
    assert band.order() == "c0 a1"
    assert band.turns.remove(band.tasks["b0"])
    assert band.hold()
    assert sorted(band.order().split()) == ["a0", "a1", "c0"]


def test_a_task_that_came_back_is_held_too() -> None:
    band = Band("a0", "b0", durable=True)
    band.serve(1)
    band.turns.push_front(band.tasks["a0"])
    band.hold("a")
    assert (band.order(), [task.task_id for task in band.turns.held()]) == ("b0", ["a0"])
    assert band.hold()
    assert band.order() == "a0 b0"


def test_strangers_are_not_taken_out() -> None:
    band = Band("a0")
    assert not band.turns.remove(a_task("a1"))
    assert not band.turns.remove(a_task("b0"))
    assert len(band.turns) == 1


@pytest.mark.parametrize(("left", "rounds"), [(1.0, 0), (0.0, 1), (-1.0, 1), (-QUANTUM, 2), (-2.5 * QUANTUM, 3)])
def test_rounds_a_debt_is_worth(left: float, rounds: int) -> None:
    assert rounds_in_debt(left) == rounds
    assert left + rounds * QUANTUM > 0


def test_one_of_many_keys_deep_in_debt_is_found_at_once() -> None:
    band = Band(*(f"{key}{number}" for key in "abcdefgh" for number in range(2)))
    band.serve(8)
    for key in "abcdefgh":
        band.end(f"{key}0", 1e9)
    band.push("i0")
    assert band.order().split()[:9] == [f"{key}1" for key in "abcdefgh"] + ["i0"]


def test_real_work_is_what_the_engine_said() -> None:
    task = a_task("a0")
    assert real_work(task, StreamEnded(task.task_id, 1)) is None
    assert real_work(task, StreamEnded(task.task_id, 1, 30, 200)) == 50.0
    task.prompt_chars = 400
    assert real_work(task, StreamEnded(task.task_id, 1, 30)) == 40.0


def test_jains_index() -> None:
    assert jain([3, 3, 3]) == 1.0
    assert jain([1, 0, 0, 0]) == 0.25
    assert jain([0, 0]) == 1.0


def test_what_was_shown_is_the_least_that_an_answer_has_cost() -> None:
    task = a_task("a0")
    task.prompt_chars = 400
    assert real_work(task, TaskCancelled(task.task_id)) is None
    assert real_work(task, TaskCancelled(task.task_id, 1_000)) == 1_010.0
    assert real_work(task, TaskCancelled(task.task_id, 5)) == expected_work(task), "hanging up early is no gain either"
    assert real_work(task, StreamEnded(task.task_id, 1, shown_tokens=1_000)) == 1_010.0
    assert real_work(task, StreamEnded(task.task_id, 1, 30, shown_tokens=1_000)) == 40.0


def test_a_key_that_hangs_up_before_every_end_gets_no_more_than_its_share() -> None:
    hive = Hive("a")
    for number in range(200):
        for key in ("greedy", "modest"):
            hive.submit(f"{key}-{number}", key=key)
    had = {"greedy": 0, "modest": 0}
    for _ in range(100):
        [name] = hive.running("a")
        key = name.partition("-")[0]
        had[key] += 2_000
        hive.now_ms += 1_000
        if key == "greedy":
            hive.tell(TaskCancelled(TaskId(name), 2_000))
        else:
            hive.tell(StreamEnded(TaskId(name), 1, 2_000, 10))
    assert jain(list(had.values())) > 0.99
