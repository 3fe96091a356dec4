"""Group commit, on a real file and with a gate that holds the writer still."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event
from types import TracebackType

import apsw
import pytest

from swarmesh.core.errors import ConflictError, InvalidValueError, StoreError
from swarmesh.store import writer as writer_module
from swarmesh.store.connection import open_writer
from swarmesh.store.errors import StoreClosedError, StoreFullError
from swarmesh.store.writer import Operation, Writer


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    path = tmp_path / "hivecomb.db"
    opened = Writer(open_writer(path, vfs=None, max_bytes=None), path)
    await opened.run(lambda connection: connection.execute("CREATE TABLE notes (note TEXT UNIQUE) STRICT"))
    yield opened
    await opened.close()


class Gate:
    """Keeps the writer inside one operation, so that what follows has to gather."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._entered = asyncio.Event()
        self._open = Event()
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._writer.run(self._wait))
        await self._entered.wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.set()
        await self._task

    def _wait(self, _connection: apsw.Connection) -> None:
        self._loop.call_soon_threadsafe(self._entered.set)
        assert self._open.wait(timeout=30)


async def one_turn() -> None:
    """Let every task that is ready run once."""
    turned = asyncio.Event()
    asyncio.get_running_loop().call_soon(turned.set)
    await turned.wait()


def note(text: object) -> Operation[None]:
    def operation(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO notes VALUES (?)", (text,))

    return operation


def failing(exc: Exception) -> Operation[None]:
    def operation(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO notes VALUES ('half')")
        raise exc

    return operation


async def notes(writer: Writer) -> list[str]:
    return await writer.run(lambda connection: [row[0] for row in connection.execute("SELECT * FROM notes")])


async def gathered(writer: Writer, operations: list[Operation[None]]) -> list[BaseException | None]:
    async with Gate(writer):
        tasks = [asyncio.create_task(writer.run(operation)) for operation in operations]
        await one_turn()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_gathers_during_a_commit_shares_the_next_one(writer: Writer) -> None:
    before = writer.stats
    assert await gathered(writer, [note(f"{n}") for n in range(100)]) == [None] * 100
    assert writer.stats.operations - before.operations == 101
    assert writer.stats.commits - before.commits == 2
    assert writer.stats.largest_batch == 100


async def test_a_batch_is_bounded_in_operations(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "BATCH_OPERATIONS", 10)
    await gathered(writer, [note(f"{n}") for n in range(25)])
    assert writer.stats.largest_batch == 10


async def test_a_batch_is_bounded_in_bytes(writer: Writer) -> None:
    before = writer.stats.commits
    async with Gate(writer):
        writes = [writer.run(note(f"{n}"), size_bytes=writer_module.BATCH_BYTES) for n in range(3)]
        tasks = [asyncio.create_task(write) for write in writes]
        await one_turn()
    await asyncio.gather(*tasks)
    assert writer.stats.commits - before == 4


async def test_the_queue_is_bounded_and_nobody_is_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "QUEUE_OPERATIONS", 4)
    path = tmp_path / "hivecomb.db"
    writer = Writer(open_writer(path, vfs=None, max_bytes=None), path)
    await writer.run(lambda connection: connection.execute("CREATE TABLE notes (note TEXT) STRICT"))
    expected = [f"{n}" for n in range(20)]
    async with Gate(writer):
        tasks = [asyncio.create_task(writer.run(note(text))) for text in expected]
        await one_turn()
        assert writer._queue.qsize() == 3
    await asyncio.gather(*tasks)
    assert await notes(writer) == expected
    await writer.close()


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (failing(ConflictError("taken")), ConflictError),
        (note("first"), StoreError),  # breaks the UNIQUE constraint
        (note(b"bytes into TEXT"), StoreError),
        (note("\ud800"), InvalidValueError),
        (note(2**70), InvalidValueError),
        (note(object()), InvalidValueError),
    ],
)
async def test_a_failure_hurts_only_its_own_caller(
    writer: Writer, bad: Operation[None], expected: type[Exception]
) -> None:
    before = writer.stats.commits
    first, failed, last = await gathered(writer, [note("first"), bad, note("last")])
    assert (first, last) == (None, None)
    assert isinstance(failed, expected)
    assert await notes(writer) == ["first", "last"]
    assert writer.stats.commits - before == 3, "the good ones still shared one commit"


async def test_when_the_transaction_is_lost_each_gets_its_own(writer: Writer) -> None:
    def too_much(connection: apsw.Connection) -> None:
        pages = connection.pragma("page_count")
        connection.pragma("max_page_count", pages + 5)
        try:
            connection.execute("INSERT INTO notes VALUES (hex(zeroblob(1000000)))")
        finally:
            connection.pragma("max_page_count", 2**31)

    first, failed, last = await gathered(writer, [note("first"), too_much, note("last")])
    assert (first, last) == (None, None)
    assert isinstance(failed, StoreFullError)
    assert (failed.code, failed.status) == ("hivecomb_full", 507)
    assert await notes(writer) == ["first", "last"]


async def test_an_unknown_error_fails_its_batch_and_the_writer_goes_on(
    writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = await gathered(writer, [note("a"), failing(KeyError("bug")), note("b")])
    assert {type(outcome) for outcome in outcomes} == {StoreError}
    assert "KeyError" in caplog.text
    await writer.run(note("after"))
    assert await notes(writer) == ["after"]


async def test_a_caller_that_went_away_takes_nobody_along(writer: Writer) -> None:
    async with Gate(writer):
        gone = asyncio.create_task(writer.run(note("gone")))
        stays = asyncio.create_task(writer.run(note("stays")))
        await one_turn()
        gone.cancel()
    await stays
    assert gone.cancelled()
    assert await notes(writer) == ["gone", "stays"]


async def test_close_finishes_what_is_queued_and_refuses_the_rest(writer: Writer) -> None:
    async with Gate(writer):
        queued = asyncio.create_task(writer.run(note("queued")))
        await one_turn()
        closing = asyncio.create_task(writer.close())
        await one_turn()
        with pytest.raises(StoreClosedError):
            await writer.run(note("late"))
    await closing
    await queued


async def test_the_log_is_copied_back_in_bounded_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "CHECKPOINT_PAGES", 8)
    path = tmp_path / "hivecomb.db"
    writer = Writer(open_writer(path, vfs=None, max_bytes=None), path)
    await writer.run(lambda connection: connection.execute("CREATE TABLE notes (note TEXT) STRICT"))
    for _ in range(100):
        await writer.run(note("x" * 2_000))
    assert 5 <= writer.stats.checkpoints <= 60
    wal_bytes = await asyncio.to_thread(os.path.getsize, f"{path}-wal")
    assert wal_bytes < 32 * 4_200
    await writer.close()


def test_a_loop_that_ends_first_leaves_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "hivecomb.db"

    async def abandon() -> Writer:
        writer = Writer(open_writer(path, vfs=None, max_bytes=None), path)
        abandoned = asyncio.create_task(writer.run(lambda connection: connection.changes()))
        await one_turn()
        abandoned.cancel()
        return writer

    writer = asyncio.run(abandon())
    writer._queue.put(None)
    writer._thread.join(timeout=30)
    assert not writer._thread.is_alive()
