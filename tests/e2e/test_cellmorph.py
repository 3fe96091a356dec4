"""Cellmorph: two modelcells on a host with memory for one, real engines, and nobody who asked is refused.

``pytest -s`` prints the figures.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from swarm_rig import Swarm, is_alive
from swarmesh.models import demo

pytestmark = pytest.mark.timeout(300)

CELLS = ("cell-a", "cell-b")
HOST_SHARE = 0.5
"""Of what may be promised of a host's memory: a modelcell that is reserved more than this is alone there."""
SEQUENTIAL = 6
CONCURRENT_S = 6.0
"""For so long they ask at least, and then until both have had their turn."""
CONCURRENT_S_MAX = 150.0
TURNS_MIN = 2
PATIENCE_S = 120.0
LOOK_S = 0.02


@dataclass
class Engine:
    """One engine process, as it was seen; seconds since this machine was started, by which processes are dated."""

    modelcell: str
    began_s: float
    seen_s: float


@dataclass
class Watch:
    """Every engine that ran while it was open."""

    swarm: Swarm
    engines: dict[int, Engine] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        with self.swarm.http() as client:
            while not self._over.wait(LOOK_S):
                for row in client.get("/v2/swarmesh/rustbees").json()["rustbees"]:
                    self._note(row["engine_pid"], row["modelcell"])
                for pid, engine in self.engines.items():
                    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
                    if is_alive(pid):
                        engine.seen_s = now_s

    def _note(self, pid: int, modelcell: str) -> None:
        if pid and pid not in self.engines and is_alive(pid):
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                return
            began_s = int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
            self.engines[pid] = Engine(modelcell, began_s, began_s)

    def stop(self) -> None:
        self._over.set()

    def swaps(self) -> int:
        cells = [engine.modelcell for engine in sorted([*self.engines.values()], key=lambda each: each.began_s)]
        return sum(one != other for one, other in pairwise(cells))

    def must_be_alone(self) -> None:
        """No engine began before the one of the other modelcell was gone."""
        engines = sorted(self.engines.values(), key=lambda each: each.began_s)
        for earlier, later in pairwise(engines):
            assert earlier.modelcell == later.modelcell or earlier.seen_s <= later.began_s, (earlier, later)


@contextmanager
def watching(swarm: Swarm) -> Iterator[Watch]:
    watch = Watch(swarm)
    thread = threading.Thread(target=watch.look)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop()
        thread.join()


@pytest.fixture
def contended(fresh: Swarm) -> Swarm:
    """Two modelcells, each reserved so much that the host holds one of them."""
    with fresh.http() as client:
        (host,) = client.get("/v2/swarmesh/hosts").json()["hosts"]
    cellalloc = int(host["total_mib"] * HOST_SHARE)
    if host["free_mib"] < cellalloc:
        pytest.skip(f"{host['free_mib']} MiB of {host['total_mib']} are free: not enough to fill this machine's books")
    for cell in CELLS:
        fresh.run("models", "add", str(Path(demo.__file__).with_name("demo.gguf")), "--name", cell)
        fresh.run("swarmscale", "set", cell, "--min", "0", "--max", "1", "--type", "cpu", "--cellalloc", str(cellalloc))
    return fresh


def ask(client: Any, modelcell: str, *, tokens: int = 8) -> tuple[int, float, str]:
    """Status, seconds, and what was said of an error."""
    began = time.monotonic()
    body = {"model": modelcell, "messages": [{"role": "user", "content": "Say it."}], "max_tokens": tokens}
    answer = client.post("/v1/chat/completions", json=body, timeout=PATIENCE_S)
    return answer.status_code, time.monotonic() - began, "" if answer.status_code == 200 else answer.text


def show(title: str, rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(f"\n{title}")
    for row in rows:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def load_time_s(swarm: Swarm, modelcell: str) -> float:
    with swarm.http() as client:
        explained = client.get(f"/v2/swarmesh/explain/scale/{modelcell}").json()
    (known,) = explained["load_times"]
    return float(known["load_s"])


def test_alternating_requests_swap_the_modelcells(contended: Swarm) -> None:
    with contended.http() as client, watching(contended) as watch:
        listed = [model["id"] for model in client.get("/v1/models").json()["data"]]
        assert listed == sorted(CELLS), "they can be asked for though nobody serves them"
        told = []
        for number in range(SEQUENTIAL):
            told.append((CELLS[number % 2], *ask(client, CELLS[number % 2])))
            # Only what was seen counts, and the next request ends this engine.
            contended.until(lambda: len(watch.engines) > number, what=f"engine {number + 1} is seen")  # noqa: B023 - called before the next turn
    failed = [row for row in told if row[1] != 200]
    assert not failed, failed
    watch.must_be_alone()
    assert watch.swaps() == SEQUENTIAL - 1
    rows = [("request", "modelcell", "seconds")]
    rows += [(str(number), cell, f"{seconds:.2f}") for number, (cell, _, seconds, _) in enumerate(told, 1)]
    show("one after the other, every request a swap", rows)
    show("learned load time", [("modelcell", "s"), *((cell, f"{load_time_s(contended, cell):.2f}") for cell in CELLS)])
    with contended.http() as client:
        history = client.get(f"/v2/swarmesh/explain/scale/{CELLS[0]}").json()["history"]
    assert {"up", "make_room"} & {each["kind"] for each in history}


def test_two_clients_at_once_take_turns(contended: Swarm) -> None:
    began_s = time.monotonic()
    told: dict[str, list[tuple[int, float, str]]] = {cell: [] for cell in CELLS}

    def over() -> bool:
        took_s = time.monotonic() - began_s
        had = watch.swaps() >= TURNS_MIN and all(len(rows) >= TURNS_MIN for rows in told.values())
        return took_s > CONCURRENT_S_MAX or (had and took_s > CONCURRENT_S)

    def ask_on(modelcell: str) -> None:
        with contended.http() as client:
            while not over():
                told[modelcell].append(ask(client, modelcell, tokens=32))

    with watching(contended) as watch, ThreadPoolExecutor() as threads:
        list(threads.map(ask_on, CELLS))
    asked_s = time.monotonic() - began_s
    failed = [row for rows in told.values() for row in rows if row[0] != 200]
    assert not failed, failed
    watch.must_be_alone()
    assert watch.swaps() >= TURNS_MIN
    assert all(len(rows) >= TURNS_MIN for rows in told.values()), "both got their turn"
    rows = [("modelcell", "answers", "failed", "median s", "longest s")]
    for cell, each in told.items():
        seconds = sorted(row[1] for row in each)
        rows.append((cell, str(len(each)), "0", f"{seconds[len(seconds) // 2]:.2f}", f"{seconds[-1]:.2f}"))
    show(f"two clients at once for {asked_s:.0f} s, {watch.swaps()} swaps", rows)


def test_a_nectarflow_waits_for_its_modelcell_across_a_restart(contended: Swarm) -> None:
    contended.run("swarmscale", "pause")
    with contended.http() as client:
        flow = {"prompt": "Say it.", "modelcell": CELLS[0], "max_tokens": 4}
        job = client.post("/v2/swarmesh/nectarflow", json=flow).json()["job_id"]
        status, _, said = ask(client, CELLS[1])
        assert (status, "paused" in said) == (503, True), "who does not wait on disk is told at once"
    contended.run("queennode", "stop")
    contended.run("queennode", "start", "--port", "0")
    assert contended.json("swarmscale", "status")["paused"]
    contended.run("swarmscale", "resume")
    with contended.http() as client:
        status = f"/v2/swarmesh/nectarflow/{job}"
        contended.until(lambda: client.get(status).json()["status"] == "done", timeout_s=60, what="it is done")
