"""Durable tasks on their way to disk: in order, together, again until it takes them, and who waits is called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from swarmesh.core.errors import SwarmeshError
from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.queen import flow_saver
from swarmesh.queen.flow_saver import FlowSaver
from swarmesh.store.errors import StoreFullError
from swarmesh.store.memory import MemoryStore
from swarmesh.store.records import TaskPatch, TaskRecord, TokenRow

Until = Callable[..., Awaitable[Any]]
Turn = Callable[[], Awaitable[None]]

ONE, TWO = TaskId("flow-1"), TaskId("flow-2")


class Disk:
    """A store whose writes can be refused, or held up, and are noted in order."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.error: SwarmeshError | None = None
        self.gate: asyncio.Event | None = None
        self.writes: list[tuple[TaskId, list[int], TaskPatch | None]] = []
        self.under_way: dict[TaskId, int] = {}

    async def append_tokens(self, task_id: TaskId, rows: list[TokenRow]) -> None:
        await self._write(task_id, rows, None)
        await self.store.append_tokens(task_id, rows)

    async def finish_task(self, task_id: TaskId, rows: list[TokenRow], patch: TaskPatch) -> None:
        await self._write(task_id, rows, patch)
        await self.store.finish_task(task_id, rows, patch)

    async def _write(self, task_id: TaskId, rows: list[TokenRow], patch: TaskPatch | None) -> None:
        assert not self.under_way.get(task_id), "one write of a task at a time"
        self.under_way[task_id] = 1
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.error is not None:
                raise self.error
            self.writes.append((task_id, [row.seq for row in rows], patch))
        finally:
            self.under_way[task_id] = 0


@pytest.fixture
async def disk() -> Disk:
    made = Disk()
    for task_id in (ONE, TWO):
        await made.store.insert_task(
            TaskRecord(
                task_id=task_id,
                status="queued",
                modelcell=ModelName("m"),
                priority="medium",
                key_id=KeyId("k"),
                request=b"{}",
                created_at_ms=1,
            )
        )
    return made


@pytest.fixture
async def saver(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FlowSaver]:
    monkeypatch.setattr(flow_saver, "FLUSH_S", 0.005)
    monkeypatch.setattr(flow_saver, "RETRY_S", 0.005)
    made = FlowSaver(disk)  # type: ignore[arg-type]
    yield made
    await made.close()


def row(seq: int) -> TokenRow:
    return TokenRow(seq, f"t{seq}", (seq,))


async def kept(disk: Disk, task_id: TaskId = ONE) -> tuple[str, int, list[int]]:
    record = await disk.store.task(task_id)
    assert record is not None
    return record.status, record.attempts, [one.seq for one in await disk.store.tokens(task_id)]


async def test_tokens_are_written_together_and_soon(saver: FlowSaver, disk: Disk, until: Until) -> None:
    for seq in (1, 2, 3):
        saver.add_row(ONE, row(seq))
    saver.add_row(TWO, row(1))
    assert saver.has(ONE)
    assert disk.writes == []
    await until(lambda: not saver.has(ONE) and not saver.has(TWO))
    assert [(task_id, seqs) for task_id, seqs, _ in disk.writes] == [(ONE, [1, 2, 3]), (TWO, [1])]


async def test_a_state_is_written_at_once_with_the_tokens_before_it(saver: FlowSaver, disk: Disk) -> None:
    saver.add_row(ONE, row(1))
    saver.patch(ONE, TaskPatch(status="running", attempts=1))
    await saver.settle()
    assert disk.writes == [(ONE, [1], TaskPatch(status="running", attempts=1))]
    assert not saver.has(ONE)


async def test_what_comes_during_a_write_is_written_after_it_and_merged(
    saver: FlowSaver, disk: Disk, turn: Turn
) -> None:
    disk.gate = asyncio.Event()
    saver.patch(ONE, TaskPatch(status="running", attempts=1))
    await turn()
    saver.add_row(ONE, row(1))
    saver.patch(ONE, TaskPatch(attempts=2))
    saver.add_row(ONE, row(2))
    saver.patch(ONE, TaskPatch(status="done"))
    assert saver.has(ONE)
    disk.gate.set()
    await saver.settle()
    assert [(seqs, patch) for _, seqs, patch in disk.writes] == [
        ([], TaskPatch(status="running", attempts=1)),
        ([1, 2], TaskPatch(status="done", attempts=2)),
    ]


async def test_what_the_disk_does_not_take_is_tried_again_in_order(saver: FlowSaver, disk: Disk, until: Until) -> None:
    disk.error = StoreFullError()
    saver.add_row(ONE, row(1))
    saver.patch(ONE, TaskPatch(status="running", attempts=1))
    await saver.settle()
    saver.add_row(ONE, row(2))
    saver.patch(ONE, TaskPatch(status="done"))
    await saver.settle()
    assert saver.has(ONE)
    assert await kept(disk) == ("queued", 0, [])
    disk.error = None
    await until(lambda: not saver.has(ONE))
    assert await kept(disk) == ("done", 1, [1, 2])
    assert len(disk.writes) == 1


async def test_what_came_while_a_write_failed_stays_behind_it(
    saver: FlowSaver, disk: Disk, until: Until, turn: Turn
) -> None:
    disk.gate, disk.error = asyncio.Event(), StoreFullError()
    saver.add_row(ONE, row(1))
    saver.patch(ONE, TaskPatch(status="running", attempts=1))
    await turn()
    saver.add_row(ONE, row(2))
    saver.patch(ONE, TaskPatch(attempts=2))
    disk.gate.set()
    await saver.settle()
    disk.error = None
    await until(lambda: not saver.has(ONE))
    assert disk.writes == [(ONE, [1, 2], TaskPatch(status="running", attempts=2))]


async def test_one_that_cannot_be_written_does_not_hold_up_another(saver: FlowSaver, disk: Disk, until: Until) -> None:
    original = disk.append_tokens

    async def refuses_one(task_id: TaskId, rows: list[TokenRow]) -> None:
        if task_id == ONE:
            raise StoreFullError
        await original(task_id, rows)

    disk.append_tokens = refuses_one  # type: ignore[method-assign,assignment]
    saver.add_row(ONE, row(1))
    saver.add_row(TWO, row(1))
    await until(lambda: not saver.has(TWO))
    assert saver.has(ONE)
    disk.append_tokens = original  # type: ignore[method-assign]
    await until(lambda: not saver.has(ONE))
    assert (await kept(disk))[2] == (await kept(disk, TWO))[2] == [1]


async def test_who_waits_is_called_when_it_is_on_disk(saver: FlowSaver, disk: Disk, turn: Turn) -> None:
    called: list[tuple[str, bool]] = []
    disk.gate = asyncio.Event()
    saver.patch(ONE, TaskPatch(status="running"))
    await turn()
    saver.when_saved(ONE, lambda: called.append(("first", saver.has(ONE))))
    saver.patch(ONE, TaskPatch(attempts=1))
    saver.when_saved(ONE, lambda: called.append(("second", saver.has(ONE))))
    for _ in range(5):
        await turn()
    assert called == []
    disk.gate.set()
    await saver.settle()
    assert called == [("first", False), ("second", False)]
    assert (await kept(disk))[:2] == ("running", 1)
    saver.when_saved(ONE, lambda: called.append(("nothing to write", saver.has(ONE))))
    await saver.settle()
    assert called[-1] == ("nothing to write", False)


async def test_who_waits_is_called_when_it_cannot_be_written_too(saver: FlowSaver, disk: Disk) -> None:
    called: list[bool] = []
    disk.error = StoreFullError()
    saver.patch(ONE, TaskPatch(status="running"))
    saver.when_saved(ONE, lambda: called.append(saver.has(ONE)))
    await saver.settle()
    assert called == [True]
    disk.error = None


async def test_who_is_called_may_have_more_to_write(saver: FlowSaver, disk: Disk) -> None:
    def more() -> None:
        saver.patch(ONE, TaskPatch(status="done"))
        saver.when_saved(ONE, lambda: called.append(saver.has(ONE)))

    called: list[bool] = []
    saver.patch(ONE, TaskPatch(status="running"))
    saver.when_saved(ONE, more)
    await saver.settle()
    assert called == [False]
    assert (await kept(disk))[0] == "done"
    disk.error = StoreFullError()
    saver.when_saved(ONE, more)
    await saver.settle()
    assert called == [False, True]
    disk.error = None


async def test_a_task_that_is_not_there_any_more_is_let_go(saver: FlowSaver, disk: Disk) -> None:
    gone = TaskId("flow-gone")
    called: list[bool] = []
    saver.patch(gone, TaskPatch(status="done"))
    saver.when_saved(gone, lambda: called.append(saver.has(gone)))
    await saver.settle()
    assert (called, saver.has(gone)) == ([False], False)
    assert not saver._unsaved


async def test_closing_writes_what_is_there_once(disk: Disk) -> None:
    saver = FlowSaver(disk)  # type: ignore[arg-type]
    saver.add_row(ONE, row(1))
    await saver.close()
    assert (await kept(disk))[2] == [1]
    disk.error = StoreFullError()
    other = FlowSaver(disk)  # type: ignore[arg-type]
    other.add_row(TWO, row(1))
    await other.close()
    assert other._timer is None or other._timer.cancelled()
