"""The workers that the scaler waits for, of all models."""

from __future__ import annotations

from swarmesh.core.ids import ModelName, WorkerId
from swarmesh.core.scale_action import Action, Start
from swarmesh.core.scale_books import ScaleBooks


class Starts:
    """Each belongs to the action of its model.

    Attributes:
        loading: Models of workers that are not ready yet.
    """

    def __init__(self, books: ScaleBooks) -> None:
        self.loading: dict[WorkerId, ModelName] = {}
        self._books = books

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
