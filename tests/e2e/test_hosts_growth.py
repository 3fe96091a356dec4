"""Rustbees that come and go by themselves on other machines, each started where there is room for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from host_swarm import Trio
from swarm_rig import Swarm
from swarmesh.models.demo import DEMO_GGUF

CELL = "grown"
FILLER, SMALL, LARGE = "filler", "small", "large"
WANTED = 3
HOST_SHARE = 0.5
"""Of a machine's memory: a rustbee that is reserved so much is alone there with small ones."""
SHARES = {FILLER: 0.45, SMALL: 0.35, LARGE: 0.6}
"""The same: a small one fits beside a filler, a large one beside neither."""

PATIENCE_S = 120.0
PAUSE_S = 0.2

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def grown(trio: Trio) -> Iterator[Trio]:
    """A modelcell of which no machine holds two; it is gone from everywhere afterwards."""
    with cells(trio, CELL):
        yield trio


@pytest.fixture
def filled(trio: Trio) -> Iterator[Trio]:
    """One machine is empty but for a small rustbee that is kept; on the others only one more of these has room."""
    with cells(trio, *SHARES):
        swarm = trio.swarm
        rows = swarm.json("hosts", "list")
        mib = {cell: int(max(row["total_mib"] for row in rows) * share) for cell, share in SHARES.items()}
        if min(row["free_mib"] for row in rows) < mib[LARGE]:
            pytest.skip(f"not {mib[LARGE]} MiB are free on every machine: not enough to fill their books")
        first, *others = (row["name"] for row in rows if row["name"] in trio.machines)
        others += [row["name"] for row in rows if row["status"] == "local"]
        for host, cell in [(first, SMALL), *((host, FILLER) for host in others)]:
            swarm.spawn(host, "--type", "cpu", "--modelcell", cell, "--cellalloc", str(mib[cell]))
        for cell, low, high in ((SMALL, "1", "2"), (LARGE, "0", "1")):
            words = ("--min", low, "--max", high, "--type", "cpu", "--cellalloc", str(mib[cell]))
            swarm.run("swarmscale", "set", cell, *words)
        yield trio


@contextmanager
def cells(trio: Trio, *names: str) -> Iterator[None]:
    """Modelcells of these names; nothing of them is left afterwards."""
    trio.whole()
    for name in names:
        trio.swarm.run("models", "add", str(DEMO_GGUF), "--name", name)
    try:
        yield
    finally:
        for name in names:
            trio.swarm.run("swarmscale", "unset", name, check=False)
        for row in trio.swarm.rustbees():
            if row["modelcell"] in names:
                trio.swarm.run("rustbees", "stop", row["rustbee_id"], check=False)
        for name in names:
            trio.swarm.run("models", "remove", name)


def hosts_of(trio: Trio, cell: str = CELL) -> list[str]:
    return sorted(row["host"] for row in trio.swarm.healthy().values() if row["modelcell"] == cell)


def ask(swarm: Swarm, cell: str) -> int:
    """The status of one chat."""
    body = {"model": cell, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    with swarm.http() as client:
        return client.post("/v1/chat/completions", json=body, timeout=PATIENCE_S).status_code


def test_every_rustbee_is_started_where_there_is_room(grown: Trio) -> None:
    swarm = grown.swarm
    rows = swarm.json("hosts", "list")
    cellalloc = int(max(row["total_mib"] for row in rows) * HOST_SHARE)
    if min(row["free_mib"] for row in rows) < cellalloc:
        pytest.skip(f"not {cellalloc} MiB are free on every machine: not enough to fill their books")
    words = ("--min", str(WANTED), "--max", str(WANTED), "--type", "cpu", "--cellalloc", str(cellalloc))
    swarm.run("swarmscale", "set", CELL, *words)
    swarm.until(lambda: len(hosts_of(grown)) == WANTED, timeout_s=120, what=f"{WANTED} rustbees are healthy")
    hosts = hosts_of(grown)
    assert len(set(hosts)) == WANTED, hosts
    assert len(set(hosts) & set(grown.machines)) >= WANTED - 1, hosts
    assert "Hi" in swarm.run("nectarflow", "submit", "--modelcell", CELL, "--prompt", "hi", "--max-tokens", "4").stdout
    explained = swarm.json("explain", "scale", CELL)
    assert sorted(known["host"] for known in explained["load_times"]) == hosts
    print({known["host"]: f"{known['load_s']:.2f} s" for known in explained["load_times"]})  # Shown with pytest -s.
    placement = swarm.json("explain", "placement", CELL)
    full = {site["host"] for site in placement["hosts"] if "free" in site["veto"]}
    assert set(hosts) <= full, "no host has room for a second one"


def test_a_small_one_that_is_kept_moves_for_a_large_one_that_is_asked_for(filled: Trio) -> None:
    swarm, over = filled.swarm, threading.Event()
    [before] = hosts_of(filled, SMALL)

    def ask_on() -> list[int]:
        told = []
        while not over.is_set():
            told.append(ask(swarm, SMALL))
            over.wait(PAUSE_S)
        return told

    with ThreadPoolExecutor() as threads:
        small = threads.submit(ask_on)
        try:
            began_s = time.monotonic()
            assert ask(swarm, LARGE) == 200
            took_s = time.monotonic() - began_s
        finally:
            over.set()
        told = small.result()
    assert set(told) == {200}, "who asked for the small one noticed nothing"
    [after] = hosts_of(filled, SMALL)
    assert hosts_of(filled, LARGE) == [before] != [after]
    rules = [decision["rule"] for decision in swarm.json("explain", "scale", SMALL)["history"]]
    assert rules == ["room", "move"]
    print(f"answered after {took_s:.1f} s; {len(told)} answers of the small one meanwhile")  # Shown with pytest -s.
