"""The file of the hivecomb: who may read it, damage, other versions, and reads beside writes."""

import asyncio
import stat
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from swarmesh.core.errors import HivecombLockedError, InvalidValueError, StoreError
from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.store.records import TaskPatch, TaskRecord, TokenRow
from swarmesh.store.schema import migrations
from swarmesh.store.sqlite import SqliteStore

PAGE_BYTES = 4_096
TASK = TaskRecord(
    TaskId("t"), "queued", ModelName("demo"), "medium", KeyId("k"), b'{"prompt":"Hello"}', created_at_ms=1
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hivecomb.db"


def a_task(name: str, **changes: Any) -> TaskRecord:
    return replace(TASK, task_id=TaskId(name), **changes)


def modes(directory: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()}


@pytest.fixture
def readable_by_all(path: Path) -> Path:
    path.touch(mode=0o644)
    return path


@pytest.fixture
def text_file(path: Path) -> Path:
    path.write_text("these are not the pages you look for\n" * 200)
    return path


async def test_the_files_are_private(readable_by_all: Path) -> None:
    store = await SqliteStore.open(readable_by_all)
    await store.insert_task(TASK)
    names = ["hivecomb.db", "hivecomb.db-shm", "hivecomb.db-wal", "hivecomb.db.lock"]
    assert modes(readable_by_all.parent) == dict.fromkeys(names, 0o600)
    await store.close()


async def test_a_closed_hivecomb_is_one_file(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.insert_task(TASK)
    await store.close()
    assert sorted(modes(path.parent)) == ["hivecomb.db", "hivecomb.db.lock"]
    store = await SqliteStore.open(path)
    assert await store.task(TASK.task_id) == TASK
    await store.close()


async def test_what_is_no_database_is_named_and_left_alone(text_file: Path) -> None:
    before = await asyncio.to_thread(text_file.read_bytes)
    with pytest.raises(StoreError, match=r"hivecomb\.db is damaged or no SQLite file") as raised:
        await SqliteStore.open(text_file)
    assert "backup" in raised.value.hint
    assert await asyncio.to_thread(text_file.read_bytes) == before
    await asyncio.to_thread(text_file.unlink)
    await (await SqliteStore.open(text_file)).close()


def damage(path: Path) -> None:
    """Overwrite all but the first pages, which have the schema and the roots of all trees."""
    content = path.read_bytes()
    kept_bytes = 32 * PAGE_BYTES
    path.write_bytes(content[:kept_bytes] + b"\xff" * (len(content) - kept_bytes))


@pytest.fixture
async def damaged(path: Path) -> Path:
    """Whole when it was closed in the boot called 'this'; something happened to it since."""
    store = await SqliteStore.open(path, boot_id="this")
    for n in range(50):
        await store.insert_task(a_task(f"t{n}", request=bytes(3_000)))
    await store.close()
    await asyncio.to_thread(damage, path)
    return path


@pytest.mark.parametrize("boot_id", ["", "another"])
async def test_a_new_boot_looks_for_damage_first(damaged: Path, boot_id: str) -> None:
    for _ in range(2):
        with pytest.raises(StoreError, match=r"hivecomb\.db is damaged") as raised:
            await SqliteStore.open(damaged, boot_id=boot_id)
        assert "backup" in raised.value.hint
        assert "\n" not in raised.value.message


async def test_tokens_without_their_task_are_damage(path: Path) -> None:
    await (await SqliteStore.open(path)).close()
    connection = apsw.Connection(str(path))
    connection.execute("INSERT INTO tokens (submission, seq, text) VALUES (7, 1, 'x'), (7, 2, 'y')")
    connection.close()
    with pytest.raises(StoreError, match="rows that belong to nothing: 2, the first in tokens"):
        await SqliteStore.open(path)


async def test_a_check_in_this_boot_is_not_repeated(path: Path) -> None:
    await (await SqliteStore.open(path, boot_id="this")).close()
    connection = apsw.Connection(str(path))
    connection.execute("INSERT INTO tokens (submission, seq, text) VALUES (7, 1, 'x')")
    connection.close()
    await (await SqliteStore.open(path, boot_id="this")).close()
    with pytest.raises(StoreError, match="rows that belong to nothing: 1, the first in tokens"):
        await SqliteStore.open(path, boot_id="next")


async def test_damage_that_comes_later_is_reported_when_it_is_met(damaged: Path) -> None:
    store = await SqliteStore.open(damaged, boot_id="this")
    with pytest.raises(StoreError, match=r"hivecomb\.db is damaged"):
        await store.unfinished_tasks()
    with pytest.raises(StoreError, match=r"hivecomb\.db is damaged"):
        await store.insert_task(a_task("new"))
    await store.close()


async def test_a_newer_schema_is_refused_and_the_lock_let_go(path: Path) -> None:
    await (await SqliteStore.open(path)).close()
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", len(migrations()) + 1)
    connection.close()
    for _ in range(2):
        with pytest.raises(StoreError, match="has schema version") as raised:
            await SqliteStore.open(path)
        assert not isinstance(raised.value, HivecombLockedError)


async def test_two_links_to_one_hivecomb_meet_at_one_lock(path: Path, tmp_path: Path) -> None:
    store = await SqliteStore.open(path)
    link = tmp_path / "elsewhere.db"
    await asyncio.to_thread(link.symlink_to, path)
    with pytest.raises(HivecombLockedError):
        await SqliteStore.open(link)
    await store.close()


async def test_values_no_file_can_hold_are_bad_input(path: Path) -> None:
    store = await SqliteStore.open(path)
    with pytest.raises(InvalidValueError):
        await store.task(TaskId("\ud800"))
    with pytest.raises(InvalidValueError):
        await store.tokens(TaskId("t"), after_seq=2**70)
    with pytest.raises(InvalidValueError):
        await store.insert_task(a_task("t", attempts=2**70))
    await store.insert_task(TASK)
    rows = [TokenRow(1, "good"), TokenRow(2, "\ud800")]
    with pytest.raises(InvalidValueError):
        await store.finish_task(TASK.task_id, rows, TaskPatch(status="done"))
    with pytest.raises(InvalidValueError):
        await store.finish_task(TASK.task_id, rows[:1], TaskPatch(status="done", kills=2**70))
    assert await store.task(TASK.task_id) == TASK
    assert await store.tokens(TASK.task_id) == [], "an end that cannot be kept leaves no half"
    await store.close()


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        await SqliteStore.open(tmp_path / "nowhere" / "hivecomb.db")


async def test_reads_go_on_while_a_write_is_stuck(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.insert_task(TASK)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    stuck = asyncio.create_task(store.update_task(TASK.task_id, TaskPatch(status="running")))
    reads = await asyncio.gather(*(store.task(TASK.task_id) for _ in range(100)))
    assert [read.status for read in reads if read] == ["queued"] * 100
    assert not stuck.done()
    other.execute("ROLLBACK")
    other.close()
    await stuck
    await store.close()


async def test_a_read_sees_every_write_that_was_answered(path: Path) -> None:
    store = await SqliteStore.open(path)

    async def live(task_id: TaskId) -> None:
        await store.insert_task(a_task(task_id))
        for last in range(8, 41, 8):
            rows = [TokenRow(seq, f"{seq} ", (seq,)) for seq in range(max(1, last - 10), last + 1)]
            await store.append_tokens(task_id, rows)
            assert [row.seq for row in await store.tokens(task_id)] == list(range(1, last + 1))
        await store.update_task(task_id, TaskPatch(status="done", finished_at_ms=2))
        assert await store.task(task_id) == a_task(task_id, status="done", finished_at_ms=2)

    await asyncio.gather(*(live(TaskId(f"t{n}")) for n in range(60)))
    assert await store.unfinished_tasks() == []
    await store.close()
