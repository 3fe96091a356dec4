"""What the hivecomb does to its disk, and what a full disk does to the hivecomb."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from faulty_vfs import RefusingDisk
from small_disk import fill, small_disk
from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.store import writer as writer_module
from swarmesh.store.errors import StoreFullError
from swarmesh.store.records import TaskPatch, TaskRecord, TokenRow
from swarmesh.store.sqlite import SqliteStore

TASK = TaskRecord(
    TaskId("t"), "queued", ModelName("demo"), "medium", KeyId("k"), b'{"prompt":"Hello"}', created_at_ms=1
)


def a_task(name: str, **changes: Any) -> TaskRecord:
    return replace(TASK, task_id=TaskId(name), **changes)


class Disk(apsw.VFS):
    """The machine's disk, counting its syncs, with room for only so much growth of its files."""

    def __init__(self) -> None:
        self.name = f"disk-{id(self)}"
        self.syncs = 0
        self.room_bytes = sys.maxsize
        super().__init__(self.name, base="")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return DiskFile(self, name, flags)


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        growth_bytes = max(0, offset + len(data) - self.xFileSize())
        if growth_bytes > self._disk.room_bytes:
            raise apsw.FullError("no room")
        self._disk.room_bytes -= growth_bytes
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.syncs += 1
        super().xSync(flags)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.unregister()


@pytest.fixture
def refusing_disk() -> Iterator[RefusingDisk]:
    disk = RefusingDisk()
    yield disk
    disk.unregister()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hivecomb.db"


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    """Two MiB, really."""
    with small_disk(tmp_path / "small", "2m") as small:
        yield small


async def insert_until_full(store: SqliteStore, request_bytes: int) -> int:
    """How many finished tasks with such a request fitted."""
    for inserted in range(1_000):
        task = a_task(f"fill-{inserted}", request=bytes(request_bytes), status="done", finished_at_ms=1)
        try:
            await store.insert_task(task)
        except StoreFullError:
            return inserted
    raise AssertionError("the disk never filled")


async def test_many_submissions_share_one_sync(path: Path, disk: Disk) -> None:
    store = await SqliteStore.open(path, vfs=disk.name)
    syncs_before = disk.syncs
    await asyncio.gather(*(store.insert_task(a_task(f"t{n}")) for n in range(500)))
    assert store.stats.operations == 500
    assert store.stats.commits < 250  # One for two at the most, even where the writer is ahead of a busy event loop.
    assert disk.syncs - syncs_before <= 2 * store.stats.commits
    await store.close()


async def test_every_lone_submission_is_synced(path: Path, disk: Disk) -> None:
    store = await SqliteStore.open(path, vfs=disk.name)
    for n in range(10):
        syncs_before = disk.syncs
        await store.insert_task(a_task(f"t{n}"))
        assert disk.syncs > syncs_before
    await store.close()


async def test_a_full_disk_fails_its_callers_and_heals_by_itself(path: Path, disk: Disk) -> None:
    store = await SqliteStore.open(path, vfs=disk.name)
    await store.insert_task(a_task("before"))
    disk.room_bytes = 0
    inserts = (store.insert_task(a_task(f"t{n}")) for n in range(20))
    outcomes = await asyncio.gather(*inserts, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreFullError}
    with pytest.raises(StoreFullError, match="no room to write the hivecomb") as raised:
        await store.update_task(TaskId("before"), TaskPatch(status="running"))
    assert (raised.value.status, raised.value.code) == (507, "hivecomb_full")
    assert raised.value.retry_after_s
    assert [task.task_id for task in await store.unfinished_tasks()] == ["before"], "reading goes on"

    disk.room_bytes = sys.maxsize
    await store.insert_task(a_task("after"))
    await store.update_task(TaskId("before"), TaskPatch(status="running"))
    await store.close()
    store = await SqliteStore.open(path)
    kept = [(task.task_id, task.status) for task in await store.unfinished_tasks()]
    assert kept == [("before", "running"), ("after", "queued")]
    await store.close()


async def test_what_still_fits_on_an_almost_full_disk_is_kept(path: Path, disk: Disk) -> None:
    store = await SqliteStore.open(path, vfs=disk.name)
    disk.room_bytes = 200_000
    sizes = [10, 500_000, 20, 600_000, 30]
    inserts = (store.insert_task(a_task(f"t{n}", request=bytes(size))) for n, size in enumerate(sizes))
    outcomes = await asyncio.gather(*inserts, return_exceptions=True)
    assert [isinstance(outcome, StoreFullError) for outcome in outcomes] == [False, True, False, True, False]
    assert [len(task.request) for task in await store.unfinished_tasks()] == [10, 20, 30]
    disk.room_bytes = sys.maxsize
    await store.close()


async def test_a_capped_hivecomb_has_room_again_after_a_prune(path: Path) -> None:
    store = await SqliteStore.open(path, max_bytes=1_000_000)
    fitted = await insert_until_full(store, request_bytes=20_000)
    assert 10 < fitted < 60
    assert await store.prune(before_ms=2) == fitted
    assert await insert_until_full(store, request_bytes=20_000) == fitted
    await store.close()


async def test_a_really_full_file_system_fails_and_heals(small_file_system: Path) -> None:
    store = await SqliteStore.open(small_file_system / "hivecomb.db")
    filler = small_file_system / "filler"
    await asyncio.to_thread(fill, filler)
    fitted = await insert_until_full(store, request_bytes=4_000)
    await asyncio.to_thread(filler.unlink)
    await store.insert_task(a_task("after", request=bytes(4_000)))
    assert len(await store.tasks(limit=1_000)) == fitted + 1
    await store.close()


async def test_closing_on_a_full_file_system_loses_nothing(small_file_system: Path) -> None:
    store = await SqliteStore.open(small_file_system / "hivecomb.db")
    fitted = await insert_until_full(store, request_bytes=4_000)
    await store.close()
    store = await SqliteStore.open(small_file_system / "hivecomb.db")
    assert len(await store.tasks(limit=1_000)) == fitted
    await store.close()


async def every_write_is_refused(store: SqliteStore, known: TaskId) -> None:
    """Each kind of it, with the error a client can act on."""
    writes = (
        store.insert_task(a_task("refused", request=bytes(9_000))),
        store.update_task(known, TaskPatch(status="running")),
        store.append_tokens(known, [TokenRow(1, "x" * 9_000)]),
        store.finish_task(known, [TokenRow(1, "x" * 9_000)], TaskPatch(status="done")),
        store.next_epoch(),
    )
    for outcome in await asyncio.gather(*writes, return_exceptions=True):
        assert isinstance(outcome, StoreFullError), outcome
        assert (outcome.status, outcome.retry_after_s) == (507, 30)
        assert "no restart" in outcome.hint


async def test_no_room_in_the_log_refuses_writes_and_lets_reads_go_on(path: Path, refusing_disk: RefusingDisk) -> None:
    store = await SqliteStore.open(path, vfs=refusing_disk.name)
    known = a_task("known")
    await store.insert_task(known)
    refusing_disk.refused = ("-wal",)
    await every_write_is_refused(store, known.task_id)
    assert await store.task(known.task_id) == known
    assert await store.unfinished_tasks() == [known]
    assert await store.tokens(known.task_id) == []
    refusing_disk.refused = ()
    await store.finish_task(known.task_id, [TokenRow(1, "x")], TaskPatch(status="done"))
    assert await store.next_epoch() == 1
    await store.close()


async def test_no_room_in_the_file_only_lets_the_log_grow(
    path: Path, refusing_disk: RefusingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "CHECKPOINT_PAGES", 20)
    monkeypatch.setattr(writer_module, "WAL_PAGES_MAX", 60)
    store = await SqliteStore.open(path, vfs=refusing_disk.name)
    refusing_disk.refused = (".db",)
    for n in range(60):
        await store.insert_task(a_task(f"t{n}", request=bytes(9_000)))
    assert store.stats.checkpoint_failures >= 3
    assert store.stats.checkpoints == 0
    assert len(await store.unfinished_tasks()) == 60
    refusing_disk.refused = ()
    for n in range(60, 120):
        await store.insert_task(a_task(f"t{n}", request=bytes(9_000)))
    assert store.stats.checkpoints
    await store.close()
    store = await SqliteStore.open(path)
    assert len(await store.unfinished_tasks()) == 120
    await store.close()


async def test_a_close_without_room_for_the_log_s_return_keeps_the_log(path: Path, refusing_disk: RefusingDisk) -> None:
    store = await SqliteStore.open(path, vfs=refusing_disk.name)
    refusing_disk.refused = (".db",)
    await store.insert_task(TASK)
    await store.close()
    store = await SqliteStore.open(path)
    assert await store.task(TASK.task_id) == TASK
    await store.close()


async def test_a_really_full_file_system_is_full_for_every_write_and_no_read(small_file_system: Path) -> None:
    store = await SqliteStore.open(small_file_system / "hivecomb.db")
    known = a_task("known")
    await store.insert_task(known)
    filler = small_file_system / "filler"
    await asyncio.to_thread(fill, filler)
    await insert_until_full(store, request_bytes=4_000)
    await every_write_is_refused(store, known.task_id)
    assert await store.task(known.task_id) == known
    assert await store.unfinished_tasks() == [known]
    assert await store.tokens(known.task_id) == []
    await asyncio.to_thread(filler.unlink)
    await store.finish_task(known.task_id, [TokenRow(1, "x" * 9_000)], TaskPatch(status="done"))
    assert await store.next_epoch() == 1
    await store.close()


async def test_a_hivecomb_opens_on_a_full_file_system(small_file_system: Path) -> None:
    path = small_file_system / "hivecomb.db"
    store = await SqliteStore.open(path)
    for n in range(20):
        await store.insert_task(a_task(f"t{n}", request=bytes(4_000)))
    filler = small_file_system / "filler"
    await asyncio.to_thread(fill, filler)
    fitted = 20 + await insert_until_full(store, request_bytes=4_000)
    await store.close()
    await asyncio.to_thread(fill, small_file_system / "second filler")
    store = await SqliteStore.open(path, boot_id="next")
    assert len(await store.tasks(limit=1_000)) == fitted
    await every_write_is_refused(store, TaskId("t0"))
    await asyncio.to_thread(filler.unlink)
    await store.insert_task(TASK)
    await store.close()


async def test_no_room_to_open_is_said_so(small_file_system: Path) -> None:
    path = small_file_system / "hivecomb.db"
    store = await SqliteStore.open(path)
    await store.insert_task(TASK)
    await store.close()
    filler = small_file_system / "filler"
    await asyncio.to_thread(fill, filler)
    with pytest.raises(StoreFullError, match="no room"):
        await SqliteStore.open(path)
    await asyncio.to_thread(filler.unlink)
    store = await SqliteStore.open(path)
    assert await store.task(TASK.task_id) == TASK
    await store.close()
