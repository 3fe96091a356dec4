"""Durable submissions per second of the hivecomb, with the cost of one fsync on the same disk beside it.

``python -m bench.store [--seconds S] [--directory DIR] [--json] [--write-docs]``; DIR chooses the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import msgspec
import uvloop

from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.store.records import TaskPatch, TaskRecord, TokenRow
from swarmesh.store.sqlite import SqliteStore

from .relay.machine import describe

CALLERS = (1, 16, 64, 256)
"""How many submit at once, each its next when its last is durable."""
TOKENS_PER_APPEND = 16
GOAL_PER_S = 1_000
WAITING = 10_000
"""Tasks a queen finds unfinished when she starts again."""
RESTARTS = 5
FSYNCS = 500
PAGE_BYTES = 4_096
REQUEST = msgspec.json.encode({"prompt": "Tell me about bees. " * 25, "modelcell": "demo", "max_tokens": 128})
TICK_S = 0.005
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
BEGIN = "<!-- store:begin -->"
END = "<!-- store:end -->"


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


class Run(msgspec.Struct, frozen=True):
    """All figures of one run; an fsync is the write and fsync of one 4 KiB page."""

    fsync_ms_p50: float
    fsync_ms_p99: float
    unfinished_ms: float
    rows: list[Row]


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def fsync_ms(directory: Path) -> list[float]:
    """Milliseconds of each append and fsync of a page, what a commit of one submission needs at least."""
    found = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(FSYNCS):
            page = os.urandom(PAGE_BYTES)
            started = time.perf_counter()
            file.write(page)
            os.fsync(file.fileno())
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
    commits, writes = store.stats.commits - before.commits, store.stats.operations - before.operations
    return Row(
        what=what,
        callers=callers,
        per_second=len(took_ms) / elapsed_s,
        ms_p50=statistics.median(took_ms),
        ms_p99=percentile(took_ms, 0.99),
        per_commit=writes / commits,
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
        await store.append_tokens(TaskId(f"task-256-{number}-0"), some_tokens(1 + turn * TOKENS_PER_APPEND))

    async def live(number: int, turn: int) -> None:
        task_id = TaskId(f"life-{number}-{turn}")
        await store.insert_task(a_task(task_id))
        await store.finish_task(task_id, some_tokens(1), TaskPatch(status="done", finished_at_ms=1))

    rows.append(await measure(f"append of {TOKENS_PER_APPEND} tokens", store, 256, seconds, append))
    rows.append(await measure(f"submission and end with {TOKENS_PER_APPEND} tokens", store, 256, seconds, live))
    await store.close()
    return rows


def some_tokens(first: int) -> list[TokenRow]:
    return [TokenRow(seq, " honey", (seq,)) for seq in range(first, first + TOKENS_PER_APPEND)]


async def unfinished_ms(directory: Path) -> float:
    """How long a restarted queen waits for her unfinished tasks, the median of some restarts."""
    path = directory / "waiting.db"
    store = await SqliteStore.open(path)
    await asyncio.gather(*(store.insert_task(a_task(TaskId(f"task-{n}"))) for n in range(WAITING)))
    await store.close()
    took_ms = []
    for _ in range(RESTARTS):
        store = await SqliteStore.open(path)
        started = time.perf_counter()
        found = await store.unfinished_tasks()
        took_ms.append((time.perf_counter() - started) * 1e3)
        assert len(found) == WAITING
        await store.close()
    return statistics.median(took_ms)


def measured(directory: Path, seconds: float) -> Run:
    with tempfile.TemporaryDirectory(dir=directory, prefix="bench-store-") as name:
        # Before and after: on a disk shared with others the cost wanders.
        syncs_ms = fsync_ms(Path(name))
        rows = uvloop.run(bench(Path(name), seconds))
        syncs_ms += fsync_ms(Path(name))
        waited_ms = uvloop.run(unfinished_ms(Path(name)))
    return Run(statistics.median(syncs_ms), percentile(syncs_ms, 0.99), waited_ms, rows)


def markdown(run: Run, machine: dict[str, str]) -> str:
    """The figures, the goal and the machine."""
    best = max(row.per_second for row in run.rows if row.what == "submission")
    verdict = "held" if best >= GOAL_PER_S else "missed"
    syncs = f"p50 {run.fsync_ms_p50:.2f} ms, p99 {run.fsync_ms_p99:.2f} ms"
    lines = [
        f"Write and fsync of one page of {PAGE_BYTES:,} bytes on this disk, in the same run: {syncs}.",
        "One caller is bound by that; group commit carries the rest.",
        "",
        "| what | callers | per second | p50 ms | p99 ms | writes per commit | CPU µs each | loop late p99, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.what} | {row.callers} | {row.per_second:,.0f} | {row.ms_p50:.2f} | {row.ms_p99:.2f} "
        f"| {row.per_commit:.1f} | {row.cpu_us_each:.0f} | {row.loop_late_ms_p99:.2f} |"
        for row in run.rows
    ]
    requests = f"{WAITING:,} unfinished tasks, with their requests of {len(REQUEST)} bytes"
    lines += [
        "",
        f"- At least {GOAL_PER_S:,} durable submissions a second: {verdict} ({best:,.0f})",
        f"- A restarted queen has her {requests}, after {run.unfinished_ms:.0f} ms (median of {RESTARTS})",
    ]
    lines += [f"- {label}: `{text}`" if label == "Command" else f"- {label}: {text}" for label, text in machine.items()]
    return "\n".join([*lines, f"- SQLite: {apsw.sqlite_lib_version()}"])


def write_between_markers(text: str) -> None:
    content = PAGE.read_text(encoding="utf-8")
    assert content.count(BEGIN) == content.count(END) == 1, f"{PAGE} needs {BEGIN} and {END}, once each"
    before, _, rest = content.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.store", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement")
    parser.add_argument("--directory", type=Path, default=Path(), help="where to write: the disk under test")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--write-docs", action="store_true", help=f"rewrites the hivecomb's tables in {PAGE.name}")
    options = parser.parse_args()
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    machine = describe(shlex.join(["python", "-m", "bench.store", *sys.argv[1:]]), date, os.nice(0))
    run = measured(options.directory, options.seconds)
    text = markdown(run, machine)
    print(msgspec.json.encode(run).decode() if options.json else text)
    if options.write_docs:
        write_between_markers(text)


if __name__ == "__main__":
    main()
