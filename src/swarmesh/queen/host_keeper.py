"""Adding a machine, emptying it, letting it go: each step shown, and nothing left behind when one fails."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec
import structlog

from swarmesh.config.home import Home
from swarmesh.core.errors import ConflictError, InvalidValueError, SwarmeshError
from swarmesh.core.events import HostDrainRequested
from swarmesh.core.ids import LOCAL_HOST, HostName
from swarmesh.hosts.host_key import forget_host_key, learn_host_key
from swarmesh.hosts.install import MachineFacts, install, look, uninstall
from swarmesh.hosts.machine_checks import check_machine
from swarmesh.hosts.ssh_errors import HostUnreachableError
from swarmesh.hosts.ssh_target import SshTarget, checked_target
from swarmesh.queen.api.steps import OnStep
from swarmesh.queen.driver import Driver
from swarmesh.queen.hosts import RESERVED_NAMES, Hosts, Member
from swarmesh.queen.workers import Workers
from swarmesh.store.records import HostRecord
from swarmesh.store.store import Store
from swarmesh.wire.hosts import PROXIMITY_DEFAULT, CheckView, HostAddRequest, HostStatus, HostView, Step, StepState

CONNECT_WAIT_S: Final = 30.0
REACH_WAIT_S: Final = 10.0
"""A host that is just being connected to is waited for before it counts as out of reach."""
UNDO_LIMIT_S: Final = 30.0
"""What is taken away after a failure has to be away by then; a queen that ends does not wait longer."""
STOP_SLACK_S: Final = 15.0
"""How much longer than its grace a worker may take to end."""
GONE_LOOK_S: Final = 0.1

log = structlog.get_logger("hosts")


class HostLeftoverError(SwarmeshError):
    """Something on the host could not be stopped or taken away."""

    code = "leftover"
    status = 502


class HostKeeper:
    """See `swarmesh.queen.api.hosts.HostKeeper`."""

    def __init__(self, home: Home, driver: Driver, store: Store, hosts: Hosts, workers: Workers) -> None:
        self._home = home
        self._driver = driver
        self._store = store
        self._hosts = hosts
        self._workers = workers
        self._busy: set[str] = set()

    async def views(self) -> list[HostView]:
        """All hosts, the queen's own first."""
        return await self._hosts.views()

    async def view(self, name: str) -> HostView:
        """One host.

        Raises:
            HostUnknownError: None is called that.
        """
        return await self._hosts.view(name)

    async def add(self, request: HostAddRequest, on_step: OnStep) -> HostView:
        """Learn its key, look, install, connect; of a host that is there: check, repair, upgrade.

        Raises:
            InvalidValueError: A name that is none.
            SwarmeshError: Whatever stopped it; nothing is left behind.
        """
        target = checked_target(request)
        if target.name in RESERVED_NAMES:
            raise InvalidValueError(
                f"no host can be called {target.name!r}",
                hint="The queennode's own machine belongs to the swarm already; another one needs another --name.",
                param="name",
            )
        known = target.name in self._hosts.others()
        if known:
            target = _as_before(target, self._hosts.member(target.name).record)
        with _Claim(self._busy, target.name):
            return await self._add(target, request, on_step, known=known)

    async def remove(
        self, name: str, on_step: OnStep, *, keep_models: bool, grace_s: float, forget: bool = False
    ) -> None:
        """Stop its workers, take away what was installed, forget it; ``forget`` only lets go of one out of reach.

        Raises:
            HostUnknownError: None is called that.
            HostLeftoverError: It is out of reach, or a worker there does not end.
        """
        member = self._hosts.member(name)
        with _Claim(self._busy, name):
            if await self._is_in_reach(member, forget=forget):
                record = member.record
                member.record = msgspec.structs.replace(record, draining=True)  # Nothing is started there meanwhile.
                try:
                    await self._clear(member, on_step, keep_models=keep_models, grace_s=grace_s)
                except BaseException:
                    member.record = record
                    member.host.open()
                    await self._store.put_host(record)
                    raise
            else:
                _tell(on_step, "uninstall", StepState.DONE, f"{name} is out of reach: what is there stays there")
            await self._forget(name)

    async def drain(self, name: str, grace_s: float) -> HostView:
        """Start nothing new there and let its workers end; returns before they have.

        Raises:
            HostUnknownError: None is called that.
        """
        await self._mark(name, draining=True)
        self._driver.post(HostDrainRequested(HostName(name), int(grace_s * 1000)))
        self._workers.stop_strangers(name)
        return await self._hosts.view(name)

    async def resume(self, name: str) -> HostView:
        """It takes workers again.

        Raises:
            HostUnknownError: None is called that.
        """
        await self._mark(name, draining=False)
        return await self._hosts.view(name)

    async def checks(self, name: str) -> list[CheckView]:
        """What stops, or could stop, that machine from working.

        Raises:
            HostUnknownError: None is called that.
            SwarmeshError: It cannot be reached.
        """
        if name == LOCAL_HOST:
            return await asyncio.to_thread(check_machine, self._home)
        return await self._hosts.member(name).host.call("checks", {}, list[CheckView])

    # inside

    async def _is_in_reach(self, member: Member, *, forget: bool) -> bool:
        if member.host.status is not HostStatus.CONNECTED:
            try:
                await member.host.connected(0.0 if forget else REACH_WAIT_S)
            except SwarmeshError as error:
                if forget:
                    return False
                raise HostLeftoverError(
                    f"{member.host.name} cannot be cleaned up: {error.message}",
                    hint="--forget lets go of it all the same; what is there stays in ~/.swarmesh of that machine.",
                ) from error
        return True

    async def _clear(self, member: Member, on_step: OnStep, *, keep_models: bool, grace_s: float) -> None:
        name = member.host.name
        await self._stop_workers(name, on_step, grace_s)
        await member.host.close()
        # Forgotten first: a queen that dies now must not find the host bare and install everything anew.
        await self._store.delete_host(HostName(name))
        _tell(on_step, "uninstall", StepState.RUNNING, f"taking away what was installed on {name}")
        await uninstall(self._hosts.shell(member.host.target), self._hosts.hive, keep_models=keep_models)
        _tell(on_step, "uninstall", StepState.DONE, f"nothing of this hive is left on {name}")

    async def _add(self, target: SshTarget, request: HostAddRequest, on_step: OnStep, *, known: bool) -> HostView:
        name = target.name
        _tell(on_step, "key", StepState.RUNNING, f"asking {target.address} for its host key")
        key = await learn_host_key(target, self._home, expected=request.fingerprint)
        whence = "it is the one you gave" if request.fingerprint else "compare it with the host's own, if you can"
        if known or key.known_to_user:
            whence = "the same as before" if known else "your own ssh knows it"
        _tell(on_step, "key", StepState.DONE, f"host key {key.fingerprint} ({key.key_type}); {whence}")
        fresh = False
        try:
            shell = self._hosts.shell(target)
            software = await self._hosts.software()
            fresh = self._is_fresh(await look(shell, software.digest, hive=self._hosts.hive), target)
            facts = await install(shell, software, self._home.root / "wheels", on_step, hive=self._hosts.hive)
            log.info("host_installed", host=name, python=facts.python, machine=facts.machine)
            return await self._connect(target, request, key.fingerprint, on_step)
        except BaseException:
            if not known:
                await asyncio.shield(self._undo(target, uninstalls=fresh))
            raise

    def _is_fresh(self, facts: MachineFacts, target: SshTarget) -> bool:
        """Whether this hive never used the machine: what is there of another time is not ours to take away."""
        if facts.known_as != target.name and facts.known_as in self._hosts.others():
            raise ConflictError(
                f"{target.address} is host {facts.known_as!r} already", hint="One machine, one name.", param="name"
            )
        return not facts.known_as

    async def _connect(self, target: SshTarget, request: HostAddRequest, fingerprint: str, on_step: OnStep) -> HostView:
        name = target.name
        known = self._hosts.member(name) if name in self._hosts.others() else None
        record = _record(target, request, fingerprint, known.record if known is not None else None)
        if known is not None and known.host.target == target and known.adopted.is_set():
            known.record = record
            _tell(on_step, "connect", StepState.DONE, f"{name} is connected already")
        else:
            _tell(on_step, "connect", StepState.RUNNING, f"connecting to {name}")
            await self._connect_anew(record, known)
            _tell(on_step, "connect", StepState.DONE, f"{name} is connected")
        await self._store.put_host(record)
        return await self._hosts.view(name)

    async def _connect_anew(self, record: HostRecord, known: Member | None) -> None:
        await self._hosts.dismiss(record.name)
        member = self._hosts.admit(record)
        member.host.open()
        try:
            await self._wait_known(member)
        except BaseException:
            if known is not None:  # What worked before is tried again.
                await self._hosts.dismiss(record.name)
                self._hosts.admit(known.record).host.open()
            raise

    async def _wait_known(self, member: Member) -> None:
        await member.host.connected(CONNECT_WAIT_S)
        await self._hosts.wait_adopted({member.host.name}, CONNECT_WAIT_S)
        if not member.adopted.is_set():
            raise HostUnreachableError(f"{member.host.name} does not say which rustbees it has")

    async def _undo(self, target: SshTarget, *, uninstalls: bool) -> None:
        await self._hosts.dismiss(target.name)
        try:
            if uninstalls:
                async with asyncio.timeout(UNDO_LIMIT_S):
                    # Models are kept: some may be from an earlier time, and a fresh host has none.
                    await uninstall(self._hosts.shell(target), self._hosts.hive, keep_models=True)
        except (SwarmeshError, TimeoutError) as error:
            log.warning("not_undone", host=target.name, error=str(error))
        forget_host_key(target.name, self._home)

    async def _stop_workers(self, name: str, on_step: OnStep, grace_s: float) -> None:
        workers = self._workers.on_host(name)
        if not workers:
            return
        _tell(on_step, "stop", StepState.RUNNING, f"stopping {len(workers)} rustbees on {name}")
        for worker_id in workers:
            self._workers.stop(worker_id, grace_s=grace_s)
        deadline_s = time.monotonic() + grace_s + STOP_SLACK_S
        while left := self._workers.on_host(name):
            if time.monotonic() > deadline_s:
                raise HostLeftoverError(
                    f"still running on {name}: {', '.join(left)}", hint="Try again, or look at them on that machine."
                )
            await asyncio.sleep(GONE_LOOK_S)
        _tell(on_step, "stop", StepState.DONE, f"{len(workers)} rustbees on {name} have ended")

    async def _forget(self, name: str) -> None:
        for worker_id in self._workers.on_host(name):
            self._workers.goodbye(worker_id, f"{name} was removed")
        await self._hosts.dismiss(name)
        await self._store.delete_host(HostName(name))
        forget_host_key(name, self._home)

    async def _mark(self, name: str, *, draining: bool) -> None:
        member: Member = self._hosts.member(name)
        member.record = msgspec.structs.replace(member.record, draining=draining)
        await self._store.put_host(member.record)


class _Claim:
    """One change of a host at a time."""

    def __init__(self, busy: set[str], name: str) -> None:
        self._busy = busy
        self._name = name

    def __enter__(self) -> None:
        if self._name in self._busy:
            raise ConflictError(f"{self._name} is being added or removed right now", hint="Try again when it is done.")
        self._busy.add(self._name)

    def __exit__(self, *_: object) -> None:
        self._busy.discard(self._name)


def _tell(on_step: OnStep, step: str, state: StepState, text: str) -> None:
    on_step(Step(step=step, state=state, text=text))


def _as_before(target: SshTarget, record: HostRecord) -> SshTarget:
    """The host that is meant when it is added again: what was not said this time is as it was."""
    if record.address != target.address or target.port not in {0, record.port}:
        where = f"{record.address}:{record.port}" if record.port else record.address
        raise ConflictError(
            f"{target.name} is the name of another host ({where})",
            hint="Choose another --name, or remove that host first.",
            param="name",
        )
    return msgspec.structs.replace(
        target, user=target.user or record.user, port=record.port, identity=target.identity or record.identity
    )


def _record(target: SshTarget, request: HostAddRequest, fingerprint: str, known: HostRecord | None) -> HostRecord:
    proximity = request.proximity
    if proximity is None:
        proximity = known.proximity if known is not None else PROXIMITY_DEFAULT
    return HostRecord(
        name=HostName(target.name),
        address=target.address,
        user=target.user,
        port=target.port,
        identity=target.identity,
        proximity=proximity,
        fingerprint=fingerprint,
        added_at_ms=known.added_at_ms if known is not None else time.time_ns() // 1_000_000,
        draining=known.draining if known is not None else False,
    )
