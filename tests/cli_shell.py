"""Runs command lines in this process or in one of their own, against a fake queen."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from fake_queen import KEY, FakeQueen, running_queen, rustbee
from swarmesh.cli.program import run
from swarmesh.config.home import Home
from swarmesh.hosts.agent_file import AgentFile
from swarmesh.hosts.process_identity import boot_id

PROGRAM = (sys.executable, "-c", "import sys; from swarmesh.cli.main import main; sys.argv[0] = 'swarmesh'; main()")
OF_THE_TERMINAL = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""What says how wide and how colourful output is: of whoever runs the tests, and not of what they test."""
TERMINAL_LINES = 24
READ_BYTES = 65_536

Sleeper = Callable[[], psutil.Process]


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Shell:
    """A home directory, an environment that points at ``queen``, and a way to run commands."""

    queen: FakeQueen
    home: Path
    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: str, program: str = "swarmesh") -> Result:
        self.capsys.readouterr()
        code = run([program, *arguments])
        printed = self.capsys.readouterr()
        return Result(code, printed.out, printed.err)

    def start(self, *arguments: str, **pipes: Any) -> subprocess.Popen[bytes]:
        """Run a command in a process of its own, its output not yet read."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes}
        return subprocess.Popen([*PROGRAM, *arguments], env=dict(os.environ), **pipes)


@contextmanager
def shell_at(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, named: bool = True
) -> Iterator[Shell]:
    """A shell; with ``named`` the environment names the fake queen, else only the home does."""
    monkeypatch.setenv("SWARMESH_HOME", str(home))
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in OF_THE_TERMINAL:
        monkeypatch.delenv(name, raising=False)
    with running_queen() as queen:
        for name, value in {"SWARMESH_URL": queen.url, "SWARMESH_API_KEY": KEY}.items():
            if named:
                monkeypatch.setenv(name, value)
            else:
                monkeypatch.delenv(name, raising=False)
        yield Shell(queen, home, capsys)


class Terminal:
    """A terminal for a command; made by `terminal`.

    Attributes:
        end: What the command writes to.
    """

    def __init__(self, columns: int) -> None:
        self._ours, self.end = pty.openpty()
        termios.tcsetwinsize(self.end, (TERMINAL_LINES, columns))

    def shown(self) -> str:
        """All that was written to it; to be asked once, when the command has ended."""
        os.close(self.end)
        self.end = -1
        said = b""
        # What was written last may come in a piece of its own. Linux calls the end of it an error.
        with suppress(OSError):
            while piece := os.read(self._ours, READ_BYTES):
                said += piece
        return said.decode()

    def close(self) -> None:
        os.close(self._ours)
        if self.end >= 0:
            os.close(self.end)


@contextmanager
def terminal(columns: int = 120) -> Iterator[Terminal]:
    """A terminal that is so wide."""
    made = Terminal(columns)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def sleepers() -> Iterator[Sleeper]:
    """Makes processes that can stand for agents and engines; they end with the test."""
    with ExitStack() as stack:

        def start() -> psutil.Process:
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]))
            stack.callback(process.kill)
            return psutil.Process(process.pid)

        yield start


class Bee:
    """A rustbee of the fake queen whose agent and engine are processes that sleep."""

    def __init__(self, shell: Shell, sleeper: Sleeper, rustbee_id: str, busy: int = 0, *, older_s: float = 0) -> None:
        self.agent, self.engine = sleeper(), sleeper()
        self.view = rustbee(rustbee_id, pid=self.agent.pid, slots_busy=busy)
        shell.queen.rustbees[rustbee_id] = self.view
        directory = Home(shell.home).worker_dir(rustbee_id)
        directory.mkdir(parents=True)
        AgentFile(
            rustbee_id=rustbee_id,
            modelcell="demo",
            pid=self.agent.pid,
            started_at=self.agent.create_time() - older_s,
            boot_id=boot_id(),
            socket_path=str(directory / "a.sock"),
            engine_socket_path=str(directory / "e.sock"),
            engine_pid=self.engine.pid,
            engine_started_at=self.engine.create_time() - older_s,
        ).write(directory)

    @property
    def lives(self) -> tuple[bool, bool]:
        """Agent, engine."""
        return is_up(self.agent), is_up(self.engine)


def is_up(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def ended(process: psutil.Process) -> int:
    """Its exit code, as soon as it has one."""
    code = process.wait(10)
    assert code is not None
    return code
