"""The queen of this home as a process: started detached, found again, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from swarmesh.client import Swarmesh
from swarmesh.client.endpoint import own_queen, read_admin_key
from swarmesh.config.home import Home, QueenFile, read_queen_file
from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts.process_identity import ProcessIdentity
from swarmesh.wire.errors import ErrorEnvelope, RemoteError

START_WAIT_S: Final = 20.0
STOP_WAIT_S: Final = 20.0
ANSWER_WAIT_S: Final = 30.0
_POLL_S: Final = 0.05
_KILL_LOOK_S: Final = 0.005
"""A killed process is gone within milliseconds, and how long the swarm is without a queen is measured."""
_LOG_TAIL_BYTES: Final = 64 * 1024


class QueenStartError(SwarmeshError):
    """The queennode did not start."""

    code = "queen_start_failed"


class QueenStopError(SwarmeshError):
    """The queennode did not stop."""

    code = "queen_stop_failed"


def queen_command(*, port: int | None, host: str | None) -> list[str]:
    """The queen's command line; `-P` keeps the current directory off her import path."""
    command = [sys.executable, "-P", "-m", "swarmesh.queen"]
    if port is not None:
        command += ["--port", str(port)]
    if host is not None:
        command += ["--host", host]
    return command


def queen_environ(home: Home) -> dict[str, str]:
    """The queen's environment: this one, with the home made explicit."""
    return {**os.environ, "SWARMESH_HOME": str(home.root)}


def log_path(home: Home) -> Path:
    """Where a detached queen writes."""
    return home.logs_dir / "queennode.log"


def running_queen(home: Home) -> QueenFile | None:
    """The note of a queen that runs now; None when there is none, whatever a dead one left behind.

    Raises:
        LentHomeError: The home belongs to a queen on another machine.
    """
    note = own_queen(home)
    return note if note is not None and _process_of(note).alive else None


def home_swarm(home: Home, queen: QueenFile, *, timeout_s: float = ANSWER_WAIT_S) -> Swarmesh:
    """A client of this home's own queen, wherever the environment points."""
    return Swarmesh(queen.url, read_admin_key(home) or None, timeout_s=timeout_s)


def start_queen(home: Home, *, port: int | None = None, host: str | None = None) -> QueenFile:
    """Start a queen that outlives this command; return when she is healthy.

    Raises:
        RemoteError: She ended at once, with her own words: port taken, hivecomb locked, bad configuration.
        QueenStartError: She ended without a word, or was not healthy in time (and was ended).
    """
    home.make()
    path = log_path(home)
    with path.open("ab") as log:
        log_start = log.tell()
        process = subprocess.Popen(
            queen_command(port=port, host=host),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home.root,
            env=queen_environ(home),
            start_new_session=True,
        )
    try:
        queen = _wait_healthy(home, process)
    except BaseException:
        process.terminate()
        raise
    if queen is None:
        code = process.poll()
        if code is None:
            process.terminate()
            process.wait(STOP_WAIT_S)
        raise _start_error(path, log_start, code)
    # She outlives this process, which therefore never waits for her.
    process.returncode = 0
    return queen


def stop_queen(home: Home) -> QueenFile | None:
    """Ask this home's queen to end and wait until she has; workers stay. Returns the note of the one stopped.

    Raises:
        QueenStopError: She did not end in time, or belongs to somebody else.
    """
    note = running_queen(home)
    if note is None:
        return None
    process = _process_of(note)
    if not process.send(signal.SIGTERM) and process.alive:
        raise QueenStopError(f"the queennode, pid {note.pid}, cannot be signalled; she belongs to another user")
    give_up_at = time.monotonic() + STOP_WAIT_S
    while process.alive:
        if time.monotonic() > give_up_at:
            raise QueenStopError(
                f"the queennode, pid {note.pid}, has not ended within {STOP_WAIT_S:g} s",
                hint=f"See {log_path(home)}; 'kill -9 {note.pid}' ends her, rustbees and nectarflows survive that.",
            )
        time.sleep(_POLL_S)
    return note


def kill_queen(home: Home) -> QueenFile | None:
    """End this home's queen with SIGKILL, as a drill, and wait until she is gone. Returns the note of the one killed.

    Raises:
        QueenStopError: She belongs to somebody else.
    """
    note = running_queen(home)
    if note is None:
        return None
    process = _process_of(note)
    if not process.send(signal.SIGKILL) and process.alive:
        raise QueenStopError(f"the queennode, pid {note.pid}, cannot be signalled; she belongs to another user")
    give_up_at = time.monotonic() + STOP_WAIT_S
    while process.alive:
        if time.monotonic() > give_up_at:
            raise QueenStopError(f"the queennode, pid {note.pid}, was killed and is still there", hint="See 'ps'.")
        time.sleep(_KILL_LOOK_S)
    return note


def queen_error(line: str) -> RemoteError | None:
    """The queen's error if a line of her output is one."""
    if not line.startswith('{"error"'):
        return None
    try:
        return RemoteError(msgspec.json.decode(line, type=ErrorEnvelope).error, status=500)
    except msgspec.DecodeError:
        return None


def _process_of(note: QueenFile) -> ProcessIdentity:
    return ProcessIdentity(note.pid, note.started_at, boot_id="")


def _wait_healthy(home: Home, process: subprocess.Popen[bytes]) -> QueenFile | None:
    give_up_at = time.monotonic() + START_WAIT_S
    while process.poll() is None and time.monotonic() < give_up_at:
        note = read_queen_file(home.queen_file)
        if note is not None and note.pid == process.pid and _is_healthy(home, note):
            return note
        time.sleep(_POLL_S)
    return None


def _is_healthy(home: Home, note: QueenFile) -> bool:
    try:
        with home_swarm(home, note) as swarm:
            swarm.health()
    except SwarmeshError:
        return False
    return True


def _start_error(path: Path, log_start: int, code: int | None) -> SwarmeshError:
    with path.open("rb") as log:
        log.seek(max(log_start, path.stat().st_size - _LOG_TAIL_BYTES))
        lines = log.read().decode("utf-8", "replace").splitlines()
    for line in reversed(lines):
        if (error := queen_error(line)) is not None:
            return error
    said = f"; its last line is {lines[-1][:300]!r}" if lines else ""
    what = f"was not healthy within {START_WAIT_S:g} s" if code is None else f"ended with exit code {code}"
    return QueenStartError(f"the queennode {what}{said}", hint=f"See {path}")
