"""Workers that have become ready a short while ago: whether starting them was a success."""

from __future__ import annotations

from typing import Final

from swarmesh.core.commands import Command
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import WorkerId
from swarmesh.core.last_words import without_last_words
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.scale_book import Scaled
from swarmesh.core.scale_failures import Failures

FRESH_MS: Final = 60_000
"""A worker that ends by itself sooner than this, and before it has ended a task, was not started with success."""


class Newcomers:
    """Closes the breaker of a model when a worker of it has proved itself; counts a failure when it has not."""

    def __init__(self, fleet: Fleet, failures: Failures) -> None:
        self._fleet = fleet
        self.failures = failures

    def look(self, state: Scaled, now_ms: int, out: list[Command]) -> None:
        """Whether they have stayed, or done anything."""
        for worker_id, ready_ms in list(state.fresh.items()):
            worker = self._fleet.get(worker_id)
            dead = worker is None or (worker.status is WorkerStatus.DEAD and not worker.returning)
            if dead and not _has_succeeded(worker):
                self.judge(state, worker, worker_id, "it is dead", now_ms, out)
            elif now_ms - ready_ms >= FRESH_MS:
                del state.fresh[worker_id]
                state.breaker.succeeded()
        self.settle(state)

    def settle(self, state: Scaled) -> None:
        """Count those that have proved themselves; before a failure is counted, which would not be in a row then."""
        for worker_id in list(state.fresh):
            if _has_succeeded(self._fleet.get(worker_id)):
                del state.fresh[worker_id]
                state.breaker.succeeded()

    def judge(
        self, state: Scaled, worker: Worker | None, worker_id: WorkerId, words: str, now_ms: int, out: list[Command]
    ) -> None:
        """One of them is gone, as ``words`` say, or has succeeded."""
        ready_ms = state.fresh.pop(worker_id)
        if _has_succeeded(worker):
            state.breaker.succeeded()
            return
        place = str(worker.host) if worker is not None else ""
        state.breaker.avoided.add(place)
        why = f"{worker_id} ended {(now_ms - ready_ms) / 1000:.0f} s after it was ready: {without_last_words(words)}"
        self.failures.count(state, {place: why}, now_ms, out)


def _has_succeeded(worker: Worker | None) -> bool:
    """It has ended a task, or was well until somebody wanted it gone."""
    return worker is not None and bool(worker.stop_at_ms or worker.pace.work)
