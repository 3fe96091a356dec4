"""`swarmesh rustbee spawn`, typed on a machine that lends itself: a real agent, no queen, and no key but its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from swarmesh.config.home import Home, QueenFile, write_private
from swarmesh.hosts.process_identity import identify

PROGRAM = "import sys; from swarmesh.cli.main import main; sys.argv[0] = 'llorch-pool'; main()"


class Machine:
    """A home, and commands that are given there."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("SWARMESH_")}
        self._environ["SWARMESH_HOME"] = str(root)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, "rustbee", *arguments]
        return subprocess.run(command, env=self._environ, capture_output=True, text=True, timeout=60, check=False)

    def spawn(self, *arguments: str) -> dict[str, Any]:
        done = self.run("spawn", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "home")
    machine.home.make()
    yield machine
    for agent in json.loads(machine.run("list", "--json").stdout):
        machine.run("stop", agent["rustbee_id"], "--grace", "5")


@pytest.mark.parametrize("lent", [False, True])
def test_it_is_healthy_by_its_own_word_and_stops(machine: Machine, *, lent: bool) -> None:
    if lent:
        me = psutil.Process()
        note = QueenFile(f"unix:{machine.home.sockets_dir}/queen-1.sock", me.pid, me.create_time(), "0.1.0")
        write_private(machine.home.queen_file, msgspec.json.encode(note))
    spawned = machine.spawn("python", "--modelcell", "mine", "--class", "fake")
    assert spawned["status"] == "healthy"
    assert identify(spawned["pid"]) is not None
    (listed,) = json.loads(machine.run("list", "--json").stdout)
    assert (listed["rustbee_id"], listed["engine_pid"] > 0) == (spawned["rustbee_id"], True)
    stopped = machine.run("stop", spawned["rustbee_id"], "--grace", "5", "--json")
    assert (stopped.returncode, json.loads(stopped.stdout)) == (
        0,
        {"rustbee_id": spawned["rustbee_id"], "status": "ended"},
    )
    assert identify(spawned["pid"]) is None
    assert identify(listed["engine_pid"]) is None
    assert list(machine.home.sockets_dir.glob("rustbee-*")) == []
    assert machine.home.queen_file.exists() is lent


def test_a_real_model_is_loaded_before_it_says_so(machine: Machine) -> None:
    spawned = machine.spawn("cpu", "--modelcell", "demo", "--slots", "1")
    assert spawned["status"] == "healthy"


def test_an_engine_that_does_not_start_says_why(machine: Machine) -> None:
    done = machine.run("spawn", "python", "--modelcell", "mine", "--class", "nowhere:Nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "ended while it was starting" in done.stderr
    assert "nowhere" in done.stderr
