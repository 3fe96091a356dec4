"""Every machine of the swarm: this one, and those reached by SSH; who they are, how they are, and the ways to them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import structlog

from swarmesh.config.home import Home
from swarmesh.config.worker_key import hive_id, worker_secret
from swarmesh.core.errors import ConflictError, NotFoundError, SwarmeshError
from swarmesh.core.events import GpuMemory, HostProbed
from swarmesh.core.ids import LOCAL_HOST, HostName
from swarmesh.core.memory_pool import PoolFree
from swarmesh.hosts.host import Host, HostFacts
from swarmesh.hosts.local import LocalHost
from swarmesh.hosts.session_client import again
from swarmesh.hosts.software import Software, pack_software
from swarmesh.hosts.ssh_host import SshHost
from swarmesh.hosts.ssh_shell import SshShell
from swarmesh.hosts.ssh_target import SshTarget
from swarmesh.models.local_shelf import LocalShelf
from swarmesh.models.shelf import Shelf
from swarmesh.queen.driver import Driver
from swarmesh.queen.host_views import local_view, remote_view
from swarmesh.queen.keys import KeyRing
from swarmesh.queen.remote_shelf import RemoteShelf
from swarmesh.store.records import HostRecord
from swarmesh.store.store import Store
from swarmesh.wire.hosts import HostStatus, HostView
from swarmesh.wire.spec import Backend

RESERVED_NAMES: Final = frozenset({LOCAL_HOST, "any", "all", "local"})
ADOPTION_RETRY_S: Final = 1.0
PROBE_WAIT_S: Final = 1.5
"""What a machine gets to answer somebody who only looks: a cut cable is noticed later than that."""
LOCAL_PROXIMITY: Final = 1.0
"""Nothing is nearer than the queen's own machine."""

log = structlog.get_logger("hosts")


class HostUnknownError(NotFoundError):
    """No host is called that."""

    code = "host_unknown"
    default_hint = "'swarmesh hosts list' shows them; 'swarmesh hosts add ADDRESS' adds one."


class HostDrainingError(ConflictError):
    """Nothing new is started on this host."""

    code = "host_draining"
    default_hint = "'swarmesh hosts drain NAME --resume' takes it back into service."


class Follower(Protocol):
    """Who follows hosts coming and going."""

    async def adopt(self, host_name: str) -> None:
        """The host can be reached: take over what lives there."""

    def lose(self, host_name: str, message: str) -> None:
        """It cannot be reached any more."""


class Member:
    """One machine reached by SSH.

    Attributes:
        facts: As last measured; None before it was ever reached.
        adopted: Set while it can be reached and its workers are known.
    """

    def __init__(self, record: HostRecord, host: SshHost, *, hive: str) -> None:
        self.record = record
        self.host = host
        self.shelf = RemoteShelf(host, hive=hive)
        self.facts: HostFacts | None = None
        self.adopted = asyncio.Event()


class Hosts:
    """The machines by name. Nothing here decides; the core does, from what is told to her from here."""

    def __init__(
        self, home: Home, driver: Driver, store: Store, keys: KeyRing, queen_address: Callable[[], str]
    ) -> None:
        self._home = home
        self._driver = driver
        self._store = store
        self._keys = keys
        self._queen_address = queen_address
        self._secret = worker_secret(home)
        self._local = LocalHost(home, LOCAL_HOST)
        self._local_shelf = LocalShelf(home)
        self._local_facts: HostFacts | None = None
        self._members: dict[str, Member] = {}
        self._shells: dict[str, SshShell] = {}
        self._software: asyncio.Task[Software] | None = None
        self._began_s = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self.follower: Follower | None = None

    @property
    def hive(self) -> str:
        """Which hive this is, as its hosts know it."""
        return hive_id(self._secret)

    # life

    async def open(self) -> None:
        """Begin to reach every host that was added; returns at once."""
        for record in await self._store.hosts():
            member = self.admit(record)
            member.host.open()

    async def close(self) -> None:
        """Let every connection go; workers go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(member.host.close() for member in self._members.values()), return_exceptions=True)

    async def wait_adopted(self, names: set[str], within_s: float) -> None:
        """Wait until the workers of these hosts are known, but no longer."""
        waits = [member.adopted.wait() for name, member in self._members.items() if name in names]
        if waits:
            tasks = [asyncio.ensure_future(wait) for wait in waits]
            _, pending = await asyncio.wait(tasks, timeout=within_s)
            for task in pending:
                task.cancel()

    def admit(self, record: HostRecord) -> Member:
        """Make a host known; its connection is for the caller to open."""
        target = SshTarget(
            name=record.name, address=record.address, user=record.user, port=record.port, identity=record.identity
        )
        host = SshHost(
            self.shell(target),
            self._home,
            hive=self.hive,
            secret=self._keys.add_host(record.name, record.added_at_ms),
            software=self.software,
            queen_address=self._queen_address,
            watcher=self,
        )
        member = self._members[record.name] = Member(record, host, hive=self.hive)
        return member

    def shell(self, target: SshTarget) -> SshShell:
        """The way to a machine's shell: one for each, as it counts the connections there."""
        known = self._shells.get(target.name)
        if known is None or known.target != target:
            known = self._shells[target.name] = SshShell(target, self._home)
        return known

    async def dismiss(self, name: str) -> None:
        """Let a host's connection go and know it no more."""
        member = self._members.pop(name, None)
        self._keys.remove_host(name)
        if member is not None:
            await member.host.close()

    async def software(self) -> Software:
        """What is installed on hosts; packed once, when it is first wanted."""
        if self._software is None or (self._software.done() and self._software.exception() is not None):
            packing = asyncio.to_thread(pack_software, self._home.root / "software")
            self._software = asyncio.create_task(packing)
        return await asyncio.shield(self._software)

    # who is there

    def names(self) -> list[str]:
        """All of them, the queen's own machine first."""
        return [LOCAL_HOST, *self._members]

    def others(self) -> list[str]:
        """Those reached by SSH."""
        return list(self._members)

    def reachable(self) -> list[str]:
        """Those that can be reached now."""
        return [LOCAL_HOST, *(name for name, member in self._members.items() if _is_up(member))]

    def taking_workers(self) -> list[str]:
        """Those that can be given a worker now."""
        return [name for name in self.reachable() if name == LOCAL_HOST or not self._members[name].record.draining]

    def member(self, name: str) -> Member:
        """A machine reached by SSH.

        Raises:
            HostUnknownError: None is called that.
        """
        member = self._members.get(name)
        if name == LOCAL_HOST:
            raise ConflictError(
                f"{name} is the queennode's own machine: it is neither drained nor removed",
                hint="'swarmesh rustbees stop ID' stops its rustbees.",
            )
        if member is None:
            raise HostUnknownError(f"no host is called {name!r}", param="host")
        return member

    def get(self, name: str) -> Host:
        """A machine.

        Raises:
            HostUnknownError: None is called that.
        """
        return self._local if name == LOCAL_HOST else self.member(name).host

    def shelf(self, name: str) -> Shelf:
        """Its model files.

        Raises:
            HostUnknownError: No host is called that.
        """
        return self._local_shelf if name == LOCAL_HOST else self.member(name).shelf

    def proximity(self, name: str) -> float:
        """0.0 far to 1.0 near."""
        return LOCAL_PROXIMITY if name == LOCAL_HOST else self.member(name).record.proximity

    def must_take_workers(self, name: str) -> None:
        """Let a spawn there go on.

        Raises:
            HostUnknownError: There is no such host.
            HostDrainingError: It is being emptied.
            SwarmeshError: It cannot be reached; says why.
        """
        if name == LOCAL_HOST:
            return
        member = self.member(name)
        if member.record.draining:
            raise HostDrainingError(f"{name} is draining: nothing new is started there")
        if member.host.error is not None:
            raise again(member.host.error)

    # what they are

    async def probe(self, name: str) -> HostFacts:
        """Measure a machine now, and let the core know.

        Raises:
            SwarmeshError: It cannot be reached.
        """
        facts = await self.get(name).probe()
        # Apple's GPUs have no memory of their own.
        own = (gpu for gpu in facts.gpus if gpu.backend is not Backend.METAL)
        gpus = tuple(GpuMemory(gpu.index, gpu.total_mib, gpu.free_mib) for gpu in own)
        self._driver.post(HostProbed(HostName(name), facts.total_mib, facts.available_mib, gpus))
        if name == LOCAL_HOST:
            self._local_facts = facts
        else:
            self.member(name).facts = facts
        return facts

    async def refresh(self) -> None:
        """Measure every machine that can be reached; of one that does not answer soon the last figures stand."""
        outcomes = await asyncio.gather(*map(self._probe_soon, self.reachable()), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, SwarmeshError | TimeoutError):
                raise outcome

    async def _probe_soon(self, name: str) -> None:
        async with asyncio.timeout(PROBE_WAIT_S):
            await self.probe(name)

    def free(self, name: str) -> tuple[PoolFree, ...]:
        """What may still be promised there, as last measured."""
        return self._driver.swarm.memory.free(HostName(name))

    async def views(self) -> list[HostView]:
        """All, measured now."""
        await self.refresh()
        return [self._view(name) for name in self.names()]

    async def view(self, name: str) -> HostView:
        """One, measured now if it can be reached.

        Raises:
            HostUnknownError: None is called that.
        """
        if name == LOCAL_HOST or _is_up(self.member(name)):
            with contextlib.suppress(SwarmeshError, TimeoutError):  # Then it is shown as it was.
                await self._probe_soon(name)
        return self._view(name)

    async def let_go(self, worker_id: str) -> None:
        """Give up the way to a worker that is gone, wherever it was."""
        await asyncio.gather(*(member.host.let_go(worker_id) for member in self._members.values()))

    # see swarmesh.hosts.ssh_host.Watcher

    def host_up(self, host: SshHost) -> None:
        """Take over what lives there."""
        self._do(self._come_up(host.name))

    def host_down(self, host: SshHost, error: SwarmeshError) -> None:
        """Give nothing more to what lives there."""
        log.warning("host_down", host=host.name, code=error.code, error=error.message)
        member = self._members.get(host.name)
        if member is None or member.host is not host or self.follower is None:
            return
        member.adopted.clear()
        self.follower.lose(host.name, error.message)

    def host_busy(self, host: SshHost) -> bool:
        """Whether a task runs there."""
        return any(worker.running for worker in self._driver.swarm.fleet if worker.host == host.name)

    # inside

    async def _come_up(self, name: str) -> None:
        log.info("host_up", host=name)
        while (member := self._members.get(name)) is not None and _is_up(member):
            try:
                await self.probe(name)
                if self.follower is not None:
                    await self.follower.adopt(name)
            except SwarmeshError as error:
                log.warning("not_adopted", host=name, code=error.code, error=error.message)
                await asyncio.sleep(ADOPTION_RETRY_S)
            else:
                if _is_up(member):
                    member.adopted.set()
                return

    def _view(self, name: str) -> HostView:
        free_mib = next((pool.free_mib for pool in self.free(name) if pool.label == "ram"), 0)
        bees = tuple(worker.worker_id for worker in self._driver.swarm.fleet if worker.host == name)
        if name == LOCAL_HOST:
            return local_view(self._local_facts, free_mib=free_mib, bees=bees, since_s=time.monotonic() - self._began_s)
        member = self.member(name)
        return remote_view(member.record, member.host, member.facts, free_mib=free_mib, bees=bees)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_up(member: Member) -> bool:
    return member.host.status is HostStatus.CONNECTED
