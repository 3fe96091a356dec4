"""Everything about workers that is not a decision: registrations, waggles, processes, and what people see of them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
import structlog

from swarmesh.core.commands import ForgetWorker, RaiseAlarm, StopWorker
from swarmesh.core.errors import ConflictError, NotFoundError, SwarmeshError
from swarmesh.core.events import HostLost, SpawnFailed, WorkerAlarmed, WorkerGone, WorkerStopRequested
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import HostName, WorkerId
from swarmesh.core.last_words import with_last_words
from swarmesh.core.liveness import WorkerStatus
from swarmesh.hosts.agent_file import AgentFile
from swarmesh.hosts.host import Host
from swarmesh.queen.adoption import ask_who
from swarmesh.queen.control_links import ControlLinks
from swarmesh.queen.cut_offs import CutOffs
from swarmesh.queen.driver import Driver
from swarmesh.queen.hosts import Hosts
from swarmesh.queen.keys import KeyRing
from swarmesh.queen.links import Dialect, WorkerLink
from swarmesh.queen.report_order import ReportOrder
from swarmesh.queen.starts import Starts
from swarmesh.queen.strangers import Strangers, stranger_view
from swarmesh.queen.worker_events import registered, waggled
from swarmesh.queen.worker_homes import WORKERS_PER_HOST_MAX, WorkerHomes
from swarmesh.queen.worker_views import rustbee_view, waggle_view, worker_record
from swarmesh.store.records import AlarmRecord
from swarmesh.store.store import Store
from swarmesh.wire.errors import ErrorBody
from swarmesh.wire.views import RustbeeView, SpawnRequest, WaggleView
from swarmesh.wire.waggle import Alarm, Registration, Waggle, WaggleAnswer

DEPARTED_MAX: Final = 100
"""Dead workers that can still be asked about."""
STOP_GRACE_S: Final = 5.0
"""What an agent gets to end its engine by itself."""
LAST_LINES_SHOWN: Final = 6
"""Of what a worker said before it ended."""

log = structlog.get_logger("workers")


class Workers:
    """The queen's dealings with workers, wherever they are; the core decides, this acts."""

    def __init__(
        self,
        driver: Driver,
        store: Store,
        hosts: Hosts,
        starts: Starts,
        control: ControlLinks,
        keys: KeyRing,
        *,
        epoch: int = 0,
    ) -> None:
        self._driver = driver
        self._store = store
        self._hosts = hosts
        self._starts = starts
        self._control = control
        self._keys = keys
        self._epoch = epoch
        self._cut_offs = CutOffs(driver.links)
        self._order = ReportOrder()
        self._strangers = Strangers()
        self.homes = WorkerHomes(driver.swarm.fleet)
        self._last_alarm: dict[WorkerId, ErrorBody] = {}
        self._departed: OrderedDict[WorkerId, RustbeeView] = OrderedDict()
        self._waggles: dict[WorkerId, Waggle] = {}
        self._watched: set[WorkerId] = set()
        self._stopping: set[WorkerId] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # what the API asks for

    async def spawn(self, request: SpawnRequest) -> WorkerId:
        """Start a worker; returns when it was decided, not when it is ready.

        Raises:
            SwarmeshError: The modelcell, its file, the host or memory is missing.
        """
        return await self._starts.ask(request)

    def stop(self, worker_id: WorkerId, *, grace_s: float) -> None:
        """Drain a worker, then end it.

        Raises:
            NotFoundError: There is no such worker.
        """
        self._known(worker_id)
        stranger = self._strangers.get(worker_id)
        if stranger is not None and worker_id not in self._driver.swarm.fleet:
            self._do(self._strangers.end(worker_id, self._hosts.get(stranger.host)))
        self._driver.post(WorkerStopRequested(worker_id, int(grace_s * 1000)))

    async def register(self, registration: Registration, host_name: str) -> WaggleAnswer:
        """Take in a worker that introduces itself, and that its key says is on this host.

        Raises:
            CutOffError: A drill keeps it away.
            ForbiddenError: It is a worker of another host.
            ConflictError: It was stopped before it ran, or its host has too many.
            SwarmeshError: It cannot be reached from here.
        """
        worker_id = WorkerId(registration.rustbee_id)
        self._cut_offs.check(worker_id)
        host = self._hosts.get(host_name)
        self._must_be_wanted(worker_id, host)
        self.homes.settle(worker_id, host_name)
        if not self._order.is_news(registration) and worker_id in self._driver.swarm.fleet:
            return self._answer(worker_id)
        reached = await host.reach(worker_id, registration.location)
        if registration.epoch > self._epoch:
            # The hivecomb was lost, or is an old copy: agents have obeyed later queens than it knows of.
            self._epoch = max(self._epoch, await self._store.next_epoch(above=registration.epoch))
        key = self._keys.worker_key(host_name, worker_id)
        link = WorkerLink(worker_id, reached, dialect=Dialect.AGENT, key=key, epoch=self._epoch)
        self._driver.links.put(link)
        self._departed.pop(worker_id, None)
        self._strangers.forget(worker_id)
        spec = self._starts.spec(worker_id)
        proximity = self._hosts.proximity(host_name)
        self._driver.post(registered(registration, host_name, spec, proximity=proximity))
        self._control.watch(worker_id)
        self._watch(worker_id, host)
        self._write(self._store.put_worker(worker_record(registration, host_name, spec)))
        return self._answer(worker_id)

    def waggle(self, waggle: Waggle) -> WaggleAnswer:
        """Take in a report; a worker that is not known is asked to register.

        Raises:
            CutOffError: A drill keeps it away.
        """
        worker_id = WorkerId(waggle.rustbee_id)
        self._cut_offs.check(worker_id)
        worker = self._driver.swarm.fleet.get(worker_id)
        if worker is None or not worker.location:
            return WaggleAnswer(acknowledged=False, status="unknown", next_waggle=1.0)
        if not self._order.is_news(waggle):
            return self._answer(worker_id)
        self._waggles[worker_id] = waggle
        self._driver.post(waggled(waggle, worker))
        return self._answer(worker_id)

    def alarm(self, alarm: Alarm) -> None:
        """Take in an emergency.

        Raises:
            CutOffError: A drill keeps it away.
        """
        self._cut_offs.check(WorkerId(alarm.rustbee_id))
        self._driver.post(WorkerAlarmed(WorkerId(alarm.rustbee_id), alarm.code, alarm.message, alarm.returning))

    def goodbye(self, worker_id: WorkerId, reason: str) -> None:
        """A worker has ended, as its host or it itself says."""
        worker = self._driver.swarm.fleet.get(worker_id)
        if worker is not None:
            self._remember(worker, reason)
        self._driver.post(WorkerGone(worker_id, reason))

    def cut(self, worker_id: WorkerId, seconds: float) -> None:
        """For drills: drop everything to and from a worker for so long, as a lost network would.

        Raises:
            NotFoundError: There is no such worker.
        """
        self._known(worker_id)
        self._cut_offs.cut(worker_id, seconds)

    # what people see

    def views(self) -> list[RustbeeView]:
        """Every worker that is known, and those that live on a host and could not be taken over."""
        return [*(self._view(worker) for worker in self._driver.swarm.fleet), *self._strangers.views()]

    def view(self, worker_id: WorkerId) -> RustbeeView:
        """One worker, also one that died lately.

        Raises:
            NotFoundError: There is no such worker.
        """
        worker = self._driver.swarm.fleet.get(worker_id)
        return self._view(worker) if worker is not None else self._known(worker_id)

    def waggle_views(self) -> list[WaggleView]:
        """The last report of every worker."""
        return [waggle_view(worker, self._waggles.get(worker.worker_id)) for worker in self._driver.swarm.fleet]

    # Effects

    def stop_worker(self, command: StopWorker) -> None:
        """See `swarmesh.queen.driver.Effects`."""
        if command.worker_id in self._stopping:
            return
        self._stopping.add(command.worker_id)
        if command.direct:
            self._do(self._released(command.worker_id))
        else:
            self._do(self._stop(command.worker_id, command.host))

    def forget_worker(self, command: ForgetWorker) -> None:
        """See `swarmesh.queen.driver.Effects`."""
        worker_id = command.worker_id
        self._stopping.discard(worker_id)
        self._waggles.pop(worker_id, None)
        self._starts.forget(worker_id)
        self.homes.forget(worker_id)
        self._last_alarm.pop(worker_id, None)
        self._cut_offs.forget(worker_id)
        self._order.forget(worker_id)
        self._control.forget(worker_id)
        self._do(self._hosts.let_go(worker_id))
        self._write(self._store.delete_worker(worker_id))

    def raise_alarm(self, command: RaiseAlarm) -> None:
        """See `swarmesh.queen.driver.Effects`."""
        log.warning("alarm", rustbee_id=command.worker_id, code=command.code, message=command.message)
        self._last_alarm[command.worker_id] = ErrorBody(command.code, command.message)
        record = AlarmRecord(command.worker_id or None, command.code, command.message, time.time_ns() // 1_000_000)
        self._write(self._store.append_alarm(record))

    # life

    async def adopt(self, host_name: str) -> None:
        """Take over the agents that live on a host, without restarting anything; those that do not are gone.

        Raises:
            SwarmeshError: The host cannot be asked.
        """
        # Records first: a worker that introduces itself meanwhile must not be missed among the living.
        records = [record for record in await self._store.workers() if record.host == host_name and not record.direct]
        found = (await self._hosts.get(host_name).workers())[:WORKERS_PER_HOST_MAX]
        for record in records:
            self._starts.recall(record.spec)
        self._strangers.forget_host(host_name)
        await asyncio.gather(*(self._adopt(agent, host_name) for agent in found))
        alive = {agent.rustbee_id for agent in found}
        for record in records:
            if record.worker_id not in alive:
                self.goodbye(record.worker_id, f"{record.worker_id} has ended while {host_name} was out of reach")
                await self._store.delete_worker(record.worker_id)
                self.homes.forget(record.worker_id)
        self._starts.settle(host_name, alive)

    def lose(self, host_name: str, message: str) -> None:
        """The way to a host is broken: nothing more goes to its workers until they are heard again."""
        self._driver.post(HostLost(HostName(host_name), message))
        for worker in list(self._driver.swarm.fleet):
            if worker.host == host_name and not worker.direct:
                self._control.lose(worker.worker_id)

    def on_host(self, host_name: str) -> list[WorkerId]:
        """The workers there, also those that could not be taken over."""
        ours = [worker.worker_id for worker in self._driver.swarm.fleet if worker.host == host_name]
        return [*ours, *self._strangers.on_host(host_name)]

    def stop_strangers(self, host_name: str) -> None:
        """Stop what lives there and could not be taken over."""
        for worker_id in self._strangers.on_host(host_name):
            self.stop(worker_id, grace_s=0.0)

    def started(self, worker_id: WorkerId) -> None:
        """See `swarmesh.queen.starts.StartWatcher`."""
        worker = self._driver.swarm.fleet.get(worker_id)
        if worker is not None:
            self._watch(worker_id, self._hosts.get(worker.host))

    def start_failed(self, worker_id: WorkerId, code: str, message: str) -> None:
        """See `swarmesh.queen.starts.StartWatcher`."""
        worker = self._driver.swarm.fleet.get(worker_id)
        if worker is not None:
            self._last_alarm[worker_id] = ErrorBody(code, message)
            self._remember(worker, message)
        self._starts.forget(worker_id)
        self._driver.post(SpawnFailed(worker_id, code, message))

    async def close(self) -> None:
        """Stop watching; workers stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def recall(self) -> None:
        """Before anybody is heard: which workers live where."""
        for record in await self._store.workers():
            if not record.direct:
                self.homes.recall(record.worker_id, record.host)

    # inside

    def _must_be_wanted(self, worker_id: WorkerId, host: Host) -> None:
        if self._starts.is_unwanted(worker_id):
            self._do(self._strangers.end(worker_id, host))
            raise ConflictError(f"{worker_id} was stopped before it ran")

    async def _adopt(self, agent: AgentFile, host_name: str) -> None:
        worker_id = WorkerId(agent.rustbee_id)
        host = self._hosts.get(host_name)
        try:
            self.homes.check(worker_id, host_name)
            reached = await host.reach(worker_id, f"unix:{agent.socket_path}")
            who = await ask_who(agent, reached, self._keys.worker_key(host_name, worker_id))
            await self.register(who, host_name)
        except SwarmeshError as error:
            # It may only be slow: its own next waggle finds this queen as well.
            log.warning("not_adopted_yet", rustbee_id=worker_id, error=error.message)
            self._strangers.met(agent, host_name, error.message)
            self._watch(worker_id, host)

    async def _stop(self, worker_id: WorkerId, host_name: str) -> None:
        try:
            await self._hosts.get(host_name).stop(worker_id, STOP_GRACE_S)
        except (SwarmeshError, OSError) as error:
            log.warning("not_stopped", rustbee_id=worker_id, error=str(error))
            self._stopping.discard(worker_id)  # The core asks again.
            return
        self.goodbye(worker_id, f"{worker_id} was stopped")

    async def _released(self, worker_id: WorkerId) -> None:
        # An adopted server is nobody's to stop; it is only let go.
        self.goodbye(worker_id, f"{worker_id} was let go; its server goes on")

    def _watch(self, worker_id: WorkerId, host: Host) -> None:
        if worker_id not in self._watched:
            self._watched.add(worker_id)
            self._do(self._wait_exit(worker_id, host))

    async def _wait_exit(self, worker_id: WorkerId, host: Host) -> None:
        try:
            if all(found.rustbee_id != worker_id for found in await host.workers()):
                return  # It runs elsewhere; its waggles tell.
            await host.wait_exit(worker_id)
            last_words = await self._last_words(worker_id, host)
        except SwarmeshError as error:
            # The host is out of reach; when it is back, its agents are looked for again.
            log.info("not_watched", rustbee_id=worker_id, error=error.message)
            return
        finally:
            self._watched.discard(worker_id)
        self._strangers.forget(worker_id)
        worker = self._driver.swarm.fleet.get(worker_id)
        if worker is None or worker.host == host.name:
            self.goodbye(worker_id, last_words)

    async def _last_words(self, worker_id: WorkerId, host: Host) -> str:
        return with_last_words(f"the agent of {worker_id} has ended", await host.tail(worker_id, LAST_LINES_SHOWN))

    def _remember(self, worker: Worker, reason: str) -> None:
        error = self._last_alarm.get(worker.worker_id) or ErrorBody("rustbee_exited", reason)
        view = msgspec.structs.replace(self._view(worker), status=WorkerStatus.DEAD.value, error=error)
        self._departed[worker.worker_id] = view
        while len(self._departed) > DEPARTED_MAX:
            self._departed.popitem(last=False)

    def _known(self, worker_id: WorkerId) -> RustbeeView:
        worker = self._driver.swarm.fleet.get(worker_id)
        if worker is not None:
            return self._view(worker)
        stranger = self._strangers.get(worker_id)
        if stranger is not None:
            return stranger_view(stranger)
        departed = self._departed.get(worker_id)
        if departed is None:
            raise NotFoundError(f"no rustbee is called {worker_id!r}", hint="'swarmesh rustbees list' shows them.")
        return departed

    def _answer(self, worker_id: WorkerId) -> WaggleAnswer:
        worker = self._driver.swarm.fleet.get(worker_id)
        assert worker is not None, "a worker that was just heard is known"
        return WaggleAnswer(acknowledged=True, status=worker.status.value, next_waggle=worker.interval_ms / 1000)

    def _view(self, worker: Worker) -> RustbeeView:
        progress = self._starts.progress(worker.worker_id)
        return rustbee_view(worker, self._last_alarm.get(worker.worker_id), progress)

    def _write(self, write: Coroutine[Any, Any, Any]) -> None:
        self._do(_logged(write))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _logged(write: Coroutine[Any, Any, Any]) -> None:
    try:
        await write
    except SwarmeshError as error:
        log.warning("hivecomb_write_failed", error=error.message)
