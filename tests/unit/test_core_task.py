"""The table of a task's life."""

from __future__ import annotations

from itertools import product

import pytest

from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId
from swarmesh.core.task import TASK_TABLE, IllegalTransitionError, Task, TaskFact, TaskStatus

MEDIUM = Priority.MEDIUM
EVERY_PAIR = list(product(TaskStatus, TaskFact))


def a_task(status: TaskStatus) -> Task:
    return Task(TaskId("t"), ModelName("qwen"), MEDIUM, KeyId("k"), False, 10, 5, 0, MEDIUM, status=status)


@pytest.mark.parametrize(("status", "fact"), [pair for pair in EVERY_PAIR if pair in TASK_TABLE])
def test_a_legal_fact_moves_the_task_where_the_table_says(status: TaskStatus, fact: TaskFact) -> None:
    task = a_task(status)
    task.apply(fact)
    assert task.status is TASK_TABLE[status, fact]


@pytest.mark.parametrize(("status", "fact"), [pair for pair in EVERY_PAIR if pair not in TASK_TABLE])
def test_an_illegal_fact_raises_and_changes_nothing(status: TaskStatus, fact: TaskFact) -> None:
    task = a_task(status)
    with pytest.raises(IllegalTransitionError, match=f"is {status} and cannot be {fact}"):
        task.apply(fact)
    assert task == a_task(status)


@pytest.mark.parametrize("status", TaskStatus)
def test_nothing_happens_to_a_final_task_and_something_can_to_any_other_the_core_makes(status: TaskStatus) -> None:
    moves = [pair for pair in TASK_TABLE if pair[0] is status]
    made_by_core = {TaskStatus.QUEUED, *TASK_TABLE.values()}
    assert bool(moves) == (not status.is_final and status in made_by_core)


def test_every_state_the_table_leads_to_can_still_come_to_an_end() -> None:
    for status in {after for after in TASK_TABLE.values() if not after.is_final}:
        for end in (TaskFact.FAILED, TaskFact.CANCELLED):
            assert TASK_TABLE[status, end].is_final
