"""Workers that are being started: on which host, with how much memory, with which file; until their agent runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Container
from typing import Final, Protocol

import msgspec
import structlog

from swarmesh.config.settings import Settings
from swarmesh.core.commands import RefuseSpawn, SeekSites, SpawnWorker
from swarmesh.core.errors import NotEnoughMemoryError, SwarmeshError
from swarmesh.core.events import SpawnProgressed, SpawnRequested
from swarmesh.core.ids import LOCAL_HOST, HostName, ModelName, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.hosts.ssh_errors import HostLostError, HostSlowError
from swarmesh.queen.driver import Driver
from swarmesh.queen.hosts import Hosts
from swarmesh.queen.keys import KeyRing
from swarmesh.queen.model_files import ModelFilesService
from swarmesh.queen.recipes import Recipes, launch_of
from swarmesh.queen.seeks import Seeks
from swarmesh.queen.sites import Sites, Survey
from swarmesh.queen.spawning import ModelOnOffer, Plan
from swarmesh.wire.hosts import Step
from swarmesh.wire.spec import EngineKind, WorkerSpec
from swarmesh.wire.views import SpawnRequest

LLAMA_ENGINES: Final = frozenset({EngineKind.LLAMA_CPP, EngineKind.LLAMA_SERVER})
ANY_HOST: Final = "any"
UNWANTED_MAX: Final = 1_000
"""Ids of workers that were stopped while they were being started."""
UNSURE_WAIT_S: Final = 10.0
"""After a host was too slow to say how a start went, until it is asked what lives there."""
RENEWAL_S: Final = 10.0
"""How often a start that takes long is told to the core, which would take its silence for death."""

log = structlog.get_logger("starts")


class NoHostFitsError(NotEnoughMemoryError):
    """No host can take this rustbee now."""

    code = "no_host_fits"
    default_hint = "'swarmesh models fit NAME' shows what it needs and where; 'swarmesh hosts list' shows the hosts."


class StartWatcher(Protocol):
    """Who is told how a start went."""

    def started(self, worker_id: WorkerId) -> None:
        """Its agent runs."""

    def start_failed(self, worker_id: WorkerId, code: str, message: str) -> None:
        """There will be no agent."""


class Starts:
    """Plans workers, asks the core, and does what she says; see `StartWatcher` for what comes of it.

    Attributes:
        recipes: What workers are started with that nobody asked for.
    """

    def __init__(
        self, settings: Settings, driver: Driver, hosts: Hosts, models: ModelFilesService, keys: KeyRing
    ) -> None:
        self._driver = driver
        self._hosts = hosts
        self._models = models
        self._sites = Sites(settings.rustbee, driver, hosts, models, keys, self._is_taken)
        self._seeks = Seeks(driver, self._sites)
        self.recipes = Recipes()
        self._specs: dict[WorkerId, WorkerSpec] = {}
        self._progress: dict[WorkerId, Step] = {}
        self._refusals: dict[WorkerId, SwarmeshError] = {}
        self._tasks: dict[WorkerId, asyncio.Task[None]] = {}
        self._unwanted: OrderedDict[WorkerId, None] = OrderedDict()
        self._unsure: dict[WorkerId, str] = {}
        self.watcher: StartWatcher | None = None

    def spec(self, worker_id: WorkerId) -> WorkerSpec | None:
        """What a worker was started with, if this queen started it or found it in the hivecomb."""
        return self._specs.get(worker_id)

    def recall(self, stored: bytes) -> None:
        """What the hivecomb says about a worker that an earlier queen started; nothing of one started by hand."""
        with contextlib.suppress(msgspec.DecodeError):
            spec = msgspec.json.decode(stored, type=WorkerSpec)
            self._specs[WorkerId(spec.rustbee_id)] = spec

    def progress(self, worker_id: WorkerId) -> Step | None:
        """What its start waits for."""
        return self._progress.get(worker_id)

    def forget(self, worker_id: WorkerId) -> None:
        """The worker is gone."""
        self._specs.pop(worker_id, None)
        self._progress.pop(worker_id, None)
        self._unsure.pop(worker_id, None)
        task = self._tasks.get(worker_id)
        if task is not None and task is not asyncio.current_task():
            # Its agent may be on its way already; whoever comes under this id is sent away again.
            self._unwanted[worker_id] = None
            while len(self._unwanted) > UNWANTED_MAX:
                self._unwanted.popitem(last=False)
            task.cancel()

    def is_unwanted(self, worker_id: WorkerId) -> bool:
        """Whether it was stopped before it ran."""
        return worker_id in self._unwanted

    def settle(self, host: str, alive: Container[str]) -> None:
        """The host is in reach again: starts of which nobody knew how they went have gone well, or have failed."""
        for worker_id in [worker_id for worker_id, where in self._unsure.items() if where == host]:
            del self._unsure[worker_id]
            if worker_id not in alive:
                self._failed(
                    worker_id, HostLostError.code, f"the connection to {host} broke while it was started there"
                )

    async def close(self) -> None:
        """Stop waiting for files; what has arrived of them is kept."""
        await self._seeks.close()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ask(self, request: SpawnRequest) -> WorkerId:
        """Have a worker started; returns when it was decided, not when it is ready.

        Raises:
            SwarmeshError: The modelcell, its file, the host or memory is missing.
        """
        request, model = await self._sites.on_offer(request)
        if request.host == ANY_HOST:
            plan = await self._plan_anywhere(request, model)
        else:
            plan = await self._sites.plan(request, model, request.host or LOCAL_HOST)
        worker_id = WorkerId(plan.spec.rustbee_id)
        self._specs[worker_id] = plan.spec
        self._driver.post(
            SpawnRequested(
                worker_id=worker_id,
                model=ModelName(plan.spec.modelcell),
                backend=plan.spec.backend.value,
                host=HostName(plan.spec.host),
                slots=plan.spec.slots,
                need_mib=plan.need_mib,
                gpus=plan.gpus,
            )
        )
        refusal = self._refusals.pop(worker_id, None)
        if refusal is not None:
            del self._specs[worker_id]
            raise refusal
        return worker_id

    def start(self, command: SpawnWorker) -> None:
        """See `swarmesh.queen.driver.Effects.spawn_worker`."""
        planned = self._specs.get(command.worker_id) or self._seeks.take(command.worker_id)
        if planned is None:
            self._failed(command.worker_id, "spawn_failed", "what was planned for it is not known any more")
            return
        spec = msgspec.structs.replace(planned, reserved_gpus=command.gpus)
        if len(command.gpus) == 1:
            spec = msgspec.structs.replace(spec, gpu=command.gpus[0])
        self._specs[command.worker_id] = spec
        task = asyncio.get_running_loop().create_task(self._start(spec))
        self._tasks[command.worker_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(command.worker_id, None))

    def seek(self, command: SeekSites) -> None:
        """See `swarmesh.queen.driver.Effects.seek_sites`."""
        self._seeks.seek(command, self._recipe(command.model))

    async def survey(self, model: ModelName) -> Survey:
        """What the core would find now if it looked for a place; nothing is started, and nothing kept.

        Raises:
            SwarmeshError: No host at all can help.
        """
        return await self._seeks.survey(self._recipe(model))

    def learn(self, model: ModelName, host: HostName | None = None) -> SpawnRequest | None:
        """What a worker of the model that is ready on that host, or anywhere, was started with, if that is news."""
        spec = self._spec_of(model, host)
        if spec is None:
            return None
        launch = launch_of(spec)
        return launch if self.recipes.went_well(model, launch) else None

    def refuse(self, command: RefuseSpawn) -> None:
        """See `swarmesh.queen.driver.Effects.refuse_spawn`."""
        self._refusals[command.worker_id] = command.error

    def _recipe(self, model: ModelName) -> SpawnRequest:
        spec = self._spec_of(model)
        return self.recipes.request(model, launch_of(spec) if spec is not None else None)

    def _spec_of(self, model: ModelName, host: HostName | None = None) -> WorkerSpec | None:
        """What the newest worker that is ready was started with."""
        owners = self._driver.swarm.fleet.of_model(model).values()
        ready = [worker for worker in owners if worker.status is WorkerStatus.HEALTHY and host in {None, worker.host}]
        newest_first = sorted(ready, key=lambda worker: -worker.registered_at_ms)
        return next(filter(None, (self._specs.get(worker.worker_id) for worker in newest_first)), None)

    async def _plan_anywhere(self, request: SpawnRequest, model: ModelOnOffer) -> Plan:
        survey = await self._sites.survey(request, model)
        core = self._driver.swarm.scaler.sites
        name = ModelName(request.modelcell)
        placement = core.choose(name, core.filled(name, [site.candidate for site in survey.sites]))
        log.info("placed", modelcell=request.modelcell, choice=placement.choice, reasons=placement.reasons)
        if placement.choice is None:
            raise _nowhere(request.modelcell, {**survey.failures, **placement.vetoes})
        return next(site.plan for site in survey.sites if site.candidate.host == placement.choice)

    async def _start(self, spec: WorkerSpec) -> None:
        worker_id = WorkerId(spec.rustbee_id)
        try:
            if spec.engine in LLAMA_ENGINES and not spec.model_path:
                spec = await self._with_file(spec)
            await self._hosts.get(spec.host).spawn(spec)
        except (HostLostError, HostSlowError) as error:
            # It may run: its memory stays promised until the host can be asked.
            log.warning("start_unsure", rustbee_id=worker_id, error=error.message)
            self._unsure[worker_id] = spec.host
            if isinstance(error, HostSlowError):
                await self._ask_again(spec.host)
        except SwarmeshError as error:
            self._failed(worker_id, error.code, error.message)
        except OSError as error:
            self._failed(worker_id, "spawn_failed", f"the agent of {worker_id} did not start: {error}")
        else:
            assert self.watcher is not None, "wired before the first event"
            self.watcher.started(worker_id)
        finally:
            self._progress.pop(worker_id, None)

    async def _ask_again(self, host: str) -> None:
        """A host that was too slow to answer stays connected: nobody else will ask it."""
        await asyncio.sleep(UNSURE_WAIT_S)
        with contextlib.suppress(SwarmeshError):  # It is lost by now, and asked when it is back.
            self.settle(host, {agent.rustbee_id for agent in await self._hosts.get(host).workers()})

    async def _with_file(self, spec: WorkerSpec) -> WorkerSpec:
        worker_id = WorkerId(spec.rustbee_id)
        renewing = asyncio.create_task(self._renew(worker_id))
        try:
            path = await self._models.ensure(spec.modelcell, spec.host, lambda step: self._note(worker_id, step))
        finally:
            renewing.cancel()
        spec = msgspec.structs.replace(spec, model_path=path)
        self._specs[worker_id] = spec
        return spec

    async def _renew(self, worker_id: WorkerId) -> None:
        while True:
            await asyncio.sleep(RENEWAL_S)
            self._driver.post(SpawnProgressed(worker_id))

    def _note(self, worker_id: WorkerId, step: Step) -> None:
        self._progress[worker_id] = step

    def _failed(self, worker_id: WorkerId, code: str, message: str) -> None:
        assert self.watcher is not None, "wired before the first event"
        self.watcher.start_failed(worker_id, code, message)

    def _is_taken(self, worker_id: WorkerId) -> bool:
        return worker_id in self._driver.swarm.fleet or worker_id in self._specs or self._seeks.holds(worker_id)


def _nowhere(modelcell: str, reasons: dict[str, str]) -> NoHostFitsError:
    said = "; ".join(f"{host}: {reason}" for host, reason in reasons.items()) or "no host is connected"
    return NoHostFitsError(f"no host takes a rustbee of {modelcell!r}: {said}")
