"""The workers that the scaler waits for, of all models: until they are ready, or lost."""

from __future__ import annotations

from typing import Final

from swarmesh.core.commands import Command, RecordLoadTime
from swarmesh.core.dispatch import Dispatcher
from swarmesh.core.events import WorkerStopRequested
from swarmesh.core.fleet import Fleet
from swarmesh.core.ids import ModelName, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.load_times import SILENT_MS_MAX
from swarmesh.core.roster import Roster
from swarmesh.core.scale_action import DRAIN_GRACE_MS, STAY_MS, Action, Start
from swarmesh.core.scale_book import Scaled
from swarmesh.core.scale_books import ScaleBooks
from swarmesh.core.scale_fresh import Newcomers

_READY: Final = frozenset({WorkerStatus.HEALTHY, WorkerStatus.SUSPECT})


class Starts:
    """Each belongs to the action of its model.

    Attributes:
        loading: Models of workers that are not ready yet.
    """

    def __init__(
        self, fleet: Fleet, dispatcher: Dispatcher, roster: Roster, books: ScaleBooks, newcomers: Newcomers
    ) -> None:
        self.loading: dict[WorkerId, ModelName] = {}
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._roster = roster
        self._books = books
        self._newcomers = newcomers

    def add(self, model: ModelName, action: Action, start: Start) -> None:
        """It has been asked for."""
        action.starts[start.worker_id] = start
        self.loading[start.worker_id] = model

    def drop(self, action: Action, worker_id: WorkerId) -> None:
        """It is ready, gone, or not waited for any more."""
        action.starts.pop(worker_id, None)
        self.loading.pop(worker_id, None)

    def find(self, worker_id: WorkerId) -> Start | None:
        """None for a worker that is not waited for."""
        model = self.loading.get(worker_id)
        state = self._books.of_model.get(model) if model is not None else None
        return state.action.starts.get(worker_id) if state is not None and state.action is not None else None

    def progressed(self, worker_id: WorkerId, now_ms: int) -> None:
        """It takes long and goes on."""
        start = self.find(worker_id)
        if start is not None:
            start.signed_ms = start.heard_ms = now_ms

    def troubled(self, worker_id: WorkerId, words: str) -> None:
        """Something was heard of it; if it fails now, this is why."""
        start = self.find(worker_id)
        if start is not None:
            start.trouble = words

    def note_change(self, state: Scaled, now_ms: int) -> None:
        """The number of workers is another: what was seen before says little."""
        state.changed(now_ms)
        self._dispatcher.delays.start_anew(state.model, now_ms)

    def look_at(self, state: Scaled, action: Action, start: Start, now_ms: int, out: list[Command]) -> None:
        """Whether it is ready, or lost."""
        worker = self._fleet.get(start.worker_id)
        if worker is None or worker.stop_at_ms:
            self.drop(action, start.worker_id)
        elif worker.status in _READY:
            self._ready(state, action, start, now_ms, out)
        elif worker.status is WorkerStatus.DEAD and not worker.returning:
            self._lost(state, action, start, start.trouble or "it died while it was loading", now_ms, out)
        elif now_ms - start.heard_ms > SILENT_MS_MAX:
            words = start.trouble or f"nothing was heard of it for {SILENT_MS_MAX // 1000} s"
            self._lost(state, action, start, words, now_ms, out)
        elif now_ms - start.signed_ms > start.limit_ms:
            self._books.loads.overran(state.model, start.limit_ms)
            words = f"it was not ready after {start.limit_ms // 1000} s"
            self._lost(state, action, start, words, now_ms, out)

    def _ready(self, state: Scaled, action: Action, start: Start, now_ms: int, out: list[Command]) -> None:
        self.drop(action, start.worker_id)
        load_ms = self._books.loads.took(state.model, start.host, max(1, now_ms - start.signed_ms))
        out.append(RecordLoadTime(state.model, start.host, load_ms))
        if action.relocation is None:  # Who moves for another model has not had a turn by that.
            state.got_ms = now_ms
        state.fresh[start.worker_id] = now_ms
        self.note_change(state, now_ms)

    def _lost(self, state: Scaled, action: Action, start: Start, words: str, now_ms: int, out: list[Command]) -> None:
        self.drop(action, start.worker_id)
        self._roster.stop_requested(WorkerStopRequested(start.worker_id, DRAIN_GRACE_MS), now_ms, out)
        self._newcomers.settle(state)
        self.failed(state, action, start, f"{start.worker_id}: {words}", now_ms, out)

    def failed(self, state: Scaled, action: Action, start: Start, words: str, now_ms: int, out: list[Command]) -> None:
        """It will not be ready; where a model lacks one because it moved, none of it moves again for a while."""
        least = state.bounds.min_workers if state.bounds is not None else 0
        if action.relocation is not None and self._books.present(state.model) < least:
            state.stays_until_ms = now_ms + STAY_MS
        state.breaker.avoided.add(str(start.host))
        self._newcomers.failures.count(state, {str(start.host): words}, now_ms, out)
