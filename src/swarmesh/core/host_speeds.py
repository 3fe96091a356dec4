"""How fast each model ran on each host, kept when its workers go."""

from __future__ import annotations

from typing import Final

from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import HostName, ModelName

SPEEDS_MAX: Final = 10_000
"""Pairs of model and host that are kept; the one noted longest ago goes first."""


class HostSpeeds:
    """In token-equivalents per second; only of workers that have done enough to be judged by it."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._kept: dict[tuple[ModelName, HostName], float] = {}

    def keep(self, worker: Worker) -> None:
        """A worker goes: what it has shown stays."""
        if not worker.pace.is_measured:
            return
        self._kept.pop((worker.model, worker.host), None)
        self._kept[worker.model, worker.host] = worker.pace.rated
        if len(self._kept) > SPEEDS_MAX:
            del self._kept[next(iter(self._kept))]

    def of(self, model: ModelName, host: HostName) -> float:
        """The mean of those that run there, else what the last one showed; 0 when it never ran there."""
        workers = self._fleet.of_model(model).values()
        rates = [worker.pace.rated for worker in workers if worker.host == host and worker.pace.is_measured]
        return sum(rates) / len(rates) if rates else self._kept.get((model, host), 0.0)
