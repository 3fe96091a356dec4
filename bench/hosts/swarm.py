"""A queen with machines of namespaces for hosts; a context manager that takes everything down."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from bench.reliability.hive import LIVING, Hive, HiveError
from bench.reliability.sse import events_of

from .bed import Bed, Machine, bed

INSTALL_TIMEOUT_S: Final = 600.0
GRACE_S: Final = 5
STARTING_TIMEOUT_S: Final = 120.0
NAMES: Final = ("one", "two", "three")
PASSED_ON: Final = re.compile(r"(?i:https?|all|no)_proxy|PIP_\w+|SSL_CERT_\w+|REQUESTS_CA_BUNDLE")
"""How this machine reaches its package registry, which the queen asks for the wheels she sends."""


class Bee(msgspec.Struct, frozen=True):
    """What the list says of one worker, as far as it is looked at here."""

    rustbee_id: str
    host: str
    status: str
    slots_busy: int
    pid: int
    engine_pid: int

    @property
    def lives(self) -> bool:
        """Whether it is one that serves, will serve, or still ends."""
        return self.status in {*LIVING, "draining"}


class Swarm(Hive):
    """See `Hive`. Hosts are added by the command line, as a person would."""

    def __init__(self) -> None:
        super().__init__()
        self.env |= {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
        self.machines: dict[str, Machine] = {}

    def add(self, name: str, machine: Machine) -> float:
        """``swarmesh hosts add``; the seconds it took, the start of the command included.

        Raises:
            HiveError: It failed.
        """
        began_s = time.monotonic()
        where = [machine.address, "--name", name, "--identity", str(machine.identity)]
        self.command("hosts", "add", *where, timeout_s=INSTALL_TIMEOUT_S)
        self.machines[name] = machine
        return time.monotonic() - began_s

    def remove(self, name: str) -> float:
        """``swarmesh hosts remove``; the seconds it took."""
        began_s = time.monotonic()
        self.command("hosts", "remove", name, timeout_s=INSTALL_TIMEOUT_S)
        del self.machines[name]
        return time.monotonic() - began_s

    def add_all(self, made: Bed, names: tuple[str, ...] = NAMES) -> None:
        """Add a machine under each name, side by side.

        Raises:
            HiveError: One could not be added.
        """
        failed: list[HiveError] = []

        def add(name: str, machine: Machine) -> None:
            try:
                self.add(name, machine)
            except HiveError as error:
                failed.append(error)

        machines = [made.machine() for _ in names]
        threads = [threading.Thread(target=add, args=pair) for pair in zip(names, machines, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    def bees(self) -> list[Bee]:
        """What the queen lists."""
        rows: list[Bee] = msgspec.convert(self.queen.get("/v2/swarmesh/rustbees")["rustbees"], list[Bee])
        return rows

    def spawn_on(self, host: str, spec: Mapping[str, Any]) -> str:
        """Begin a worker on a host; an empty name is the queen's own machine."""
        return self.spawn({**spec, "host": host} if host else spec)

    def healthy(self, count: int) -> list[Bee]:
        """So many healthy workers.

        Raises:
            HiveError: There are fewer.
        """

        def look() -> list[Bee] | None:
            found = [bee for bee in self.bees() if bee.status == "healthy" and bee.engine_pid]
            return found if len(found) >= count else None

        return self.until(look, STARTING_TIMEOUT_S, f"{count} rustbees healthy")

    def stop(self, names: list[str]) -> None:
        """Stop these workers and wait until the queen lists none of them as living.

        Raises:
            HiveError: One of them does not end.
        """
        for name in names:
            self.queen.delete(f"/v2/swarmesh/rustbees/{name}?grace_s={GRACE_S}")
        wanted = set(names)
        self.until(
            lambda: not any(bee.lives for bee in self.bees() if bee.rustbee_id in wanted),
            STARTING_TIMEOUT_S,
            f"{len(names)} rustbees stopped",
        )

    def copy(self, modelcell: str, to: str) -> dict[str, Any]:
        """Copy a modelcell's file to a host; what the queen says of it at the end.

        Raises:
            HiveError: It failed.
        """
        connection, response = self.queen.open("POST", "/v2/swarmesh/models/copy", {"modelcell": modelcell, "to": to})
        try:
            last = [event for event in events_of(response) if event.name in {"done", "error"}][-1:]
        finally:
            connection.close()
        if not last or last[0].name == "error":
            raise HiveError(f"{modelcell} was not copied to {to}: {last[0].data if last else 'the answer was cut'}")
        copied: dict[str, Any] = msgspec.json.decode(last[0].data)
        return copied


@contextmanager
def hosts(names: tuple[str, ...] = NAMES) -> Iterator[Swarm]:
    """A swarm with machines of these names, each added from nothing."""
    with bed() as made, Swarm() as swarm:
        swarm.add_all(made, names)
        yield swarm
