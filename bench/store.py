"""Durable submissions per second of the hivecomb, with the cost of one fsync on the same disk beside it.

``python -m bench.store [--seconds S] [--directory DIR] [--json]``; DIR chooses the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import msgspec
import uvloop

from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.store.records import TaskRecord, TokenRow
from swarmesh.store.sqlite import SqliteStore

CALLERS = (1, 16, 64, 256)
"""How many submit at once, each its next when its last is durable."""
TOKENS_PER_APPEND = 16
FSYNCS = 200
PAGE_BYTES = 4_096
REQUEST = msgspec.json.encode({"prompt": "Tell me about bees. " * 25, "modelcell": "demo", "max_tokens": 128})
TICK_S = 0.005


class Row(msgspec.Struct, frozen=True):
    """One line of the table."""

    what: str
    callers: int
    per_second: float
    ms_p50: float
    ms_p99: float
    per_commit: float
    cpu_us_each: float
    loop_late_ms_p99: float


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def fsync_ms(directory: Path) -> list[float]:
    """Milliseconds of each fdatasync after a page was appended, what a commit of one submission needs at least."""
    found = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(FSYNCS):
            file.write(os.urandom(PAGE_BYTES))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            found.append((time.perf_counter() - started) * 1e3)
    return found


async def lateness_ms(found: list[float]) -> None:
    """Note how late the event loop wakes up, until cancelled."""
    while True:
        due = time.perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        found.append(max(0.0, time.perf_counter() - due) * 1e3)


async def measure(
    what: str, store: SqliteStore, callers: int, seconds: float, write: Callable[[int, int], Awaitable[object]]
) -> Row:
    """Let callers write one after another for a while; ``write`` gets the caller's number and its turn."""
    late_ms: list[float] = []
    took_ms: list[float] = []
    before, cpu_before, started = store.stats, time.process_time(), time.perf_counter()
    ticker = asyncio.create_task(lateness_ms(late_ms))

    async def call(number: int) -> None:
        turn = 0
        while (begun := time.perf_counter()) < started + seconds:
            await write(number, turn)
            took_ms.append((time.perf_counter() - begun) * 1e3)
            turn += 1

    await asyncio.gather(*(call(number) for number in range(callers)))
    elapsed_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_before
    ticker.cancel()
    commits = store.stats.commits - before.commits
    return Row(
        what=what,
        callers=callers,
        per_second=len(took_ms) / elapsed_s,
        ms_p50=statistics.median(took_ms),
        ms_p99=percentile(took_ms, 0.99),
        per_commit=len(took_ms) / commits,
        cpu_us_each=cpu_s / len(took_ms) * 1e6,
        loop_late_ms_p99=percentile(late_ms, 0.99),
    )


def a_task(task_id: TaskId) -> TaskRecord:
    return TaskRecord(
        task_id, "queued", ModelName("demo"), "medium", KeyId("bench"), REQUEST, time.time_ns() // 1_000_000
    )


async def bench(directory: Path, seconds: float) -> list[Row]:
    rows = []
    store = await SqliteStore.open(directory / "hivecomb.db")
    for callers in CALLERS:

        async def submit(number: int, turn: int, callers: int = callers) -> None:
            await store.insert_task(a_task(TaskId(f"task-{callers}-{number}-{turn}")))

        rows.append(await measure("submission", store, callers, seconds, submit))

    async def append(number: int, turn: int) -> None:
        first = 1 + turn * TOKENS_PER_APPEND
        tokens = [TokenRow(seq, " honey", (seq,)) for seq in range(first, first + TOKENS_PER_APPEND)]
        await store.append_tokens(TaskId(f"task-256-{number}-0"), tokens)

    rows.append(await measure(f"append of {TOKENS_PER_APPEND} tokens", store, 256, seconds, append))
    await store.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement")
    parser.add_argument("--directory", type=Path, default=Path(), help="where to write: the disk under test")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="bench-store-") as name:
        # Before and after: on a disk shared with others the cost wanders.
        syncs_ms = fsync_ms(Path(name))
        rows = uvloop.run(bench(Path(name), options.seconds))
        syncs_ms += fsync_ms(Path(name))
    p50_ms, p99_ms = statistics.median(syncs_ms), percentile(syncs_ms, 0.99)
    if options.json:
        print(msgspec.json.encode({"fsync_ms_p50": p50_ms, "fsync_ms_p99": p99_ms, "rows": rows}).decode())
        return
    print(
        f"one fsync of a fresh page on this disk: p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms, so at most "
        f"{1e3 / p50_ms:.0f} commits/s; SQLite {apsw.sqlite_lib_version()}, request of {len(REQUEST)} bytes"
    )
    print(
        f"{'what':<24}{'callers':>8}{'per s':>9}{'p50 ms':>9}{'p99 ms':>9}{'per commit':>12}"
        f"{'CPU us each':>13}{'loop late p99 ms':>18}"
    )
    for row in rows:
        print(
            f"{row.what:<24}{row.callers:>8}{row.per_second:>9.0f}{row.ms_p50:>9.2f}{row.ms_p99:>9.2f}"
            f"{row.per_commit:>12.1f}{row.cpu_us_each:>13.0f}{row.loop_late_ms_p99:>18.2f}"
        )


if __name__ == "__main__":
    main()
