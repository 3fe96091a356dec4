"""What every hivecomb promises of tasks, whatever it is made of."""

import asyncio

import pytest
from msgspec.structs import replace

from store_bed import FULL_TASK, a_task
from swarmesh.core.errors import ConflictError, NotFoundError
from swarmesh.core.ids import KeyId, TaskId, WorkerId
from swarmesh.core.task import TaskStatus
from swarmesh.store.records import UNFINISHED, TaskPatch, TaskRecord, TokenRow
from swarmesh.store.store import READ_LIMIT, Store


def ids(tasks: list[TaskRecord]) -> list[str]:
    return [task.task_id for task in tasks]


async def test_every_field_of_a_task_comes_back(store: Store) -> None:
    assert await store.insert_task(FULL_TASK) == FULL_TASK
    assert await store.task(FULL_TASK.task_id) == FULL_TASK


async def test_an_unknown_task_is_none(store: Store) -> None:
    assert await store.task(TaskId("nobody")) is None


@pytest.mark.parametrize("status", list(TaskStatus))
async def test_every_status_of_the_core_can_be_kept(store: Store, status: TaskStatus) -> None:
    await store.insert_task(a_task("t", status=status))
    [kept] = await store.tasks(statuses=[status])
    assert TaskStatus(kept.status) is status
    assert len(await store.unfinished_tasks()) == (status in UNFINISHED)


async def test_the_same_idempotency_key_gives_the_first_task(store: Store) -> None:
    first = await store.insert_task(a_task("a", idempotency_key="k"))
    again = await store.insert_task(a_task("b", idempotency_key="k", request=b"{}"))
    assert again == first
    assert await store.task(TaskId("b")) is None


async def test_an_idempotency_key_belongs_to_its_api_key(store: Store) -> None:
    await store.insert_task(a_task("a", idempotency_key="k"))
    other = a_task("b", idempotency_key="k", key_id=KeyId("key-2"))
    assert await store.insert_task(other) == other


async def test_a_task_is_found_by_its_idempotency_key(store: Store) -> None:
    kept = await store.insert_task(a_task("a", idempotency_key="k"))
    assert await store.task_by_idempotency_key(KeyId("key-1"), "k") == kept
    assert await store.task_by_idempotency_key(KeyId("key-2"), "k") is None
    assert await store.task_by_idempotency_key(KeyId("key-1"), "other") is None
    await store.update_task(TaskId("a"), TaskPatch(status="done", finished_at_ms=1))
    assert await store.task_by_idempotency_key(KeyId("key-1"), "k") == replace(kept, status="done", finished_at_ms=1)
    await store.prune(2)
    assert await store.task_by_idempotency_key(KeyId("key-1"), "k") is None


async def test_a_resubmission_shows_the_present_state_of_the_first(store: Store) -> None:
    await store.insert_task(a_task("a", idempotency_key="k"))
    await store.update_task(TaskId("a"), TaskPatch(status="running"))
    assert (await store.insert_task(a_task("b", idempotency_key="k"))).status == "running"


async def test_two_at_once_with_one_idempotency_key_are_one_task(store: Store) -> None:
    tasks = [a_task(f"t{n}", idempotency_key="k") for n in range(20)]
    kept = await asyncio.gather(*(store.insert_task(task) for task in tasks))
    assert {task.task_id for task in kept} == {"t0"}
    assert len(await store.tasks()) == 1


async def test_a_task_id_is_used_once(store: Store) -> None:
    await store.insert_task(a_task("a"))
    with pytest.raises(ConflictError, match="task a exists"):
        await store.insert_task(a_task("a", request=b"{}"))
    with pytest.raises(ConflictError):
        await store.insert_task(a_task("a", idempotency_key="new"))
    assert await store.task(TaskId("a")) == a_task("a")


async def test_a_patch_changes_what_it_names_and_none_clears(store: Store) -> None:
    await store.insert_task(FULL_TASK)
    await store.update_task(FULL_TASK.task_id, TaskPatch(status="queued", worker_id=None, attempts=3))
    expected = replace(FULL_TASK, status="queued", worker_id=None, attempts=3)
    assert await store.task(FULL_TASK.task_id) == expected


async def test_a_patch_can_change_every_field_it_has(store: Store) -> None:
    await store.insert_task(a_task("a"))
    patch = TaskPatch("done", 1, 9, 2, WorkerId("w"), 3, 4, 5, 6, "stop", "code", "message", "hint")
    await store.update_task(TaskId("a"), patch)
    assert await store.task(TaskId("a")) == replace(a_task("a"), **patch.changes())


@pytest.mark.parametrize("patch", [TaskPatch(), TaskPatch(attempts=1)])
async def test_a_patch_of_an_unknown_task_is_an_error(store: Store, patch: TaskPatch) -> None:
    with pytest.raises(NotFoundError, match="no task nobody"):
        await store.update_task(TaskId("nobody"), patch)


async def test_an_empty_patch_changes_nothing(store: Store) -> None:
    await store.insert_task(FULL_TASK)
    await store.update_task(FULL_TASK.task_id, TaskPatch())
    assert await store.task(FULL_TASK.task_id) == FULL_TASK


async def test_tasks_are_listed_newest_first_without_their_requests(store: Store) -> None:
    for name, created_at_ms in [("a", 100), ("c", 300), ("b1", 200), ("b2", 200)]:
        await store.insert_task(a_task(name, created_at_ms=created_at_ms))
    listed = await store.tasks()
    assert ids(listed) == ["c", "b2", "b1", "a"]
    assert {task.request for task in listed} == {b""}
    assert ids(await store.tasks(limit=2)) == ["c", "b2"]
    assert ids(await store.tasks(before_ms=200)) == ["a"]


async def test_tasks_are_listed_by_status(store: Store) -> None:
    for status in TaskStatus:
        await store.insert_task(a_task(f"{status}", status=status))
    assert ids(await store.tasks(statuses=("done", "failed"))) == ["failed", "done"]
    assert ids(await store.tasks(statuses=("cancelled",))) == ["cancelled"]


async def test_tasks_of_one_key_are_listed_alone(store: Store) -> None:
    for number, key in enumerate(("ada", "bob", "ada", "bob")):
        await store.insert_task(a_task(f"{key}{number}", key_id=KeyId(key), created_at_ms=number, status="done"))
    assert ids(await store.tasks(key_id=KeyId("ada"))) == ["ada2", "ada0"]
    assert ids(await store.tasks(key_id=KeyId("ada"), limit=1, statuses=("done",))) == ["ada2"]
    assert ids(await store.tasks(key_id=KeyId("ada"), before_ms=2)) == ["ada0"]
    assert ids(await store.tasks(key_id=KeyId("eve"))) == []


async def test_unfinished_tasks_come_in_the_order_of_submission_with_their_requests(store: Store) -> None:
    for name, created_at_ms in [("late", 300), ("early", 100), ("over", 50), ("middle", 200)]:
        await store.insert_task(a_task(name, created_at_ms=created_at_ms))
    await store.update_task(TaskId("over"), TaskPatch(status="done"))
    await store.update_task(TaskId("late"), TaskPatch(status="preempted"))
    unfinished = await store.unfinished_tasks()
    assert ids(unfinished) == ["late", "early", "middle"]
    assert unfinished[0].request == b'{"prompt":"Hello"}'


async def test_prune_forgets_finished_tasks_with_their_tokens_and_idempotency_keys(store: Store) -> None:
    old = a_task("old", idempotency_key="k")
    await store.insert_task(old)
    await store.insert_task(a_task("running", status="running"))
    await store.insert_task(a_task("recent"))
    await store.append_tokens(TaskId("old"), [TokenRow(1, "x")])
    await store.append_tokens(TaskId("recent"), [TokenRow(1, "y")])
    await store.update_task(TaskId("old"), TaskPatch(status="done", finished_at_ms=500))
    await store.update_task(TaskId("recent"), TaskPatch(status="cancelled", finished_at_ms=1_000))
    assert await store.prune(1_000) == 1
    assert ids(await store.tasks()) == ["recent", "running"]
    assert await store.tokens(TaskId("old")) == []
    assert [row.text for row in await store.tokens(TaskId("recent"))] == ["y"]
    assert await store.insert_task(old) == old
    assert await store.tokens(TaskId("old")) == []
    assert await store.prune(1_000) == 0


async def test_prune_takes_any_number(store: Store) -> None:
    tasks = [a_task(f"t{n}", status="done", finished_at_ms=n) for n in range(450)]
    await asyncio.gather(*(store.insert_task(task) for task in tasks))
    assert await store.prune(440) == 440
    assert len(await store.tasks(limit=READ_LIMIT)) == 10
