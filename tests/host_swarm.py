"""A swarm as its owner sees it, with machines of a host bed: the command line, and nothing else, puts them to work."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

from fault_proxy import GOOD, FaultProxy, fault_proxy
from host_bed import Machine, host_bed, without_own_ssh_settings
from swarm_rig import Swarm, is_alive

ADD_TIMEOUT_S: Final = 240.0
REGISTRY_SETTINGS: Final = ("PIP_", "SSL_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Beginnings of what the environment says about reaching a package registry from here; the machines reach none."""
SWARMESH_DIR: Final = ".swarmesh"
DEMO: Final = ("--type", "cpu", "--modelcell", "demo")


class HostSwarm(Swarm):
    """A queen on this machine, and what she can be asked about others.

    Args:
        identity: The private key that may log in there.
        port: Where she listens, in each of her lives.
    """

    def __init__(self, home: Path, identity: Path, port: int) -> None:
        super().__init__(home)
        self.identity = identity
        self.env |= {name: value for name, value in os.environ.items() if name.upper().startswith(REGISTRY_SETTINGS)}
        self.env["XDG_CONFIG_HOME"] = os.environ.get("XDG_CONFIG_HOME", str(Path("~/.config").expanduser()))
        self.port = port

    def argv(self, *arguments: str) -> list[str]:
        """Nothing of the login user's own ssh settings reaches the queen."""
        return without_own_ssh_settings(super().argv(*arguments))

    def start(self) -> None:
        """Start the queen, on the same port in each of her lives."""
        self.run("queennode", "start", "--port", str(self.port))

    def kill_queen(self) -> None:
        """``kill -9``; returns when her process is gone."""
        pid = int(json.loads((self.home / "queen.json").read_bytes())["pid"])
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: not is_alive(pid), what="the queen is gone")

    def add(self, address: str, name: str, *options: str, check: bool = True) -> CompletedProcess[str]:
        """``hosts add``."""
        words = ("hosts", "add", "--name", name, "--identity", str(self.identity), *options, "--", address)
        return self.run(*words, check=check, timeout_s=ADD_TIMEOUT_S)

    def hosts(self) -> dict[str, dict[str, Any]]:
        """What ``hosts list`` shows, by name, without this machine."""
        with self.http() as client:
            answer = client.get("/v2/swarmesh/hosts")
        assert answer.is_success, (answer.text, self.said())
        rows = answer.json()["hosts"]
        return {row["name"]: row for row in rows if row["status"] != "local"}

    def host_until(self, name: str, status: str, *, timeout_s: float = 30.0) -> dict[str, Any]:
        """Wait until a host is connected, or not; its row."""

        def look() -> dict[str, Any] | None:
            row = self.hosts()[name]
            return row if row["status"] == status else None

        found: dict[str, Any] = self.until(look, timeout_s=timeout_s, what=f"{name} is {status}")
        return found

    def spawn(self, host: str, *words: str) -> dict[str, Any]:
        """``spawn rustbee`` on a host; its row."""
        row: dict[str, Any] = self.json("spawn", "rustbee", "--host", host, *(words or DEMO))
        return row

    def healthy(self) -> dict[str, dict[str, Any]]:
        """Healthy rustbees by id."""
        return {row["rustbee_id"]: row for row in self.rustbees() if row["status"] == "healthy"}

    def engines(self) -> dict[str, tuple[str, int]]:
        """Host and engine pid of every healthy rustbee."""
        return {name: (row["host"], row["engine_pid"]) for name, row in self.healthy().items()}

    def known_hosts(self) -> str:
        """The host keys she has stored."""
        file = self.home / "ssh" / "known_hosts"
        return file.read_text(encoding="utf-8") if file.exists() else ""


@dataclass(frozen=True)
class Trio:
    """A swarm with three machines, a demo rustbee on each.

    Attributes:
        machines: By the names they have in the swarm.
        proxy: The way to the last of them.
        added_s: How long each add took, all at a time.
        held_max: How many connections she held at most to the last one, while it was added and its rustbee started.
    """

    swarm: HostSwarm
    machines: Mapping[str, Machine]
    proxy: FaultProxy
    added_s: Mapping[str, float]
    held_max: int

    @property
    def slow(self) -> str:
        """The host behind the proxy."""
        return tuple(self.machines)[-1]

    def whole(self) -> None:
        """See to it that every host is connected and has its healthy demo rustbee, whatever a test did to them."""
        self.proxy.faults = GOOD
        for name, machine in self.machines.items():
            machine.mend()
            if self.swarm.host_until(name, "connected")["draining"]:
                self.swarm.run("hosts", "drain", name, "--resume")
        for name in self.machines:
            if not self.demo_on(name):
                self.swarm.spawn(name)

    def demo_on(self, host: str) -> dict[str, Any] | None:
        """The healthy demo rustbee there."""
        rows = self.swarm.healthy().values()
        return next((row for row in rows if row["host"] == host and row["modelcell"] == "demo"), None)


@contextmanager
def kept_port() -> Iterator[int]:
    """A port that nobody is given by chance while the block lasts; who is told of it can listen there."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield int(kept.getsockname()[1])


@contextmanager
def host_swarm(home: Path) -> Iterator[tuple[HostSwarm, Any]]:
    """A queen without hosts, and a bed to make some; nothing of either is left afterwards."""
    with host_bed() as bed, kept_port() as port:
        swarm = HostSwarm(home, bed.identity, port)
        swarm.start()
        try:
            yield swarm, bed
        finally:
            swarm.run("down", "--all", check=False)


@contextmanager
def three_machines(home: Path) -> Iterator[Trio]:
    """Three machines from nothing."""
    with host_swarm(home) as (swarm, bed):
        machines = {f"bee-{number}": bed.machine() for number in (1, 2, 3)}
        with fault_proxy(machines["bee-3"].address) as proxy:
            places: dict[str, tuple[str, ...]] = {name: (machine.address,) for name, machine in machines.items()}
            places["bee-3"] = ("127.0.0.1", "--port", str(proxy.port))
            with ThreadPoolExecutor() as threads:
                added_s = dict(
                    zip(places, threads.map(lambda name: _added(swarm, name, *places[name]), places), strict=True)
                )
                list(threads.map(swarm.spawn, places))
            yield Trio(swarm, machines, proxy, added_s, proxy.traffic.held_max)


@contextmanager
def in_background(swarm: HostSwarm, *arguments: str) -> Iterator[list[CompletedProcess[str]]]:
    """A command that runs beside the block; its result is in the list when the block is over."""
    done: list[CompletedProcess[str]] = []
    thread = threading.Thread(target=lambda: done.append(swarm.run(*arguments, check=False, timeout_s=ADD_TIMEOUT_S)))
    thread.start()
    try:
        yield done
    finally:
        thread.join()


def error_of(done: CompletedProcess[str]) -> dict[str, Any]:
    """The error a command with ``--json`` ended in."""
    line = next(line for line in reversed(done.stderr.splitlines()) if line.startswith('{"error"'))
    error: dict[str, Any] = json.loads(line)["error"]
    return error


def _added(swarm: HostSwarm, name: str, address: str, *options: str) -> float:
    started_s = time.monotonic()
    swarm.add(address, name, *options)
    return time.monotonic() - started_s
