"""Sockets that lead through a connection: made by asking the ssh process that holds it, by its control socket."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from swarmesh.config.home import LONGEST_SOCKET_NAME, Home
from swarmesh.hosts.said import STEP_CHARS_MAX, plain
from swarmesh.hosts.ssh_command import forward_argv, reverse_forward, socket_forward
from swarmesh.hosts.ssh_errors import HostForwardError, HostLostError
from swarmesh.hosts.ssh_tool import run_tool

FORWARD_WAIT_S: Final = 10.0
"""Asking takes milliseconds where the link is up; where it is not, it would take for ever."""
ASKED_AT_ONCE_MAX: Final = 4
"""Each asking is a process of its own, and a host may have many workers."""
_NO_MASTER: Final = "Control socket connect"


def control_socket(home: Home, host: str) -> Path:
    """Where the ssh process of a host's session is asked. ssh binds it under a name 17 characters longer."""
    return home.sockets_dir / f"h-{_short(host)}.ctl"


def worker_socket(home: Home, host: str, worker_id: str) -> Path:
    """Where a worker of another host is reached on this machine."""
    name = f"h-{_short(host)}-{worker_id}.sock"
    if len(name) > LONGEST_SOCKET_NAME:
        name = f"h-{_short(host)}-{_short(worker_id)}.sock"
    return home.sockets_dir / name


def drop_socket(path: Path) -> None:
    """Take a socket's file away; harmless when there is none."""
    path.unlink(missing_ok=True)


class SshForwards:
    """The forwards of one connection; they end with it, but for the socket files here."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._free = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

    async def add(self, local: Path, place: str) -> None:
        """Have connections to the socket ``local`` arrive at ``place`` there: ``host:port`` or a socket's path.

        Raises:
            HostLostError: The connection is gone.
            HostForwardError: ssh does not do it.
        """
        await self._ask(socket_forward(local, place))

    async def add_reverse(self, remote: str, place: str) -> None:
        """Have connections to the socket ``remote`` there arrive at ``place`` here: ``host:port`` or a socket's path.

        Raises:
            HostLostError: The connection is gone.
            HostForwardError: The host does not do it.
        """
        await self._ask(reverse_forward(remote, place))

    async def cancel(self, local: Path, place: str) -> None:
        """Take a forward back; harmless when it or the connection is gone. ssh would leave the socket file behind."""
        with contextlib.suppress(HostLostError, HostForwardError):
            await self._ask(socket_forward(local, place), cancel=True)
        drop_socket(local)

    async def _ask(self, forward: Sequence[str], *, cancel: bool = False) -> None:
        try:
            async with self._free:
                run = await run_tool(forward_argv(self._control, forward, cancel=cancel), FORWARD_WAIT_S)
        except TimeoutError as error:
            raise HostLostError(f"a socket could not be forwarded within {FORWARD_WAIT_S:g} s") from error
        if run.code:
            _fail(run.said)


def _fail(said: str) -> None:
    if _NO_MASTER in said:
        raise HostLostError("the connection to the host is gone")
    first = plain((said.splitlines() or ["ssh said nothing"])[0], STEP_CHARS_MAX)
    raise HostForwardError(f"a socket could not be forwarded: {first}")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
