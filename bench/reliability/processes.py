"""Processes of one home: found by the notes they leave there, stopped, woken and ended by pid, never by name."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

SAME_START_S: Final = 2.0
"""How far a noted start time may be off; a process that started at another time only has the same pid."""
END_TIMEOUT_S: Final = 10.0


def exists(pid: int) -> bool:
    """Whether a process runs under this pid; one that has ended and was not waited for does not."""
    try:
        return pid > 0 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def send(pid: int, number: signal.Signals) -> None:
    """A signal; to a process that is gone it is no error."""
    assert pid > 1, f"pid {pid} is nobody's rustbee"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def stop(*pids: int) -> None:
    """SIGSTOP: from here on they do nothing, and do not know it."""
    for pid in pids:
        send(pid, signal.SIGSTOP)


def go_on(*pids: int) -> None:
    """SIGCONT."""
    for pid in pids:
        send(pid, signal.SIGCONT)


def kill(*pids: int) -> None:
    """SIGKILL, as ``kill -9``."""
    for pid in pids:
        send(pid, signal.SIGKILL)


def noted_in(home: Path) -> set[psutil.Process]:
    """The queen, the agents and the engines of a home that still run."""
    notes = [*home.glob("queen.json"), *home.glob("rustbees/*/agent.json")]
    found: set[psutil.Process] = set()
    for path in notes:
        note = _read(path)
        for pid, started_at in (("pid", "started_at"), ("engine_pid", "engine_started_at")):
            process = _process(note.get(pid, 0), note.get(started_at, 0.0))
            if process is not None:
                found |= {process, *_children(process)}
    return found


def wake(process: psutil.Process) -> None:
    """SIGCONT, so that it can end when it is asked to."""
    with contextlib.suppress(psutil.Error):
        process.resume()


def end(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to those that are left, and wait until they are gone."""
    left = [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=END_TIMEOUT_S)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _process(pid: int, started_at: float) -> psutil.Process | None:
    if pid <= 1:
        return None
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - started_at) <= SAME_START_S else None
    except psutil.NoSuchProcess:
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return {}
