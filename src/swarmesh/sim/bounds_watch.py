"""A second opinion on how many workers a model has whose number the queen decides."""

from __future__ import annotations

from swarmesh.core.commands import SpawnWorker
from swarmesh.core.events import Event, ModelScaled, SitesFound, SpawnRequested
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import ModelName
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.swarm import Swarm
from swarmesh.sim.checkers import SERVING, demand


class BoundsWatch:
    """Knows what was allowed, and looks whenever a worker is started that nobody else asked for."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._bounds: dict[ModelName, Bounds | None] = {}
        self._by_owner = False
        self._found: SitesFound | None = None

    def follow(self, event: Event) -> None:
        """Take in what a fact says about it."""
        self._by_owner = isinstance(event, SpawnRequested)
        self._found = event if isinstance(event, SitesFound) else None
        if isinstance(event, ModelScaled):
            self._bounds[event.model] = event.bounds

    def ordered(self, command: SpawnWorker) -> None:
        """Check that a worker may be started.

        Raises:
            InvariantBrokenError: Its model is left alone, has as many as it may have, or no place was found just now.
        """
        worker = self._swarm.fleet.get(command.worker_id)
        if self._by_owner or worker is None:
            return
        sites = self._found.sites if self._found is not None and self._found.model == worker.model else ()
        found = any((site.worker_id, site.host) == (command.worker_id, command.host) for site in sites)
        demand(found, "{} at a place that was not found", command)
        bounds = self._bounds.get(worker.model)
        most = 0 if bounds is None or bounds.paused else bounds.max_workers
        live = sum(_counts(other) for other in self._swarm.fleet.of_model(worker.model).values())
        demand(live <= most, "{} makes {} of {}, {} may be", command, live, worker.model, most)


def _counts(worker: Worker) -> bool:
    return worker.may_serve or (worker.status in SERVING and not worker.stop_at_ms)
