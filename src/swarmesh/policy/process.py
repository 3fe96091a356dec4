"""The process of one script, seen from the queen: started, asked, and ended without ever waiting for it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Final

import msgspec

from swarmesh.core.script import ScriptFailedError
from swarmesh.policy.confinement import ASK_S_MAX, MEMORY_MIB
from swarmesh.policy.frames import FRAME_BYTES_MAX, HEAD, Order, Report, frame, read_report

_ARGV: Final = (sys.executable, "-I", "-m", "swarmesh.policy.sandbox")
_READ_BYTES: Final = 64 * 1024
_SOCKET_BYTES: Final = 256 * 1024
_LAST_WORDS_BYTES: Final = 4096
_STATUS_WAIT_S: Final = 0.02
_OUT_OF_MEMORY: Final = (b"memory allocation of ", b"out of memory", b"MemoryError")
"""What the parts of a process write before they end for want of memory."""


class ProcessEndedError(Exception):
    """The process has ended, or does not keep to what was agreed; the message says how, in words for people."""


class ScriptsUnavailableError(ScriptFailedError):
    """This installation cannot run scripts: their language is not there."""

    code = "policy_scripts_unavailable"
    status = 503
    default_hint = "pip install 'rustbee[scripts]' where the queennode runs; some machines have no wheel of it."


def demand_language() -> None:
    """Say at once what a process would only find out when it starts.

    Raises:
        ScriptsUnavailableError: Starlark is not installed.
    """
    if importlib.util.find_spec("starlark") is None:
        raise ScriptsUnavailableError("policy scripts need the package starlark-pyo3, and it is not installed")


class ScriptProcess:
    """A child process with a socket to it. Nothing here blocks for longer than it is told to.

    Raises:
        ProcessEndedError: It cannot be started.
    """

    def __init__(self) -> None:
        try:
            self._popen, self._socket = _spawned()
        except OSError as error:
            raise ProcessEndedError(f"its process cannot be started: {error.strerror}") from error
        self._buffer = bytearray()
        self.started_s = time.monotonic()

    @property
    def pid(self) -> int:
        """Also after its end."""
        return self._popen.pid

    def send(self, order: Order, timeout_s: float) -> None:
        """Hand an order over.

        Raises:
            ProcessEndedError: It takes none any more.
        """
        data = frame(order)
        if len(data) > FRAME_BYTES_MAX:
            raise ProcessEndedError(f"what it is asked has {len(data):,} bytes, more than {FRAME_BYTES_MAX:,}")
        self._socket.settimeout(timeout_s)
        try:
            self._socket.sendall(data)
        except OSError as error:
            # Half a frame may have gone out: nothing that follows would be understood.
            raise ProcessEndedError(self._end()) from error

    def receive(self, timeout_s: float) -> Report | None:
        """The next report; None when there is none in time.

        Raises:
            ProcessEndedError: There will be none.
        """
        until_s = time.monotonic() + timeout_s
        while (report := self._next()) is None:
            data = self._read(max(0.0, until_s - time.monotonic()))
            if data is None:
                return None
            if not data:
                raise ProcessEndedError(self._end())
            self._buffer += data
        return report

    def kill(self) -> None:
        """End it without waiting; `is_gone` clears it away later. Harmless when it has ended."""
        self._socket.close()
        self._popen.kill()

    def is_gone(self) -> bool:
        """Whether it has ended and was cleared away; for one that was killed or whose end was raised."""
        if self._popen.poll() is None:
            return False
        assert self._popen.stderr is not None, "it is piped"
        self._popen.stderr.close()
        return True

    def wait_gone(self, timeout_s: float) -> bool:
        """The same, after some time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout_s)
        return self.is_gone()

    def _end(self) -> str:
        """How it ended, which is known very soon after its socket was closed; killed if it was only the socket."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_STATUS_WAIT_S)
        words = _ended_words(self._popen.poll(), self._last_words())
        self.kill()
        return words

    def _last_words(self) -> bytes:
        assert self._popen.stderr is not None, "it is piped"
        os.set_blocking(self._popen.stderr.fileno(), False)
        try:
            return os.read(self._popen.stderr.fileno(), _LAST_WORDS_BYTES)
        except BlockingIOError:
            return b""

    def _read(self, timeout_s: float) -> bytes | None:
        """What has come; nothing at its end, None when nothing comes in time."""
        self._socket.settimeout(timeout_s)
        try:
            return self._socket.recv(_READ_BYTES)
        except (TimeoutError, BlockingIOError):
            return None
        except OSError:
            return b""

    def _next(self) -> Report | None:
        if len(self._buffer) < HEAD.size:
            return None
        (size,) = HEAD.unpack_from(self._buffer)
        if size > FRAME_BYTES_MAX:
            raise ProcessEndedError(self._end())
        end = HEAD.size + size
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[HEAD.size : end])
        del self._buffer[:end]
        try:
            report: Report = read_report(body)
        except msgspec.DecodeError as error:
            self.kill()
            raise ProcessEndedError(f"its process said what nobody understands: {error}") from error
        return report


def _spawned() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A process and our end of the socket to it; nothing is left open when there is none."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
            return _spawn(theirs.fileno()), ours
        except OSError:
            ours.close()
            raise


def _spawn(stdin: int) -> subprocess.Popen[bytes]:
    # A script has no business with the environment, and its process none with files that are open here.
    return subprocess.Popen(
        _ARGV,
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={},
        cwd="/",
        start_new_session=True,
    )


def _ended_words(status: int | None, last_words: bytes) -> str:
    if any(mark in last_words for mark in _OUT_OF_MEMORY):
        return f"took more than {MEMORY_MIB} MiB of memory"
    match status:
        case None:
            return "its process says nothing more"
        case _ if status == -signal.SIGALRM:
            return f"computed for more than {ASK_S_MAX:g} s"
        case _ if status < 0:
            return f"its process was ended by {_signal_name(-status)}"
        case _:
            said = last_words.decode(errors="replace").strip().splitlines()
            return f"its process ended with status {status}" + (f": {said[-1]}" if said else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
