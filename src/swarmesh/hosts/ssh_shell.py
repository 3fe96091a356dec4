"""Another machine as one on which the remote command runs: one ssh process for each connection, a few at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from swarmesh.config.home import Home
from swarmesh.hosts.remote_process import RemoteProcess
from swarmesh.hosts.ssh_command import connect_argv, ssh_environment
from swarmesh.hosts.ssh_errors import SshMissingError, explain
from swarmesh.hosts.ssh_target import SshTarget

CONNECTIONS_MAX: Final = 4
"""To one host at once. One of them is the session's, so that copies of large files never keep it out."""


class SshShell:
    """See `swarmesh.hosts.remote_process.RemoteShell`. A start waits while as many connections live as may."""

    def __init__(self, target: SshTarget, home: Home) -> None:
        self.target = target
        self._home = home
        self._free = asyncio.Semaphore(CONNECTIONS_MAX - 1)
        self._session_free = asyncio.Semaphore(1)
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self, order: Mapping[str, Any]) -> RemoteProcess:
        """See `swarmesh.hosts.remote_process.RemoteShell`.

        Raises:
            SshMissingError: There is no ssh here.
        """
        return await self._start(order, None, self._free)

    async def start_session(self, order: Mapping[str, Any], control: Path) -> RemoteProcess:
        """As `start`, and forwards can be added to this connection through the socket ``control``."""
        return await self._start(order, control, self._session_free)

    async def _start(self, order: Mapping[str, Any], control: Path | None, free: asyncio.Semaphore) -> RemoteProcess:
        argv = connect_argv(self.target, self._home, control)
        await free.acquire()
        try:
            process = await _SshProcess.start(argv, order, explain(self.target), ssh_environment(os.environ))
        except OSError as error:
            free.release()
            raise SshMissingError(f"ssh cannot be run here: {error.strerror}") from error
        except BaseException:
            free.release()
            raise
        assert isinstance(process, _SshProcess), "a class method makes its own class"
        ending = asyncio.create_task(process.release_at_end(free))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return process


class _SshProcess(RemoteProcess):
    async def release_at_end(self, free: asyncio.Semaphore) -> None:
        """Counted by the process, not by who holds it: one that was forgotten still has its connection."""
        try:
            await self._process.wait()
        finally:
            free.release()
