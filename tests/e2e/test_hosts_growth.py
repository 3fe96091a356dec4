"""Rustbees that come and go by themselves on other machines, each started where there is room for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from host_swarm import Trio
from swarmesh.models.demo import DEMO_GGUF

CELL = "grown"
WANTED = 3
HOST_SHARE = 0.5
"""Of a machine's memory: a rustbee that is reserved so much is alone there with small ones."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def grown(trio: Trio) -> Iterator[Trio]:
    """A modelcell of which no machine holds two; it is gone from everywhere afterwards."""
    trio.whole()
    trio.swarm.run("models", "add", str(DEMO_GGUF), "--name", CELL)
    try:
        yield trio
    finally:
        trio.swarm.run("swarmscale", "unset", CELL, check=False)
        for row in trio.swarm.rustbees():
            if row["modelcell"] == CELL:
                trio.swarm.run("rustbees", "stop", row["rustbee_id"], check=False)
        trio.swarm.run("models", "remove", CELL)


def hosts_of(trio: Trio) -> list[str]:
    return sorted(row["host"] for row in trio.swarm.healthy().values() if row["modelcell"] == CELL)


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
