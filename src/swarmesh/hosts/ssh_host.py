"""Another machine as a host: everything is asked of the session there, and the connection is kept up by itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog

from swarmesh.config.home import Home
from swarmesh.core.errors import InternalError, SwarmeshError
from swarmesh.hosts.agent_file import AgentFile
from swarmesh.hosts.backoff import Backoff
from swarmesh.hosts.host import HostFacts, SpawnedAgent
from swarmesh.hosts.install import install
from swarmesh.hosts.remote_process import RemoteProcess
from swarmesh.hosts.said import plain, plain_lines
from swarmesh.hosts.session_client import OnProgress, again
from swarmesh.hosts.software import Software
from swarmesh.hosts.ssh_errors import QUOTED_CHARS_MAX, HostOutdatedError, HostSetupError, HostUnreachableError
from swarmesh.hosts.ssh_forwards import drop_socket, worker_socket
from swarmesh.hosts.ssh_link import SshLink, place_there
from swarmesh.hosts.ssh_shell import SshShell
from swarmesh.hosts.ssh_target import SshTarget
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.hosts import HostStatus, Step
from swarmesh.wire.session import Opening, Purpose
from swarmesh.wire.spec import WorkerSpec

STOP_EXTRA_S: Final = 30.0
"""What a stop may take beyond its grace, there and on the way."""
UPGRADE_LOOK_S: Final = 1.0
UPGRADE_LOOKS_MAX: Final = 120
"""A host that is never idle is connected anew all the same after so many looks; its streams go on elsewhere."""
NOT_INSTALLED: Final = "host_not_installed"
"""What the host says when it has no version of Swarmesh."""
log = structlog.get_logger("hosts")
T = TypeVar("T")


class Watcher(Protocol):
    """Who wants to know whether a host can be reached. Neither call may block or raise."""

    def host_up(self, host: SshHost) -> None:
        """The connection stands; ways to workers that were reached before are open again."""

    def host_down(self, host: SshHost, error: SwarmeshError) -> None:
        """A connection that stood is lost, or the first try failed. Tries go on."""

    def host_busy(self, host: SshHost) -> bool:
        """Whether a moment without the connection would break somebody's stream."""


class SshHost:
    """See `swarmesh.hosts.host.Host`. While it is not connected, every call fails at once with `HostUnreachableError`.

    Args:
        hive: Which hive's home there is meant, see `swarmesh.config.worker_key.hive_id`.
        secret: What the keys of this host's workers are derived from.
        software: What has to be installed there; installed when the host says that it is not.
        queen_address: Where the queen listens on this machine.
    """

    def __init__(
        self,
        shell: SshShell,
        home: Home,
        *,
        hive: str,
        secret: bytes,
        software: Callable[[], Awaitable[Software]],
        queen_address: Callable[[], str],
        watcher: Watcher,
    ) -> None:
        self._shell = shell
        self._home = home
        self._opening = Opening(purpose=Purpose.SESSION, hive=hive, host=shell.target.name, secret=secret.hex())
        self._software = software
        self._queen_address = queen_address
        self._watcher = watcher
        self._link: SshLink | None = None
        self._error: SwarmeshError | None = None
        self._status = HostStatus.CONNECTING
        self._since_s = time.monotonic()
        self._news = asyncio.Event()
        self._places: dict[str, str] = {}
        self._keeping: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """See `Host`."""
        return self.target.name

    @property
    def target(self) -> SshTarget:
        """Which machine it is."""
        return self._shell.target

    @property
    def status(self) -> HostStatus:
        """How the queen and this host stand."""
        return self._status

    @property
    def error(self) -> SwarmeshError | None:
        """Why the connection was lost or the last try failed; None while it stands or nothing was tried."""
        return self._error

    @property
    def since_s(self) -> float:
        """How long it has had this status."""
        return time.monotonic() - self._since_s

    # connection

    def open(self) -> None:
        """Keep a connection from now on."""
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())

    async def connected(self, within_s: float) -> None:
        """Wait until the connection stands.

        Raises:
            SwarmeshError: Why it does not: at once when time will not mend it, else after ``within_s``.
        """
        try:
            async with asyncio.timeout(within_s):
                while self._link is None:
                    if self._error is not None and not _passing(self._error):
                        raise again(self._error)
                    await self._news.wait()
        except TimeoutError:
            raise self._down() from None

    async def close(self) -> None:
        """Let the connection go, with every socket here that led through it. Workers go on."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])
        self._change(HostStatus.UNREACHABLE, HostUnreachableError(f"the connection to {self.name} was closed"))
        for worker_id in list(self._places):
            await self.let_go(worker_id)

    async def call(
        self,
        name: str,
        args: Mapping[str, Any],
        type: type[T],  # noqa: A002 - msgspec's own name for it
        on_progress: OnProgress | None = None,
    ) -> T:
        """Call the session, see `swarmesh.hosts.session_client.SessionClient.call`.

        Raises:
            HostUnreachableError: There is no connection, or it was lost meanwhile.
            SwarmeshError: What was asked could not be done.
        """
        return await self._stands().session.call(name, args, type, on_progress)

    async def open_transfer(self, opening: Opening) -> RemoteProcess:
        """A connection of its own for the bytes of a file, so that tokens do not wait behind them; close it.

        Raises:
            HostUnreachableError: The host is not connected.
        """
        self._stands()
        software = await self._software()
        process = await self._shell.start({"action": "run", "digest": software.digest, "or_other": True})
        opening = msgspec.structs.replace(opening, hive=self._opening.hive, host=self.name)
        with contextlib.suppress(ConnectionError):  # It has ended; why, whoever reads finds out.
            await process.send(msgspec.json.encode(opening) + b"\n")
        return process

    # see Host

    async def probe(self) -> HostFacts:
        """See `Host`."""
        facts = await self.call("probe", {}, HostFacts)
        for path in msgspec.structs.astuple(facts.layout):
            if not path.startswith("/"):
                raise HostSetupError(f"{self.name} names {plain(path, QUOTED_CHARS_MAX)!r} as a place of its home")
        return facts

    async def spawn(self, spec: WorkerSpec) -> SpawnedAgent:
        """See `Host`."""
        return await self.call("spawn", {"spec": spec}, SpawnedAgent)

    async def stop(self, worker_id: str, grace_s: float) -> None:
        """See `Host`."""
        args = {"worker_id": worker_id, "grace_s": grace_s}
        await self._stands().session.call("stop", args, object, limit_s=grace_s + STOP_EXTRA_S)

    async def wait_exit(self, worker_id: str) -> None:
        """See `Host`. A connection that breaks says nothing about the agent: it is asked for again when it is back."""
        while True:
            while self._link is None:
                if self._keeping is None:
                    raise self._down()
                await self._news.wait()
            news = self._news
            with contextlib.suppress(HostUnreachableError):
                await self.call("wait_exit", {"worker_id": worker_id}, object)
                return
            # A session that is over fails at once; who asked it again and again would keep it from being noticed.
            await news.wait()

    async def workers(self) -> list[AgentFile]:
        """See `Host`."""
        return await self.call("workers", {}, list[AgentFile])

    async def tail(self, worker_id: str, lines_max: int = 20) -> str:
        """See `Host`."""
        return plain_lines(await self.call("tail", {"worker_id": worker_id, "lines_max": lines_max}, str))

    async def reach(self, worker_id: str, location: str) -> str:
        """See `Host`: a socket here, which leads there again after the connection was lost and came back."""
        link, place = self._stands(), place_there(location)
        local = self._socket(worker_id)
        if self._places.get(worker_id, place) != place:
            await self.let_go(worker_id)
        if worker_id not in self._places:
            await self._lead(link, worker_id, place)
        return f"unix:{local}"

    async def let_go(self, worker_id: str) -> None:
        """See `Host`."""
        place = self._places.pop(worker_id, None)
        if place is None:
            return
        local = self._socket(worker_id)
        if self._link is not None:
            await self._link.forwards.cancel(local, place)
        drop_socket(local)

    # inside

    async def _lead(self, link: SshLink, worker_id: str, place: str) -> None:
        local = self._socket(worker_id)
        try:
            await link.forwards.add(local, place)
            self._check_stands(link)
        except BaseException:
            if worker_id not in self._places:  # Else somebody else has made it meanwhile, and uses it.
                await link.forwards.cancel(local, place)
            raise
        self._places[worker_id] = place

    async def _keep(self) -> None:
        backoff = Backoff()
        wrong: SwarmeshError | None = None
        while self._keeping is not None:  # An error while it is closed takes the place of the cancellation.
            try:
                if wrong is not None:
                    told, wrong = wrong, None
                    self._fail(told)
                await asyncio.sleep(backoff.wait_s(passing=self._error is None or _passing(self._error)))
                await self._connect_and_follow(backoff)
            except Exception as error:  # What a host makes go wrong must not end the tries to reach it.
                log.exception("host_failed", host=self.name)
                wrong = InternalError(f"the connection to {self.name} failed: {type(error).__name__}")

    async def _connect_and_follow(self, backoff: Backoff) -> None:
        try:
            link = await self._connect()
        except SwarmeshError as error:
            self._fail(error)
        except OSError as error:
            self._fail(HostSetupError(f"{self.name} cannot be connected to from here: {error}"))
        else:
            backoff.lost(await self._follow(link))

    async def _follow(self, link: SshLink) -> float:
        """Until it breaks; how long it held."""
        began_s = time.monotonic()
        upgrading = asyncio.create_task(self._upgrade(link))
        try:
            self._change(HostStatus.CONNECTED, None, link)
            self._watcher.host_up(self)
            lost = await link.run()
            self._change(HostStatus.CONNECTING, lost)
            self._watcher.host_down(self, lost)
        finally:
            upgrading.cancel()
            try:
                await asyncio.wait([upgrading])
            finally:
                await link.close()
        return time.monotonic() - began_s

    async def _upgrade(self, link: SshLink) -> None:
        """Install this queen's version beside the one that answered, then connect anew: no worker was kept waiting."""
        try:
            software = await self._software()
            if link.session.hello.software == software.digest:
                return
            await self._install(software)
        except (SwarmeshError, OSError) as error:
            log.warning("not_upgraded", host=self.name, error=str(error))
            return
        for _ in range(UPGRADE_LOOKS_MAX):
            if not self._watcher.host_busy(self):
                break
            await asyncio.sleep(UPGRADE_LOOK_S)
        log.info("upgraded", host=self.name, software=software.digest)
        link.end()

    def _fail(self, error: SwarmeshError) -> None:
        """Say that nothing stands. A watcher that raises has been told all the same."""
        first = self._error is None
        self._change(HostStatus.UNREACHABLE, error)
        if first:
            self._watcher.host_down(self, error)

    async def _connect(self) -> SshLink:
        software = await self._software()
        try:
            return await self._open_link(software, or_other=True)
        except HostOutdatedError as error:
            log.info("host_outdated", host=self.name, error=error.message)
        except RemoteError as error:
            if error.code != NOT_INSTALLED:
                raise
        await self._install(software)
        return await self._open_link(software)

    async def _install(self, software: Software) -> None:
        await install(self._shell, software, self._home.root / "wheels", _unseen, hive=self._opening.hive)

    async def _open_link(self, software: Software, *, or_other: bool = False) -> SshLink:
        return await SshLink.open(
            self._shell,
            self._home,
            digest=software.digest,
            opening=self._opening,
            queen_address=self._queen_address(),
            sockets={self._socket(worker_id): place for worker_id, place in self._places.items()},
            or_other=or_other,
        )

    def _change(self, status: HostStatus, error: SwarmeshError | None, link: SshLink | None = None) -> None:
        if status is not self._status:
            self._since_s = time.monotonic()
        self._status, self._error, self._link = status, error, link
        self._news.set()
        self._news = asyncio.Event()

    def _stands(self) -> SshLink:
        if self._link is None:
            raise self._down()
        return self._link

    def _check_stands(self, link: SshLink) -> None:
        if link is not self._link:
            raise self._down()

    def _down(self) -> SwarmeshError:
        if self._error is None:
            return HostUnreachableError(f"{self.name} is not connected yet")
        if isinstance(self._error, HostUnreachableError):
            return again(self._error)
        return HostUnreachableError(f"{self.name} is not ready: {self._error.message}", hint=self._error.hint)

    def _socket(self, worker_id: str) -> Path:
        return worker_socket(self._home, self.name, worker_id)


def _passing(error: SwarmeshError) -> bool:
    return isinstance(error, HostUnreachableError) and error.passing


def _unseen(_step: Step) -> None:
    pass
