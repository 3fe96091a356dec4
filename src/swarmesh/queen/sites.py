"""Where a worker of a model could be started: one is planned on every host that takes workers; nothing is started."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from swarmesh.config.settings import RustbeeSettings
from swarmesh.core.errors import ModelNotFoundError, SwarmeshError
from swarmesh.core.ids import HostName, WorkerId
from swarmesh.core.placement import HostCandidate
from swarmesh.models.modelcell import ModelKind
from swarmesh.queen.driver import Driver
from swarmesh.queen.hosts import Hosts
from swarmesh.queen.keys import KeyRing
from swarmesh.queen.model_files import ModelFilesService
from swarmesh.queen.spawning import ModelOnOffer, Plan, plan_worker
from swarmesh.wire.views import SpawnRequest

FILE_WAIT_S: Final = 5.0
"""How long hosts are asked for a file when somebody waits: without an answer they count as not having it."""
DRAWN_KEPT: Final = 1_000
"""Ids that were drawn last: other hosts are planned for before anybody has taken them."""


class Site(msgspec.Struct, frozen=True):
    """A worker as it would be started on one host, and that host as the core judges it."""

    plan: Plan
    candidate: HostCandidate


class Survey(msgspec.Struct, frozen=True):
    """Every host that could be asked, and why the others could not, by name."""

    sites: tuple[Site, ...]
    failures: dict[str, str]


class Sites:
    """Plans workers.

    Args:
        is_taken: Whether a worker has that id, or will.
    """

    def __init__(
        self,
        settings: RustbeeSettings,
        driver: Driver,
        hosts: Hosts,
        models: ModelFilesService,
        keys: KeyRing,
        is_taken: Callable[[WorkerId], bool],
    ) -> None:
        self._settings = settings
        self._driver = driver
        self._hosts = hosts
        self._models = models
        self._keys = keys
        self._is_taken = is_taken
        self._drawn: deque[WorkerId] = deque(maxlen=DRAWN_KEPT)

    async def on_offer(self, request: SpawnRequest) -> tuple[SpawnRequest, ModelOnOffer]:
        """The request with the model's own name: one that was asked for by where it comes from has one by then.

        Raises:
            SwarmeshError: The modelcell or its file is missing.
        """
        if request.class_path:
            return request, ModelOnOffer(None)
        cell = await self._models.known_cell(request.modelcell)
        header = await self._models.header(cell.name) if cell.kind is ModelKind.GGUF else None
        return msgspec.structs.replace(request, modelcell=cell.name), ModelOnOffer(cell, header)

    async def by_name(self, request: SpawnRequest) -> SpawnRequest:
        """The same request; a class that the catalog knows needs no host of its own, and is asked for by its name."""
        if not request.class_path:
            return request
        try:
            cell = await self._models.known_cell(request.modelcell)
        except ModelNotFoundError:
            return request
        if cell.kind is not ModelKind.PYTHON_CLASS or cell.target != request.class_path or request.python_path:
            return request
        return msgspec.structs.replace(request, class_path="", host="")

    async def plan(self, request: SpawnRequest, model: ModelOnOffer, host: str, *, must_fit: bool = True) -> Plan:
        """A worker on that host, which was measured just now.

        Raises:
            SwarmeshError: It takes no workers, lacks what was asked for, or (``must_fit``) the memory.
        """
        self._hosts.must_take_workers(host)
        facts = await self._hosts.probe(host)
        worker_id = self._new_id()
        key = self._keys.worker_key(host, worker_id)
        return plan_worker(
            request, model, facts, self._settings, worker_id=worker_id, host=host, key=key, must_fit=must_fit
        )

    async def survey(
        self,
        request: SpawnRequest,
        model: ModelOnOffer,
        *,
        among: Sequence[str] | None = None,
        must_fit: bool = True,
        wait_s: float | None = None,
    ) -> Survey:
        """A worker on every host that takes some, or on those ``among`` them.

        One host is waited for ``wait_s``, or as long as it takes.
        """
        names = [name for name in self._hosts.taking_workers() if among is None or name in among]
        outcomes = await asyncio.gather(
            *(self._plan_within(wait_s, request, model, name, must_fit=must_fit) for name in names),
            return_exceptions=True,
        )
        plans: dict[str, Plan] = {}
        failures: dict[str, str] = {}
        for name, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, Plan):
                plans[name] = outcome
            elif isinstance(outcome, SwarmeshError):
                failures[name] = outcome.message.removeprefix(f"{name} ")  # They are told by host.
            elif isinstance(outcome, TimeoutError):
                failures[name] = f"did not answer within {wait_s:g} s"
            else:
                raise outcome
        there = set(plans) if model.header is None else await self._holders(request.modelcell, list(plans), wait_s)
        sites = (Site(plan, self._candidate(name, plan, file_there=name in there)) for name, plan in plans.items())
        return Survey(tuple(sites), failures)

    def closed(self) -> dict[str, str]:
        """Hosts that take no workers now, and why."""
        taking, reachable = self._hosts.taking_workers(), self._hosts.reachable()
        return {
            name: "draining" if name in reachable else "out of reach"
            for name in self._hosts.names()
            if name not in taking
        }

    async def _plan_within(
        self, wait_s: float | None, request: SpawnRequest, model: ModelOnOffer, host: str, *, must_fit: bool
    ) -> Plan:
        async with asyncio.timeout(wait_s):
            return await self.plan(request, model, host, must_fit=must_fit)

    async def _holders(self, modelcell: str, names: list[str], wait_s: float | None) -> set[str]:
        if wait_s is None:
            return await self._models.holders(modelcell, names)
        try:
            async with asyncio.timeout(FILE_WAIT_S):
                return await self._models.holders(modelcell, names)
        except (SwarmeshError, TimeoutError):
            return set()

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
            worker_id=WorkerId(plan.spec.rustbee_id),
            backend=plan.spec.backend.value,
            slots=plan.spec.slots,
            gpus=plan.gpus,
        )

    def _new_id(self) -> WorkerId:
        while True:
            worker_id = WorkerId(f"rustbee-{secrets.token_hex(2)}")
            if worker_id not in self._drawn and not self._is_taken(worker_id):
                self._drawn.append(worker_id)
                return worker_id
