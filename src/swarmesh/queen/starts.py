"""Workers that are being started: on which host, with how much memory, with which file; until their agent runs."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import Container
from typing import Final, Protocol

import msgspec
import structlog

from swarmesh.config.settings import Settings
from swarmesh.core.commands import RefuseSpawn, SpawnWorker
from swarmesh.core.errors import NotEnoughMemoryError, SwarmeshError
from swarmesh.core.events import SpawnProgressed, SpawnRequested
from swarmesh.core.ids import LOCAL_HOST, HostName, ModelName, WorkerId
from swarmesh.core.placement import HostCandidate, choose_host
from swarmesh.hosts.ssh_errors import HostLostError, HostSlowError
from swarmesh.models.modelcell import ModelKind
from swarmesh.queen.driver import Driver
from swarmesh.queen.hosts import Hosts
from swarmesh.queen.keys import KeyRing
from swarmesh.queen.model_files import ModelFilesService
from swarmesh.queen.spawning import ModelOnOffer, Plan, plan_worker
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
    """Plans workers, asks the core, and does what she says; see `StartWatcher` for what comes of it."""

    def __init__(
        self, settings: Settings, driver: Driver, hosts: Hosts, models: ModelFilesService, keys: KeyRing
    ) -> None:
        self._settings = settings.rustbee
        self._driver = driver
        self._hosts = hosts
        self._models = models
        self._keys = keys
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
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ask(self, request: SpawnRequest) -> WorkerId:
        """Have a worker started; returns when it was decided, not when it is ready.

        Raises:
            SwarmeshError: The modelcell, its file, the host or memory is missing.
        """
        request, model = await self._on_offer(request)
        if request.host == ANY_HOST:
            plan = await self._plan_anywhere(request, model)
        else:
            plan = await self._plan(request, model, request.host or LOCAL_HOST)
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
        spec = msgspec.structs.replace(self._specs[command.worker_id], reserved_gpus=command.gpus)
        if len(command.gpus) == 1:
            spec = msgspec.structs.replace(spec, gpu=command.gpus[0])
        self._specs[command.worker_id] = spec
        task = asyncio.get_running_loop().create_task(self._start(spec))
        self._tasks[command.worker_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(command.worker_id, None))

    def refuse(self, command: RefuseSpawn) -> None:
        """See `swarmesh.queen.driver.Effects.refuse_spawn`."""
        self._refusals[command.worker_id] = command.error

    async def _on_offer(self, request: SpawnRequest) -> tuple[SpawnRequest, ModelOnOffer]:
        """The request with the model's own name: one that was asked for by where it comes from has one by then."""
        if request.class_path:
            return request, ModelOnOffer(None)
        cell = await self._models.known_cell(request.modelcell)
        header = await self._models.header(cell.name) if cell.kind is ModelKind.GGUF else None
        return msgspec.structs.replace(request, modelcell=cell.name), ModelOnOffer(cell, header)

    async def _plan(self, request: SpawnRequest, model: ModelOnOffer, host: str) -> Plan:
        self._hosts.must_take_workers(host)
        facts = await self._hosts.probe(host)
        worker_id = self._new_id()
        key = self._keys.worker_key(host, worker_id)
        return plan_worker(request, model, facts, self._settings, worker_id=worker_id, host=host, key=key)

    async def _plan_anywhere(self, request: SpawnRequest, model: ModelOnOffer) -> Plan:
        names = self._hosts.taking_workers()
        outcomes = await asyncio.gather(*(self._plan(request, model, name) for name in names), return_exceptions=True)
        plans: dict[str, Plan] = {}
        why_not: dict[str, str] = {}
        for name, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, Plan):
                plans[name] = outcome
            elif isinstance(outcome, SwarmeshError):
                why_not[name] = outcome.message
            else:
                raise outcome
        there = await self._models.holders(request.modelcell, list(plans)) if model.header is not None else set(plans)
        placement = choose_host([self._candidate(name, plan, file_there=name in there) for name, plan in plans.items()])
        log.info("placed", modelcell=request.modelcell, choice=placement.choice, reasons=placement.reasons)
        if placement.choice is None:
            raise _nowhere(request.modelcell, {**why_not, **placement.vetoes})
        return plans[placement.choice]

    def _candidate(self, name: str, plan: Plan, *, file_there: bool) -> HostCandidate:
        labels = {f"gpu {gpu}" for gpu in plan.gpus} or {"ram"}
        return HostCandidate(
            host=HostName(name),
            need_mib=plan.need_mib,
            pools=tuple(pool for pool in self._hosts.free(name) if pool.label in labels),
            offered=plan.offered,
            file_there=file_there,
            proximity=self._hosts.proximity(name),
            workers=sum(worker.host == name for worker in self._driver.swarm.fleet),
        )

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

    def _new_id(self) -> WorkerId:
        while True:
            worker_id = WorkerId(f"rustbee-{secrets.token_hex(2)}")
            if worker_id not in self._driver.swarm.fleet and worker_id not in self._specs:
                return worker_id


def _nowhere(modelcell: str, reasons: dict[str, str]) -> NoHostFitsError:
    said = "; ".join(f"{host}: {reason}" for host, reason in reasons.items()) or "no host is connected"
    return NoHostFitsError(f"no host takes a rustbee of {modelcell!r}: {said}")
