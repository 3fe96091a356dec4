"""What the hivecomb does to its disk, and what a full disk does to the hivecomb."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.store.errors import StoreFullError
from swarmesh.store.records import TaskPatch, TaskRecord
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
def path(tmp_path: Path) -> Path:
    return tmp_path / "hivecomb.db"


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    """One MiB, really: a tmpfs of its own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    small = tmp_path / "small"
    small.mkdir()
    mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not allow mounts")
    yield small
    subprocess.run(["/bin/umount", str(small)], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4_096))


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
    assert store.stats.commits < 50
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
