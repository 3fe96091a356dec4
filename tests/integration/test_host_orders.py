"""Orders to another host, and installations that are cut off: everything but SSH, with the real program."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from install_bed import HIVE, left_in
from shell_here import ShellHere
from swarmesh.hosts.install import uninstall
from swarmesh.hosts.process_identity import boot_id
from swarmesh.hosts.remote_process import RemoteProcess, RemoteShell
from swarmesh.wire.errors import RemoteError

pytestmark = pytest.mark.timeout(300)
"""The first test's setup is a whole installation, which writes much; other tests may use the same disk."""


async def begin(shell: RemoteShell, **file: object) -> RemoteProcess:
    """An installation that waits for one file's bytes."""
    sent = {"name": "x.whl", "size_bytes": 6, "sha256": "0" * 64, **file}
    order = {"action": "install", "digest": "a" * 16, "registry": True, "files": [sent]}
    return await shell.start(order)


async def until_it_fails(process: RemoteProcess, at_send: Callable[[], None] = lambda: None) -> RemoteError:
    try:
        while "done" not in (line := json.loads(await process.line())):
            if line["step"]["step"] == "send":
                at_send()
    except RemoteError as error:
        return error
    finally:
        await process.close()
    pytest.fail(f"it succeeded: {line}")


async def test_a_connection_that_ends_early_leaves_nothing(tmp_path: Path) -> None:
    process = await begin(ShellHere(tmp_path))
    await process.send(b"abc")
    error = await until_it_fails(process, process.end_input)
    assert error.code == "host_install_failed"
    assert "ended 3 bytes before the end of x.whl" in error.message
    assert not left_in(tmp_path)


async def test_a_file_that_arrives_changed_is_not_used(tmp_path: Path) -> None:
    process = await begin(ShellHere(tmp_path))
    await process.send(b"abcdef")
    error = await until_it_fails(process)
    assert error.code == "host_install_failed"
    assert "x.whl did not arrive as it was sent" in error.message
    assert not left_in(tmp_path)


def slow_pip(path: Path, gate: Path, *, goes_on: bool = False) -> bytes:
    """A pip that tells that it runs, and then waits until somebody opens the gate; to go on for ever, or to end."""
    os.mkfifo(gate)
    with zipfile.ZipFile(path, "w") as file:
        code = f"print('Downloading x', flush=True)\nwith open({str(gate)!r}) as gate:\n    gate.read()\n"
        code += "print('Using cached x', flush=True)\nimport signal\nsignal.pause()\n" if goes_on else ""
        file.writestr("pip/__main__.py", code)
    return path.read_bytes()


def is_locked(home: Path) -> bool:
    with (home / ".swarmesh" / ".lock").open() as file, contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    return True


async def test_a_pip_whose_parent_was_killed_is_waited_for(tmp_path: Path) -> None:
    home, gate = tmp_path / "home", tmp_path / "gate"
    home.mkdir()
    pip = slow_pip(tmp_path / "pip.zip", gate)
    files = [("requirements.lock", b"a==1\n"), ("pip.zip", pip)]
    named = [
        {"name": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files
    ]
    order = {"action": "install", "digest": "a" * 16, "registry": True, "files": named}
    killed = await ShellHere(home).start(order)
    await killed.send(b"".join(data for _, data in files))
    while b"Downloading" not in await killed.line():
        assert is_locked(home)
    killed.kill()
    await killed.close()
    assert is_locked(home)
    next_one = await begin(ShellHere(home))
    handle = os.open(gate, os.O_WRONLY)
    assert is_locked(home), "what pip is still writing to is left alone"
    os.close(handle)
    error = await until_it_fails(next_one, next_one.end_input)
    assert "before the end of x.whl" in error.message
    assert not left_in(home)


async def stop_reading(process: RemoteProcess) -> None:
    """Close the pipe it writes to, as the loss of a connection does; asyncio does it a moment later."""
    process._process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]  # no public way
    await asyncio.sleep(0.05)


async def test_an_installation_ends_when_the_queen_is_gone(tmp_path: Path) -> None:
    home, gate = tmp_path / "home", tmp_path / "gate"
    home.mkdir()
    pip = slow_pip(tmp_path / "pip.zip", gate, goes_on=True)
    files = [("requirements.lock", b"a==1\n"), ("pip.zip", pip)]
    named = [
        {"name": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files
    ]
    order = {"action": "install", "digest": "a" * 16, "registry": True, "files": named}
    process = await ShellHere(home).start(order)
    await process.send(b"".join(data for _, data in files))
    while b"Downloading" not in await process.line():
        assert is_locked(home)
    (pip_there,) = psutil.Process(process.pid).children()
    await stop_reading(process)
    await asyncio.to_thread(gate.write_text, "go on")  # Its next line is one that nobody reads.
    await asyncio.to_thread(psutil.wait_procs, [pip_there], 10)
    assert not pip_there.is_running(), "it had not ended by itself"
    await process.close()
    assert not left_in(home)


async def test_taking_all_away_goes_on_when_the_queen_is_gone(tmp_path: Path) -> None:
    occupied(tmp_path, HIVE)
    with (tmp_path / ".swarmesh" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = await ShellHere(tmp_path).start({"action": "uninstall", "hive": HIVE, "keep_models": False})
        await stop_reading(process)
    await process._process.wait()
    await process.close()
    assert not left_in(tmp_path)


async def test_a_file_goes_nowhere_else(tmp_path: Path) -> None:
    process = await begin(ShellHere(tmp_path), name="../../x")
    error = await until_it_fails(process)
    assert error.code == "unknown_order"
    assert not left_in(tmp_path)


async def test_an_order_of_another_version_is_refused(tmp_path: Path) -> None:
    process = await ShellHere(tmp_path).start({"action": "dance"})
    error = await until_it_fails(process)
    assert error.code == "unknown_order"


async def test_what_is_not_installed_is_not_run(tmp_path: Path) -> None:
    process = await ShellHere(tmp_path).start({"action": "run", "digest": "a" * 16})
    error = await until_it_fails(process)
    assert error.code == "host_not_installed"
    assert not left_in(tmp_path)


async def test_what_runs_gets_the_rest_of_the_input_and_a_clean_environment(tmp_path: Path) -> None:
    env = tmp_path / ".swarmesh" / "envs" / ("a" * 16)
    python = env / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "{\\"args\\": \\"$*\\", \\"agent\\": \\"$SSH_AUTH_SOCK\\"}"\nexec cat\n')
    python.chmod(0o700)
    (env / ".ready").write_text(str(python.resolve()))
    process = await ShellHere(tmp_path, SSH_AUTH_SOCK="/tmp/agent").start({"action": "run", "digest": "a" * 16})
    await process.send(b'{"opening": 1}\nraw')
    process.end_input()
    assert json.loads(await process.line()) == {"args": "-I -m swarmesh.remote", "agent": ""}
    assert json.loads(await process.line()) == {"opening": 1}
    assert await process.bytes(10) == b"raw"
    await process.close()


def occupied(home: Path, hive: str, worker_pid: int = 0) -> Path:
    """A hive's home as it is on a host, with one rustbee."""
    at = home / ".swarmesh" / "hives" / hive
    for path in (at / "models", at / "rustbees" / "r1", at / "run", home / ".swarmesh" / "envs" / ("a" * 16)):
        path.mkdir(parents=True, exist_ok=True)
    (at / "models" / "m.gguf").write_bytes(b"m")
    (at / "worker.secret").write_bytes(b"s")
    started_at = psutil.Process(worker_pid).create_time() if worker_pid else 0.0
    agent = {"pid": worker_pid, "started_at": started_at, "boot_id": boot_id()}
    (at / "rustbees" / "r1" / "agent.json").write_text(json.dumps(agent))
    return at


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


async def test_a_hive_whose_rustbee_lives_is_not_removed(worker: subprocess.Popen[bytes], tmp_path: Path) -> None:
    home = occupied(tmp_path, HIVE, worker.pid)
    with pytest.raises(RemoteError, match="r1") as error:
        await uninstall(ShellHere(tmp_path), HIVE, keep_models=False)
    worker.kill()
    worker.wait()
    assert error.value.code == "host_in_use"
    assert (home / "worker.secret").exists()
    await uninstall(ShellHere(tmp_path), HIVE, keep_models=False)
    assert not left_in(tmp_path)


async def test_the_last_hive_takes_everything_along_but_kept_models(tmp_path: Path) -> None:
    first, second = occupied(tmp_path, HIVE), occupied(tmp_path, "b" * 12)
    (tmp_path / ".swarmesh" / "bin").mkdir()
    (tmp_path / ".swarmesh" / "bin" / "swarmesh").write_text(f"SWARMESH_HOME={first}")
    await uninstall(ShellHere(tmp_path), HIVE, keep_models=True)
    assert left_in(first) == ["models"]
    assert (tmp_path / ".swarmesh" / "envs").exists(), "another hive is there"
    assert (tmp_path / ".swarmesh" / "bin" / "swarmesh").read_text() == f"SWARMESH_HOME={second}"
    await uninstall(ShellHere(tmp_path), second.name, keep_models=False)
    assert left_in(tmp_path / ".swarmesh") == ["hives"]
    assert (first / "models" / "m.gguf").exists()
    await uninstall(ShellHere(tmp_path), HIVE, keep_models=False)
    assert not left_in(tmp_path)


async def test_uninstalling_where_nothing_is_does_nothing(tmp_path: Path) -> None:
    await uninstall(ShellHere(tmp_path), HIVE, keep_models=False)
    assert not left_in(tmp_path)
