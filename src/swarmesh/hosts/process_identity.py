"""One process for good: a pid alone may belong to somebody else by the time it is used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Final

import msgspec
import psutil

START_TOLERANCE_S: Final = 2.0
"""Two readings of one start differ when the clock was set in between; a pid is not given out twice within this."""
POLL_INTERVAL_S: Final = 0.1
"""How often a process is looked at where the system cannot tell of its end."""


class ProcessIdentity(msgspec.Struct, frozen=True):
    """A pid, when its process started (Unix seconds) and in which boot of the machine."""

    pid: int
    started_at: float
    boot_id: str

    @property
    def alive(self) -> bool:
        """Whether exactly this process runs; one that only waits to be reaped does not."""
        now = identify(self.pid)
        if now is None or (self.boot_id and now.boot_id != self.boot_id):
            return False
        return abs(now.started_at - self.started_at) <= START_TOLERANCE_S

    def send(self, signum: signal.Signals) -> bool:
        """Signal this process and no other; False when it has ended."""
        handle = _open(self.pid)
        try:
            if not self.alive:
                return False
            if handle is None:
                os.kill(self.pid, signum)
            else:
                signal.pidfd_send_signal(handle, signum)
        except (ProcessLookupError, PermissionError):
            return False
        finally:
            if handle is not None:
                os.close(handle)
        return True

    async def wait_exit(self) -> None:
        """Return when this process has ended; it need not be a child of ours."""
        handle = _open(self.pid)
        if handle is None:
            while self.alive:  # noqa: ASYNC110 - nothing here tells of the end of somebody else's child
                await asyncio.sleep(POLL_INTERVAL_S)
            return
        try:
            if self.alive:
                await _readable(handle)
        finally:
            os.close(handle)


def identify(pid: int) -> ProcessIdentity | None:
    """The process that has this pid now; None when there is none that runs."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return ProcessIdentity(pid, process.create_time(), boot_id())
    except (psutil.Error, ValueError):
        return None


def boot_id() -> str:
    """Identity of the machine's present boot; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _open(pid: int) -> int | None:
    if hasattr(os, "pidfd_open") and pid > 0:
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return None


async def _readable(handle: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
