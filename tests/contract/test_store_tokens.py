"""What every hivecomb promises of tokens and of how a task ends, whatever it is made of."""

import asyncio

import pytest
from msgspec.structs import replace

from store_bed import a_task
from swarmesh.core.errors import NotFoundError
from swarmesh.core.ids import TaskId
from swarmesh.store.records import TaskPatch, TokenRow
from swarmesh.store.store import READ_BYTES, Store


async def test_tokens_come_back_as_they_were(store: Store) -> None:
    await store.insert_task(a_task("a"))
    rows = [
        TokenRow(1, "Hel", (101, 2**31)),
        TokenRow(2, "lo \U0001f41d \x00 \u2028 é"),
        TokenRow(3, "", (7,), b"\x89PNG\x00\xff", "image/png"),
        TokenRow(4, "", (), b"", "image/png"),
    ]
    await store.append_tokens(TaskId("a"), rows)
    assert await store.tokens(TaskId("a")) == rows


async def test_a_token_is_never_doubled_and_the_first_stays(store: Store) -> None:
    await store.insert_task(a_task("a"))
    await store.append_tokens(TaskId("a"), [TokenRow(1, "one"), TokenRow(3, "three")])
    await store.append_tokens(TaskId("a"), [TokenRow(1, "ONE"), TokenRow(2, "two"), TokenRow(2, "TWO")])
    assert [row.text for row in await store.tokens(TaskId("a"))] == ["one", "two", "three"]


async def test_tokens_are_read_from_a_place_on(store: Store) -> None:
    await store.insert_task(a_task("a"))
    await store.insert_task(a_task("b"))
    await store.append_tokens(TaskId("a"), [TokenRow(seq, str(seq)) for seq in range(1, 101)])
    await store.append_tokens(TaskId("b"), [TokenRow(1, "other")])
    assert [row.seq for row in await store.tokens(TaskId("a"), after_seq=97)] == [98, 99, 100]
    assert [row.seq for row in await store.tokens(TaskId("a"), after_seq=10, limit=2)] == [11, 12]
    assert await store.tokens(TaskId("a"), after_seq=100) == []
    assert await store.tokens(TaskId("nobody")) == []


async def test_a_read_of_large_outputs_is_bounded_in_bytes(store: Store) -> None:
    await store.insert_task(a_task("a"))
    piece = bytes(READ_BYTES // 2)
    for seq in range(1, 4):
        await store.append_tokens(TaskId("a"), [TokenRow(seq, "", (), piece, "image/png")])
    assert [row.seq for row in await store.tokens(TaskId("a"))] == [1, 2]
    assert [row.seq for row in await store.tokens(TaskId("a"), after_seq=2)] == [3]


@pytest.mark.parametrize("rows", [[], [TokenRow(1, "x")]])
async def test_tokens_need_their_task(store: Store, rows: list[TokenRow]) -> None:
    with pytest.raises(NotFoundError, match="no task nobody"):
        await store.append_tokens(TaskId("nobody"), rows)


async def test_kills_are_counted_from_zero(store: Store) -> None:
    kept = await store.insert_task(a_task("a"))
    assert kept.kills == 0
    await store.update_task(TaskId("a"), TaskPatch(kills=2))
    [found] = await store.unfinished_tasks()
    assert found == a_task("a", kills=2)


async def test_the_end_of_a_task_is_one_write(store: Store) -> None:
    await store.insert_task(a_task("a"))
    await store.append_tokens(TaskId("a"), [TokenRow(1, "one")])
    patch = TaskPatch(status="done", finished_at_ms=9, completion_tokens=3, finish_reason="stop")
    await store.finish_task(TaskId("a"), [TokenRow(1, "ONE"), TokenRow(2, "two"), TokenRow(3, "three")], patch)
    assert await store.task(TaskId("a")) == replace(a_task("a"), **patch.changes())
    assert [row.text for row in await store.tokens(TaskId("a"))] == ["one", "two", "three"]
    assert await store.unfinished_tasks() == []


async def test_a_task_may_end_without_further_tokens(store: Store) -> None:
    await store.insert_task(a_task("a"))
    await store.finish_task(TaskId("a"), [], TaskPatch(status="cancelled"))
    assert await store.task(TaskId("a")) == a_task("a", status="cancelled")
    assert await store.tokens(TaskId("a")) == []


@pytest.mark.parametrize("rows", [[], [TokenRow(1, "x")]])
async def test_an_unknown_task_does_not_end(store: Store, rows: list[TokenRow]) -> None:
    with pytest.raises(NotFoundError, match="no task nobody"):
        await store.finish_task(TaskId("nobody"), rows, TaskPatch(status="done"))
    assert await store.tokens(TaskId("nobody")) == []


async def test_whoever_sees_the_end_of_a_task_sees_all_its_tokens(store: Store) -> None:
    rows = [TokenRow(seq, f"{seq}") for seq in range(1, 21)]

    async def watch(task_id: TaskId) -> int:
        while True:
            task = await store.task(task_id)
            if task is not None and task.status == "done":
                return len(await store.tokens(task_id))
            await asyncio.sleep(0)

    async def live(task_id: TaskId) -> int:
        await store.insert_task(a_task(task_id))
        watching = asyncio.create_task(watch(task_id))
        await store.finish_task(task_id, rows, TaskPatch(status="done"))
        return await watching

    assert await asyncio.gather(*(live(TaskId(f"t{n}")) for n in range(10))) == [20] * 10
