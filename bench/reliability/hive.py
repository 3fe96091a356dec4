"""A swarm of its own to be broken: a temporary home, a port of its own, and nothing left behind afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec

from . import processes
from .queen_http import NoAnswerError, QueenHttp, RefusedError

SWARMESH: Final = str(Path(sys.executable).parent / "swarmesh")
COMMAND_TIMEOUT_S: Final = 60.0
HEALTHY_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.01
LIVING: Final = ("starting", "healthy", "suspect")

T = TypeVar("T")


class Rustbee(msgspec.Struct, frozen=True):
    """What the list says of one worker, as far as the harness looks at it."""

    rustbee_id: str
    modelcell: str
    status: str
    slots: int
    slots_busy: int
    pid: int
    engine_pid: int


class HiveError(Exception):
    """The swarm did not do what every measurement needs; there is nothing to measure."""


class Hive:
    """A queen and her rustbees; a context manager that ends them all, also those that were stopped with SIGSTOP.

    Args:
        queennode: Further settings of ``[queennode]`` in swarmesh.toml.
    """

    def __init__(self, queennode: Mapping[str, str] | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="hive-"))
        self.port = _free_port()
        settings = {"port": str(self.port), **(queennode or {})}
        lines = ["[queennode]", *(f"{name} = {value}" for name, value in settings.items())]
        self.home.joinpath("swarmesh.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        self.env = {**kept, "SWARMESH_HOME": str(self.home), "HOME": str(self.home)}
        self._given_up: set[str] = set()

    def __enter__(self) -> Self:
        try:
            self.command("queennode", "start")
        except BaseException:
            self._tear_down()
            raise
        self.queen = QueenHttp(self.port, self.key)
        return self

    def __exit__(self, *_: object) -> None:
        self.queen.close()
        self._tear_down()

    @property
    def key(self) -> str:
        """The admin key."""
        return (self.home / "admin.key").read_text(encoding="ascii").strip()

    @property
    def openai_url(self) -> str:
        """Base URL for OpenAI's client."""
        return f"http://127.0.0.1:{self.port}/v1"

    def command(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run ``swarmesh ARGUMENTS`` to its end and return what it printed.

        Raises:
            HiveError: It failed.
        """
        done = subprocess.run(
            [SWARMESH, *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            raise HiveError(
                f"swarmesh {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-500:]}"
            )
        return done.stdout

    def kill_queen(self) -> None:
        """``kill -9`` of the queen's present life; returns when her process is gone."""
        pid = int(msgspec.json.decode((self.home / "queen.json").read_bytes())["pid"])
        processes.kill(pid)
        while processes.exists(pid):
            time.sleep(POLL_S / 10)

    def start_queen(self) -> subprocess.Popen[bytes]:
        """Begin ``swarmesh queennode start`` in the same home, on the same port; the caller waits for it."""
        return subprocess.Popen(
            [SWARMESH, "queennode", "start"],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def rustbees(self) -> list[Rustbee]:
        """What the queen lists."""
        rows: list[Rustbee] = msgspec.convert(self.queen.get("/v2/swarmesh/rustbees")["rustbees"], list[Rustbee])
        return rows

    def rustbee(self, rustbee_id: str) -> Rustbee | None:
        """One of them."""
        return next((row for row in self.rustbees() if row.rustbee_id == rustbee_id), None)

    def serving(self, modelcell: str) -> Rustbee | None:
        """The one that has a task at this moment; the first of them when there are several."""
        busy = [row for row in self.rustbees() if row.modelcell == modelcell and row.slots_busy and row.engine_pid]
        return busy[0] if busy else None

    def spawn(self, asked: Mapping[str, Any]) -> str:
        """Start a rustbee without waiting; ``asked`` is the body of ``POST /v2/swarmesh/rustbees``."""
        return str(self.queen.post("/v2/swarmesh/rustbees", asked)["rustbee_id"])

    def give_up(self, rustbee_id: str) -> None:
        """Count a killed rustbee no longer, though the queen may still list it."""
        self._given_up.add(rustbee_id)

    def keep(self, asked: Mapping[str, Any], count: int) -> list[Rustbee]:
        """Have ``count`` healthy rustbees of this kind, replacing those that are gone for good.

        An agent restarts its engine three times a minute and then gives up, so long runs use up many.

        Raises:
            HiveError: They do not become healthy.
        """
        deadline_s = time.monotonic() + HEALTHY_TIMEOUT_S
        healthy: list[Rustbee] = []
        while time.monotonic() < deadline_s:
            rows = [row for row in self.rustbees() if row.modelcell == asked["modelcell"] and self._counts(row)]
            healthy = [row for row in rows if row.status == "healthy" and processes.exists(row.engine_pid)]
            if len(healthy) >= count:
                return healthy
            for _ in range(count - len(rows)):
                self.spawn(asked)
            time.sleep(5 * POLL_S)
        raise HiveError(f"{len(healthy)} of {count} rustbees healthy after {HEALTHY_TIMEOUT_S:g} s: {self.rustbees()}")

    def alarm_ms(self, rustbee_id: str, since_unix_s: float) -> float | None:
        """Milliseconds from then to the first alarm about a rustbee; None when there was none."""
        alarms = self.queen.get("/v2/swarmesh/alarms")["alarms"]
        times = [one["at"] for one in alarms if one["rustbee_id"] == rustbee_id and one["at"] >= since_unix_s - 0.001]
        return 1000 * max(0.0, min(times) - since_unix_s) if times else None

    def until(self, look: Callable[[], T | None], timeout_s: float, what: str) -> T:
        """Wait for an answer that is not None, False or empty; a queen who is away gives none.

        Raises:
            HiveError: It did not come in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            try:
                found = look()
            except (NoAnswerError, RefusedError):
                found = None
            if found:
                return found
            time.sleep(POLL_S)
        raise HiveError(f"not within {timeout_s:g} s: {what}")

    def _counts(self, row: Rustbee) -> bool:
        there = row.pid == 0 or processes.exists(row.pid)  # Its pid is known once it has registered.
        return there and row.status in LIVING and row.rustbee_id not in self._given_up

    def _tear_down(self) -> None:
        noted = processes.noted_in(self.home)
        for process in noted:
            processes.wake(process)
        try:
            self.command("down", "--all")
        except (HiveError, subprocess.TimeoutExpired) as error:
            print(f"down --all: {error}", file=sys.stderr, flush=True)
        processes.end({*noted, *processes.noted_in(self.home)})
        shutil.rmtree(self.home, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
