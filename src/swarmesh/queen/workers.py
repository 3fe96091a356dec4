"""Everything about workers that is not a decision: registrations, waggles, processes, and what people see of them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
import structlog

from swarmesh.config.home import Home
from swarmesh.config.settings import Settings
from swarmesh.config.worker_key import worker_key, worker_secret
from swarmesh.core.commands import ForgetWorker, RaiseAlarm, RefuseSpawn, SpawnWorker, StopWorker
from swarmesh.core.errors import NotFoundError, SwarmeshError
from swarmesh.core.events import (
    HostProbed,
    SpawnFailed,
    SpawnRequested,
    WorkerAlarmed,
    WorkerGone,
    WorkerStopRequested,
)
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.hosts.agent_file import AgentFile
from swarmesh.hosts.host import Host
from swarmesh.queen.adoption import ask_who
from swarmesh.queen.control_links import ControlLinks
from swarmesh.queen.cut_offs import CutOffs
from swarmesh.queen.driver import Driver
from swarmesh.queen.links import Dialect, WorkerLink
from swarmesh.queen.report_order import ReportOrder
from swarmesh.queen.spawning import LOCAL_HOST, need_mib, worker_spec
from swarmesh.queen.worker_events import registered, waggled
from swarmesh.queen.worker_views import rustbee_view, waggle_view, worker_record
from swarmesh.store.records import AlarmRecord
from swarmesh.store.store import Store
from swarmesh.wire.errors import ErrorBody
from swarmesh.wire.spec import WorkerSpec
from swarmesh.wire.views import RustbeeView, SpawnRequest, WaggleView
from swarmesh.wire.waggle import Alarm, Registration, Waggle, WaggleAnswer

DEPARTED_MAX: Final = 100
"""Dead workers that can still be asked about."""
STOP_GRACE_S: Final = 5.0
"""What an agent gets to end its engine by itself."""
LAST_LINES_SHOWN: Final = 6

log = structlog.get_logger("workers")


class Workers:
    """The queen's dealings with workers on one host; the core decides, this acts."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        driver: Driver,
        store: Store,
        host: Host,
        control: ControlLinks,
        *,
        epoch: int = 0,
    ) -> None:
        self._home = home
        self._settings = settings
        self._driver = driver
        self._store = store
        self._host = host
        self._control = control
        self._epoch = epoch
        self._cut_offs = CutOffs(driver.links)
        self._order = ReportOrder()
        self._secret = worker_secret(home)
        self._specs: dict[WorkerId, WorkerSpec] = {}
        self._refusals: dict[WorkerId, SwarmeshError] = {}
        self._last_alarm: dict[WorkerId, ErrorBody] = {}
        self._departed: OrderedDict[WorkerId, RustbeeView] = OrderedDict()
        self._waggles: dict[WorkerId, Waggle] = {}
        self._watched: set[WorkerId] = set()
        self._stopping: set[WorkerId] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # what the API asks for

    async def spawn(self, request: SpawnRequest) -> WorkerId:
        """Start a worker on this host; returns when it was decided, not when it is ready.

        Raises:
            SwarmeshError: The modelcell, its file, or memory is missing.
        """
        if request.host not in {"", LOCAL_HOST}:
            raise NotFoundError(f"no host is called {request.host!r}", hint=f"This version knows {LOCAL_HOST!r} only.")
        worker_id = self._new_id()
        spec = worker_spec(self._home, self._settings, request, worker_id)
        facts = await self._host.probe()
        need = need_mib(spec, available_mib=facts.available_mib, total_mib=facts.total_mib)
        host = HostName(LOCAL_HOST)
        self._specs[worker_id] = spec
        self._driver.post(HostProbed(host, facts.total_mib, facts.available_mib))
        self._driver.post(
            SpawnRequested(
                worker_id=worker_id,
                model=ModelName(spec.modelcell),
                backend=spec.backend.value,
                host=host,
                slots=spec.slots,
                need_mib=need,
            )
        )
        refusal = self._refusals.pop(worker_id, None)
        if refusal is not None:
            del self._specs[worker_id]
            raise refusal
        return worker_id

    def stop(self, worker_id: WorkerId, *, grace_s: float) -> None:
        """Drain a worker, then end it.

        Raises:
            NotFoundError: There is no such worker.
        """
        self._known(worker_id)
        self._driver.post(WorkerStopRequested(worker_id, int(grace_s * 1000)))

    def register(self, registration: Registration) -> WaggleAnswer:
        """Take in a worker that introduces itself.

        Raises:
            CutOffError: A drill keeps it away.
        """
        worker_id = WorkerId(registration.rustbee_id)
        self._cut_offs.check(worker_id)
        if not self._order.is_news(registration) and worker_id in self._driver.swarm.fleet:
            return self._answer(worker_id)
        key = worker_key(self._secret, worker_id)
        if registration.epoch > self._epoch:
            # The hivecomb was lost, or is an old copy: agents have obeyed later queens than it knows of.
            self._epoch = registration.epoch + 1
            self._write(self._store.next_epoch(above=registration.epoch))
        link = WorkerLink(worker_id, registration.location, dialect=Dialect.AGENT, key=key, epoch=self._epoch)
        self._driver.links.put(link)
        self._control.watch(worker_id)
        self._departed.pop(worker_id, None)
        self._driver.post(registered(registration))
        self._watch(worker_id)
        self._write(self._store.put_worker(worker_record(registration, self._specs.get(worker_id))))
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
        """Every worker that is known."""
        return [self._view(worker) for worker in self._driver.swarm.fleet]

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

    def spawn_worker(self, command: SpawnWorker) -> None:
        """See `swarmesh.queen.driver.Effects`."""
        self._do(self._spawn(self._specs[command.worker_id]))

    def refuse_spawn(self, command: RefuseSpawn) -> None:
        """See `swarmesh.queen.driver.Effects`."""
        self._refusals[command.worker_id] = command.error

    def stop_worker(self, command: StopWorker) -> None:
        """See `swarmesh.queen.driver.Effects`."""
        if command.worker_id in self._stopping:
            return
        self._stopping.add(command.worker_id)
        if command.direct:
            self._do(self._released(command.worker_id))
        else:
            self._do(self._stop(command.worker_id))

    def forget_worker(self, command: ForgetWorker) -> None:
        """See `swarmesh.queen.driver.Effects`."""
        worker_id = command.worker_id
        self._stopping.discard(worker_id)
        self._waggles.pop(worker_id, None)
        self._specs.pop(worker_id, None)
        self._last_alarm.pop(worker_id, None)
        self._cut_offs.forget(worker_id)
        self._order.forget(worker_id)
        self._control.forget(worker_id)
        self._write(self._store.delete_worker(worker_id))

    def raise_alarm(self, command: RaiseAlarm) -> None:
        """See `swarmesh.queen.driver.Effects`."""
        log.warning("alarm", rustbee_id=command.worker_id, code=command.code, message=command.message)
        self._last_alarm[command.worker_id] = ErrorBody(command.code, command.message)
        record = AlarmRecord(command.worker_id, command.code, command.message, time.time_ns() // 1_000_000)
        self._write(self._store.append_alarm(record))

    # life

    async def adopt(self) -> None:
        """After a start: take over the agents that live on this host, without restarting anything."""
        found = await self._host.workers()
        await asyncio.gather(*(self._adopt(agent) for agent in found))
        alive = {agent.rustbee_id for agent in found}
        for record in await self._store.workers():
            if not record.direct and record.host == LOCAL_HOST and record.worker_id not in alive:
                await self._store.delete_worker(record.worker_id)

    async def close(self) -> None:
        """Stop watching; workers stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # inside

    async def _adopt(self, agent: AgentFile) -> None:
        worker_id = WorkerId(agent.rustbee_id)
        try:
            self.register(await ask_who(agent, worker_key(self._secret, worker_id)))
        except SwarmeshError as error:
            # It may only be slow: its own next waggle finds this queen as well.
            log.warning("not_adopted_yet", rustbee_id=worker_id, error=error.message)
            self._watch(worker_id)

    async def _spawn(self, spec: WorkerSpec) -> None:
        worker_id = WorkerId(spec.rustbee_id)
        try:
            await self._host.spawn(spec)
        except SwarmeshError as error:
            self._fail_spawn(worker_id, error.code, error.message)
        except OSError as error:
            self._fail_spawn(worker_id, "spawn_failed", f"the agent of {worker_id} did not start: {error}")
        else:
            self._watch(worker_id)

    def _fail_spawn(self, worker_id: WorkerId, code: str, message: str) -> None:
        worker = self._driver.swarm.fleet.get(worker_id)
        if worker is not None:
            self._last_alarm[worker_id] = ErrorBody(code, message)
            self._remember(worker, message)
        self._specs.pop(worker_id, None)
        self._driver.post(SpawnFailed(worker_id, code, message))

    async def _stop(self, worker_id: WorkerId) -> None:
        try:
            await self._host.stop(worker_id, STOP_GRACE_S)
        except (SwarmeshError, OSError) as error:
            log.warning("not_stopped", rustbee_id=worker_id, error=str(error))
            self._stopping.discard(worker_id)  # The core asks again.
            return
        self.goodbye(worker_id, f"{worker_id} was stopped")

    async def _released(self, worker_id: WorkerId) -> None:
        # An adopted server is nobody's to stop; it is only let go.
        self.goodbye(worker_id, f"{worker_id} was let go; its server goes on")

    def _watch(self, worker_id: WorkerId) -> None:
        if worker_id not in self._watched:
            self._watched.add(worker_id)
            self._do(self._wait_exit(worker_id))

    async def _wait_exit(self, worker_id: WorkerId) -> None:
        try:
            if all(found.rustbee_id != worker_id for found in await self._host.workers()):
                return  # It runs elsewhere; its waggles tell.
            await self._host.wait_exit(worker_id)
        finally:
            self._watched.discard(worker_id)
        self.goodbye(worker_id, self._last_words(worker_id))

    def _last_words(self, worker_id: WorkerId) -> str:
        tail = self._host.tail(worker_id, LAST_LINES_SHOWN)
        return f"the agent of {worker_id} has ended" + (f"; its last lines: {tail}" if tail else "")

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
        departed = self._departed.get(worker_id)
        if departed is None:
            raise NotFoundError(f"no rustbee is called {worker_id!r}", hint="'swarmesh rustbees list' shows them.")
        return departed

    def _answer(self, worker_id: WorkerId) -> WaggleAnswer:
        worker = self._driver.swarm.fleet.get(worker_id)
        assert worker is not None, "a worker that was just heard is known"
        return WaggleAnswer(acknowledged=True, status=worker.status.value, next_waggle=worker.interval_ms / 1000)

    def _view(self, worker: Worker) -> RustbeeView:
        return rustbee_view(worker, self._last_alarm.get(worker.worker_id))

    def _new_id(self) -> WorkerId:
        while True:
            worker_id = WorkerId(f"rustbee-{secrets.token_hex(2)}")
            if worker_id not in self._driver.swarm.fleet and worker_id not in self._departed:
                return worker_id

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
