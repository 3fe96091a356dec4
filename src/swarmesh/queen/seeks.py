"""Answers the core's question where a worker of a model could be started, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

import structlog

from swarmesh.core.commands import SeekSites
from swarmesh.core.errors import InvalidValueError, SwarmeshError
from swarmesh.core.events import SitesFound
from swarmesh.core.ids import LOCAL_HOST, HostName, ModelName, WorkerId
from swarmesh.models.modelcell import ModelKind
from swarmesh.queen.driver import Driver
from swarmesh.queen.sites import Sites, Survey
from swarmesh.wire.spec import WorkerSpec
from swarmesh.wire.views import SpawnRequest

SITE_WAIT_S: Final = 10.0
"""How long one host may take to say what it has."""
SEEK_LIMIT_S: Final = 30.0
"""After so long the core is answered, with or without sites."""
MODELS_MAX: Final = 1_000
"""Models of which planned workers are kept until the core decides."""
NOWHERE: Final = HostName("")
"""Where a failure belongs that no host can help."""

log = structlog.get_logger("seeks")


class Seeks:
    """At most one search per model counts: what an earlier one planned is dropped."""

    def __init__(self, driver: Driver, sites: Sites) -> None:
        self._driver = driver
        self._sites = sites
        self._planned: OrderedDict[ModelName, dict[WorkerId, WorkerSpec]] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def seek(self, command: SeekSites, request: SpawnRequest) -> None:
        """Answer with ``SitesFound``, later, for certain."""
        self._planned.pop(command.model, None)
        if self._closed:
            self._stopped(command)
            return
        task = asyncio.get_running_loop().create_task(self._seek(command, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def holds(self, worker_id: WorkerId) -> bool:
        """Whether a planned worker is called that."""
        return any(worker_id in planned for planned in self._planned.values())

    def take(self, worker_id: WorkerId) -> WorkerSpec | None:
        """A planned worker that is to be started; the others are kept until the next search for their model."""
        plans = (planned.pop(worker_id, None) for planned in self._planned.values())
        return next(filter(None, plans), None)

    async def survey(self, request: SpawnRequest) -> Survey:
        """What the core would be told now; nothing is kept.

        Raises:
            SwarmeshError: No host at all can help.
        """
        request, model = await self._sites.on_offer(await self._sites.by_name(request))
        if model.cell is not None and model.cell.kind is ModelKind.REMOTE:
            raise InvalidValueError(
                f"{model.cell.name!r} is served by {model.cell.target}, which is not the queennode's to start",
                hint=f"Adopt it: swarmesh spawn rustbee --type openai --url {model.cell.target} "
                f"--modelcell {model.cell.name}",
            )
        among = [request.host] if request.host else None
        survey = await self._sites.survey(request, model, among=among, must_fit=False, wait_s=SITE_WAIT_S)
        survey.failures.update(self._sites.closed())
        return survey

    async def close(self) -> None:
        """Answer what was asked, and nothing more."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _seek(self, command: SeekSites, request: SpawnRequest) -> None:
        try:
            async with asyncio.timeout(SEEK_LIMIT_S):
                survey = await self.survey(request)
        except SwarmeshError as error:
            self._fail(command, error.message)
        except TimeoutError:
            self._fail(command, f"the modelcell {command.model!r} could not be looked up within {SEEK_LIMIT_S:g} s")
        except asyncio.CancelledError:
            self._stopped(command)
            raise
        except Exception as error:  # The edge of a task that nobody awaits, and the core waits for its answer
            log.exception("seek_failed", modelcell=command.model)
            self._fail(command, f"the queennode could not look for a place: {type(error).__name__}")
        else:
            self._found(command, survey)

    def _found(self, command: SeekSites, survey: Survey) -> None:
        self._planned[command.model] = {site.candidate.worker_id: site.plan.spec for site in survey.sites}
        while len(self._planned) > MODELS_MAX:
            self._planned.popitem(last=False)
        failures = tuple((HostName(name), why) for name, why in survey.failures.items())
        sites = tuple(site.candidate for site in survey.sites)
        log.info("sites_found", modelcell=command.model, sites=[site.host for site in sites], failures=failures)
        self._driver.post(SitesFound(command.model, command.action, sites, failures))

    def _stopped(self, command: SeekSites) -> None:
        # Of one place, not of all: it is no reason to give the model up, or to raise an alarm about it.
        failures = ((LOCAL_HOST, "the queennode is being stopped"),)
        self._driver.post(SitesFound(command.model, command.action, (), failures))

    def _fail(self, command: SeekSites, message: str) -> None:
        log.warning("no_site", modelcell=command.model, error=message)
        self._driver.post(SitesFound(command.model, command.action, (), ((NOWHERE, message),)))
