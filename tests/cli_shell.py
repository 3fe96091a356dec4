"""Runs command lines in this process or in one of their own, against a fake queen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fake_queen import KEY, FakeQueen, running_queen
from swarmesh.cli.program import run

PROGRAM = (sys.executable, "-c", "import sys; from swarmesh.cli.main import main; sys.argv[0] = 'swarmesh'; main()")


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
    with running_queen() as queen:
        for name, value in {"SWARMESH_URL": queen.url, "SWARMESH_API_KEY": KEY}.items():
            if named:
                monkeypatch.setenv(name, value)
            else:
                monkeypatch.delenv(name, raising=False)
        yield Shell(queen, home, capsys)
