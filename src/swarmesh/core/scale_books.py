"""The books of all models that are scaled, and what holds for all of them."""

from __future__ import annotations

from typing import Final

from swarmesh.core.fleet import Fleet
from swarmesh.core.ids import ModelName
from swarmesh.core.load_times import LoadTimes
from swarmesh.core.scale_book import Scaled
from swarmesh.core.scale_bounds import Bounds

BOOKS_MAX: Final = 10_000
"""Models without bounds of their own of which books are kept; those with nothing in them are closed first."""


class ScaleBooks:
    """By model.

    Attributes:
        everyone: Bounds of every model that has none of its own; None leaves those alone.
        paused: Nothing is begun for any model.
        loads: How long workers take to be ready.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.of_model: dict[ModelName, Scaled] = {}
        self.everyone: Bounds | None = None
        self.paused = False
        self.loads = LoadTimes()
        self._fleet = fleet

    @property
    def any_bounds(self) -> bool:
        """Whether there is anything to do at all."""
        return bool(self.of_model) or self.everyone is not None

    def bound(self, model: ModelName, bounds: Bounds | None) -> None:
        """Take bounds in, of one model or of all when it is empty; what kept it from being placed is forgotten."""
        if not model:
            self.everyone = bounds
            touched = [state for state in self.of_model.values() if not state.own_bounds]
        else:
            touched = [self.of_model.setdefault(model, Scaled(model))]
            touched[0].own_bounds = bounds is not None
        for state in touched:
            state.bounds = bounds if model and bounds is not None else self.everyone
            state.breaker.succeeded()
            state.not_before_ms = state.stays_until_ms = 0

    def room_changed(self) -> None:
        """A pause is over, somebody has other bounds or is gone: models that lacked room are tried at once."""
        for state in self.of_model.values():
            state.breaker.room_changed()

    def find(self, model: ModelName) -> Scaled | None:
        """The book of a model, opened if the bounds for all are its bounds; None when it is not scaled."""
        state = self.of_model.get(model)
        if state is None and self.everyone is not None and model:
            if len(self.of_model) >= BOOKS_MAX:
                self.close_empty()
            state = self.of_model[model] = Scaled(model, self.everyone)
        return state

    def close_unbound(self) -> None:
        """Close the books of models that have no bounds any more, once nothing is under way."""
        for model in [state.model for state in self.of_model.values() if state.bounds is None and state.action is None]:
            del self.of_model[model]

    def close_empty(self) -> None:
        """Close those that have neither bounds of their own nor workers nor anything under way."""
        for model in [
            state.model
            for state in self.of_model.values()
            if not (state.own_bounds or state.action or state.waiting or self._fleet.of_model(state.model))
        ]:
            del self.of_model[model]

    def is_paused(self, state: Scaled) -> bool:
        """Whether nothing is begun for a model."""
        return self.paused or state.bounds is None or state.bounds.paused

    def present(self, model: ModelName) -> int:
        """Workers that serve, or will without anybody's help; as it is now, not as it was at the last look."""
        return sum(worker.may_serve for worker in self._fleet.of_model(model).values())

    def is_present(self, model: ModelName) -> bool:
        """Whether there is any."""
        return any(worker.may_serve for worker in self._fleet.of_model(model).values())
