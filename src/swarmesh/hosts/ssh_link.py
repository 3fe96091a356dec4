"""One connection to a host: the session on it, the queen's socket there, and the workers' sockets here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from swarmesh.config.home import Home
from swarmesh.core.errors import InvalidValueError, SwarmeshError
from swarmesh.hosts.remote_process import RemoteProcess
from swarmesh.hosts.said import plain, steers
from swarmesh.hosts.session_client import SessionClient
from swarmesh.hosts.ssh_errors import QUOTED_CHARS_MAX, HostSetupError
from swarmesh.hosts.ssh_forwards import SshForwards, control_socket, drop_socket
from swarmesh.hosts.ssh_shell import SshShell
from swarmesh.net.address import Address, parse_address
from swarmesh.wire.session import Opening

CLOSE_WAIT_S: Final = 2.0
"""What a session gets to end by itself; then the connection is cut, with whatever still goes through it."""
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, nothing listens
"""Addresses one can listen on but not connect to, and what answers then."""


class SshLink:
    """Made by `open`; over when `run` returns."""

    def __init__(self, process: RemoteProcess, session: SessionClient, control: Path) -> None:
        self.session = session
        self.forwards = SshForwards(control)
        self._process = process
        self._control = control
        self._running = asyncio.create_task(session.run())

    @classmethod
    async def open(
        cls,
        shell: SshShell,
        home: Home,
        *,
        digest: str,
        opening: Opening,
        queen_address: str,
        sockets: Mapping[Path, str],
        or_other: bool = False,
    ) -> SshLink:
        """Connect, and have everything in place.

        ``digest`` is the software that has to be installed there, if not ``or_other``; ``queen_address`` is where the
        queen listens here, and ``sockets`` are paths here, and where on the host each has to lead (see `place_of`).

        Raises:
            SwarmeshError: It did not work; nothing is left of it.
        """
        home.make()
        control = control_socket(home, shell.target.name)
        drop_socket(control)  # Left by a queen that was killed; ssh would not take its place.
        process = await shell.start_session({"action": "run", "digest": digest, "or_other": or_other}, control)
        link = None
        try:
            session = await SessionClient.open(process, opening)
            link = cls(process, session, control)
            await link.forwards.add_reverse(session.hello.queen_socket, place_of(queen_address))
            for local, place in sockets.items():
                await link.forwards.add(local, place)
            await link.say_linked()
        except BaseException:
            process.kill()
            await (link.close() if link is not None else process.close())
            drop_socket(control)
            raise
        return link

    async def say_linked(self) -> None:
        """Have the host tell its agents where the queen is."""
        await self.session.call("linked", {}, object)

    async def run(self) -> SwarmeshError:
        """Return when the connection is over, and why."""
        return await asyncio.shield(self._running)

    def end(self) -> None:
        """Have the session end, and the connection with it: `run` returns."""
        self._process.end_input()

    async def close(self) -> None:
        """End the session and everything that goes through the connection."""
        self._process.end_input()
        await asyncio.wait([self._running], timeout=CLOSE_WAIT_S)
        self._process.kill()
        await asyncio.wait([self._running])
        await self._process.close()
        drop_socket(self._control)


def place_of(location: str) -> str:
    """Where a forward has to lead, as ssh writes it, for something that listens at an address.

    Raises:
        InvalidValueError: It is no address.
    """
    address = parse_address(location if location.startswith(("unix:", "http:")) else f"http://{location}")
    if address.path:
        return address.path
    return Address(host=_ANY.get(address.host, address.host), port=address.port).authority.decode()


def place_there(location: str) -> str:
    """As `place_of`, for an address that the other machine told.

    Raises:
        HostSetupError: It is none that a forward may lead to.
    """
    try:
        if not steers(location) and location.startswith(("unix:/", "http://")):
            return place_of(location)
    except (InvalidValueError, ValueError) as error:
        raise _nowhere(location) from error
    raise _nowhere(location)


def _nowhere(location: str) -> HostSetupError:
    return HostSetupError(f"the host names {plain(location, QUOTED_CHARS_MAX)!r} as a rustbee's address")
