"""Processes that die over a hivecomb, and processes that want the same one."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarmesh.core.errors import HivecombLockedError
from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.store.records import TaskRecord
from swarmesh.store.sqlite import SqliteStore
from swarmesh.store.store import READ_LIMIT

LANES = 16
TOKENS = 40
# Says its epoch, then the name of each task only after the store promised that it ended and has all its tokens.
WRITER_SCRIPT = f"""
import asyncio, os, sys
from pathlib import Path
from swarmesh.store.records import TaskPatch, TaskRecord, TokenRow
from swarmesh.store.sqlite import SqliteStore

async def submit(store, lane):
    for n in range(1_000_000):
        name = f"{{lane}}-{{os.getpid()}}-{{n}}"
        await store.insert_task(TaskRecord(name, "queued", "demo", "medium", "k", b"{{}}", 1))
        await store.append_tokens(name, [TokenRow(1, "a"), TokenRow(2, "b")])
        rows = [TokenRow(seq, "c") for seq in range(3, {TOKENS} + 1)]
        await store.finish_task(name, rows, TaskPatch(status="done", finished_at_ms=2))
        os.write(1, f"{{name}}\\n".encode())

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    os.write(1, f"{{await store.next_epoch()}}\\n".encode())
    await asyncio.gather(*(submit(store, lane) for lane in range({LANES})))

asyncio.run(main())
"""
# Holds the hivecomb beside a child that outlives it and inherits whatever can be inherited.
HOLDER_SCRIPT = """
import asyncio, subprocess, sys
from pathlib import Path
from swarmesh.store.sqlite import SqliteStore

async def main():
    await SqliteStore.open(Path(sys.argv[1]))
    child = subprocess.Popen([sys.executable, "-c", "input()"], close_fds=False)
    print(child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def spawn(script: str, path: Path) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", script, str(path)]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def promises_until_killed(path: Path, lines: int) -> tuple[int, list[str]]:
    """The epoch and every name that the child said, killed with -9 in the middle of its work after some lines."""
    with spawn(WRITER_SCRIPT, path) as child:
        assert child.stdout is not None
        epoch = int(child.stdout.readline())
        said = [child.stdout.readline() for _ in range(lines)]
        child.kill()
        said += child.stdout.readlines()
    return epoch, [line.decode().strip() for line in said if line.endswith(b"\n")]


async def finished_tasks(store: SqliteStore) -> set[str]:
    """All that are done, each with every token; no other has any of its last ones."""
    kept = await store.tasks(limit=READ_LIMIT)
    assert len(kept) < READ_LIMIT, "all were looked at"
    for task in kept:
        seqs = [row.seq for row in await store.tokens(task.task_id)]
        if task.status == "done":
            assert seqs == list(range(1, TOKENS + 1))
        else:
            assert seqs in ([], [1, 2])
    return {task.task_id for task in kept if task.status == "done"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hivecomb.db"


@pytest.mark.parametrize("lines", [1, 40, 150, 400, 1_000])
async def test_what_was_acknowledged_survives_kill_9(path: Path, lines: int) -> None:
    epoch, promised = await asyncio.to_thread(promises_until_killed, path, lines)
    store = await SqliteStore.open(path)
    assert len(promised) >= lines
    assert set(promised) <= await finished_tasks(store)
    assert (epoch, await store.next_epoch()) == (1, 2)
    await store.close()


async def test_a_hivecomb_that_was_killed_again_and_again_has_everything(path: Path) -> None:
    promised: list[str] = []
    for life, lines in enumerate((30, 60, 90), start=1):
        epoch, more = await asyncio.to_thread(promises_until_killed, path, lines)
        assert epoch == life
        promised += more
    store = await SqliteStore.open(path)
    assert set(promised) <= await finished_tasks(store)
    assert await store.next_epoch() == 4
    await store.close()


async def test_a_second_process_is_told_who_holds_the_hivecomb(path: Path) -> None:
    store = await SqliteStore.open(path)
    second = await asyncio.to_thread(spawn, WRITER_SCRIPT, path)
    _, stderr = await asyncio.to_thread(second.communicate)
    assert second.returncode == 1
    assert f"HivecombLockedError: process {os.getpid()} has this hivecomb open" in stderr.decode()
    task = TaskRecord(TaskId("t"), "queued", ModelName("demo"), "medium", KeyId("k"), b"{}", 1)
    assert await store.insert_task(task) == task
    await store.close()


async def test_two_stores_of_one_process_exclude_each_other(path: Path) -> None:
    store = await SqliteStore.open(path)
    with pytest.raises(HivecombLockedError):
        await SqliteStore.open(path)
    await store.close()
    await (await SqliteStore.open(path)).close()


async def test_the_child_of_a_dead_queen_does_not_keep_the_lock(path: Path) -> None:
    holder = await asyncio.to_thread(spawn, HOLDER_SCRIPT, path)
    assert holder.stdout is not None
    child_pid = int(await asyncio.to_thread(holder.stdout.readline))
    with pytest.raises(HivecombLockedError, match=f"process {holder.pid} has"):
        await SqliteStore.open(path)
    holder.kill()
    await asyncio.to_thread(holder.wait)
    os.kill(child_pid, 0)  # raises unless the child still lives
    # The child drops what it has inherited when it becomes its program, which may be a moment after its birth.
    async with asyncio.timeout(10):
        while True:
            try:
                await (await SqliteStore.open(path)).close()
                break
            except HivecombLockedError:
                await asyncio.sleep(0.01)
    os.kill(child_pid, 0)
    await asyncio.to_thread(holder.communicate)
