"""The queennode as a process: how she starts, what she leaves, and what she says when she cannot start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

START_TIMEOUT_S = 20.0


class QueenProcess:
    """``python -m swarmesh.queen`` on a home."""

    def __init__(self, home: Path, *arguments: str) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "swarmesh.queen", *arguments],
            env={**kept, "SWARMESH_HOME": str(home), "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def wait_ready(self) -> dict[str, Any]:
        """Her note, once it is there."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not (self.home / "queen.json").exists():
            assert self.process.poll() is None, self.stderr()
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
        note: dict[str, Any] = json.loads((self.home / "queen.json").read_bytes())
        return note

    def stderr(self) -> str:
        return self.process.communicate(timeout=START_TIMEOUT_S)[1].decode()

    def error(self) -> dict[str, Any]:
        """The one line she leaves when she cannot start."""
        said = self.stderr()
        assert self.process.returncode == 1, said
        assert "Traceback" not in said
        error: dict[str, Any] = json.loads(said.strip().splitlines()[-1])["error"]
        return error

    def key(self) -> str:
        return (self.home / "admin.key").read_text().strip()

    def get(self, path: str) -> httpx.Response:
        url = json.loads((self.home / "queen.json").read_bytes())["url"]
        return httpx.get(url + path, headers={"authorization": f"Bearer {self.key()}"}, timeout=10)


Start = Callable[..., QueenProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[QueenProcess] = []

    def one(*arguments: str, home: str = "home") -> QueenProcess:
        started.append(QueenProcess(tmp_path / home, *arguments))
        return started[-1]

    yield one
    for queen in started:
        if queen.process.poll() is None:
            queen.process.kill()
        if queen.process.stderr is not None and not queen.process.stderr.closed:
            queen.process.communicate()


def test_a_life(start: Start) -> None:
    queen = start("--port", "0")
    note = queen.wait_ready()
    assert note["pid"] == queen.process.pid
    assert note["started_at"] == pytest.approx(psutil.Process(note["pid"]).create_time())
    assert queen.get("/v2/swarmesh/health").json()["pid"] == queen.process.pid
    queen.process.send_signal(signal.SIGTERM)
    said = queen.stderr()
    assert queen.process.returncode == 0
    assert not (queen.home / "queen.json").exists()
    events = [json.loads(line)["event"] for line in said.splitlines()]
    assert events == ["started", "stopped"]
    assert queen.key() not in said


def test_what_she_leaves_is_for_her_owner_only(start: Start) -> None:
    queen = start("--port", "0")
    queen.wait_ready()
    for path in queen.home.rglob("*"):
        mode = path.stat().st_mode & 0o777
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert queen.home.stat().st_mode & 0o777 == 0o700
    for name in ("queen.json", "admin.key", "worker.secret", "hivecomb.db"):
        assert (queen.home / name).exists()
    assert queen.key().encode() not in (queen.home / "hivecomb.db").read_bytes(), "only its hash is kept"


def test_her_key_outlives_her_and_a_lost_one_is_void(start: Start) -> None:
    queen = start("--port", "0")
    queen.wait_ready()
    first = queen.key()
    queen.process.kill()
    queen.process.communicate()
    (queen.home / "queen.json").unlink()
    queen = start("--port", "0")
    queen.wait_ready()
    assert queen.key() == first
    queen.process.terminate()
    queen.process.communicate()
    (queen.home / "admin.key").unlink()
    queen = start("--port", "0")
    note = queen.wait_ready()
    assert queen.key() != first
    old = httpx.get(note["url"] + "/v1/models", headers={"authorization": f"Bearer {first}"})
    assert old.status_code == 401
    assert queen.get("/v1/models").status_code == 200


def test_a_port_that_is_taken_names_who_has_it(start: Start) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        error = start("--port", str(port)).error()
    assert error["code"] == "port_taken"
    assert f"port {port} is taken by pid {os.getpid()} (" in error["message"]
    assert "--port N" in error["hint"]


def test_two_queens_on_one_home(start: Start) -> None:
    first = start("--port", "0")
    note = first.wait_ready()
    error = start("--port", "0").error()
    assert error["code"] == "hivecomb_locked"
    assert f"process {note['pid']}" in error["message"]
    assert "queennode stop" in error["hint"]
    assert json.loads((first.home / "queen.json").read_bytes()) == note, "the first one's note stays"
    assert first.get("/v2/swarmesh/health").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "words"),
    [
        (["--port", "70000"], "", "bad_config", "<= 65535 - at `$.port`"),
        (["--port", "-1"], "", "bad_config", ">= 0 - at `$.port`"),
        (["--host", "no.such.host.invalid"], "", "bad_config", "no.such.host.invalid"),
        (["--host", "192.0.2.1"], "", "bad_config", "192.0.2.1"),
        ([], "[queennode]\nprot = 1\n", "bad_config", "'queennode.prot'"),
        ([], "[queennode]\nport = 'x'\n", "bad_config", "$.queennode.port"),
        ([], "[queennode\n", "bad_config", "is not TOML"),
    ],
)
def test_a_wrong_setting_is_one_line(
    start: Start, tmp_path: Path, arguments: list[str], settings: str, code: str, words: str
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "swarmesh.toml").write_text(settings)
    port = [] if settings or "--port" in arguments else ["--port", "0"]
    error = start(*arguments, *port).error()
    assert error["code"] == code
    assert words in error["message"]


def test_a_home_that_is_a_file(start: Start, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    error = start("--port", "0").error()
    assert error["code"] == "bad_config"
    assert str(tmp_path / "home") in error["message"]


def test_a_hivecomb_that_is_none(start: Start, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "hivecomb.db").write_bytes(b"this is no database " * 500)
    assert start("--port", "0").error()["code"] == "hivecomb_error"
