"""What a session's process holds of its surroundings: its output, its queen's socket, its sshd."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from swarmesh.config.home import Home, read_queen_file
from swarmesh.core.errors import ConfigError, InvalidValueError
from swarmesh.remote import output, ssh_server
from swarmesh.remote.opening import read_opening
from swarmesh.remote.output import Output
from swarmesh.remote.queen_note import QueenNote
from swarmesh.remote.ssh_server import SshServer

PIPE_BYTES = 1 << 20
"""More than any pipe holds."""


async def test_output_keeps_its_order_and_waits_for_nobody() -> None:
    read_end, write_end = os.pipe()
    out = Output(write_end)
    lines = [b"%d %b\n" % (number, b"x" * 50_000) for number in range(100)]
    for line in lines:
        out.send(line)
    assert not out.idle
    draining = asyncio.create_task(out.drain(5.0))
    read = await asyncio.to_thread(_read_exactly, read_end, sum(map(len, lines)))
    await draining
    assert out.idle
    assert read == b"".join(lines)
    for end in (read_end, write_end):
        os.close(end)


def _read_exactly(descriptor: int, size_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < size_bytes:
        data += os.read(descriptor, 65_536)
    return bytes(data)


async def test_output_that_nobody_takes_is_silence() -> None:
    read_end, write_end = os.pipe()
    out = Output(write_end)
    out.send(bytes(PIPE_BYTES))
    with pytest.raises(TimeoutError):
        await out.drain(0.01)
    for end in (read_end, write_end):
        os.close(end)


async def test_output_without_a_reader_is_told_of_once() -> None:
    read_end, write_end = os.pipe()
    out, told = Output(write_end), []
    out.on_broken = lambda: told.append("broken")
    os.close(read_end)
    out.send(b"one\n")
    out.send(b"two\n")
    with pytest.raises(BrokenPipeError):
        await out.drain(1.0)
    assert told == ["broken"]
    os.close(write_end)


async def test_output_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "PENDING_BYTES_MAX", 2 * PIPE_BYTES)
    read_end, write_end = os.pipe()
    out, told = Output(write_end), []
    out.on_broken = lambda: told.append("broken")
    for _ in range(4):
        out.send(bytes(PIPE_BYTES))
    assert told == ["broken"]
    assert out.idle
    for end in (read_end, write_end):
        os.close(end)


def test_not_a_byte_after_the_first_line_is_read() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b'{"purpose": "session", "hive": "0123456789ab"}\nthe rest')
    assert read_opening(read_end, 1.0).hive == "0123456789ab"
    assert os.read(read_end, 100) == b"the rest"
    with pytest.raises(InvalidValueError, match=r"no first line came within 0\.01 s"):
        read_opening(read_end, 0.01)
    os.close(write_end)
    with pytest.raises(InvalidValueError, match="ended after 0 bytes"):
        read_opening(read_end, 1.0)
    os.close(read_end)


def test_a_socket_that_no_system_would_take_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    home.make()
    monkeypatch.setattr("swarmesh.remote.queen_note.SOCKET_PATH_BYTES_MAX", 20)
    with pytest.raises(ConfigError, match="may have 20"):
        QueenNote(home)


def test_a_note_is_withdrawn_by_its_own_session_only(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.make()
    earlier, later = QueenNote(home), QueenNote(home)
    earlier.withdraw()
    earlier.write()
    later.write()
    earlier.withdraw()
    note = read_queen_file(home.queen_file)
    assert note is not None
    assert note.url == f"unix:{later.socket}"
    assert note.pid == os.getpid()
    later.withdraw()
    assert read_queen_file(home.queen_file) is None


@pytest.mark.parametrize(
    ("parent_at_the_end", "ended"), [("the same", True), ("another", False)], ids=["the same", "another"]
)
def test_only_the_sshd_of_the_start_is_ended(
    monkeypatch: pytest.MonkeyPatch, parent_at_the_end: str, *, ended: bool
) -> None:
    sshd = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert sshd.stdin is not None
    monkeypatch.setattr(ssh_server.psutil.Process, "name", lambda _: "sshd")
    monkeypatch.setattr(os, "getppid", lambda: sshd.pid)
    server = SshServer()
    if parent_at_the_end == "another":
        monkeypatch.setattr(os, "getppid", lambda: 1)
    assert server.end() is ended
    sshd.stdin.close()
    assert sshd.wait() == (-signal.SIGTERM if ended else 1)


def test_a_process_without_an_sshd_above_it_ends_nothing() -> None:
    assert SshServer().end() is False
