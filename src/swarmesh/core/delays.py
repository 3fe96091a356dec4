"""How long tasks of scaled models take from their submission to their first token, as a decayed mean."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from swarmesh.core.events import StreamEnded
from swarmesh.core.ids import ModelName
from swarmesh.core.task import Task

HALF_LIFE_MS: Final = 10_000
WEIGHT_MIN: Final = 0.1
"""Below this nothing is known any more: the last task was too long ago."""


@dataclass(slots=True)
class Delay:
    """Of one model.

    Attributes:
        since_ms: Tasks that were submitted earlier do not count: they waited for a worker that was being started.
    """

    sum_ms: float = 0.0
    weight: float = 0.0
    since_ms: int = 0


class Delays:
    """Of the models that are watched; others cost one look into a table per task."""

    def __init__(self) -> None:
        self._watched: dict[ModelName, Delay] = {}
        self._faded_at_ms: int | None = None

    def watch(self, model: ModelName) -> None:
        """Count the tasks of that model from now on."""
        self._watched.setdefault(model, Delay())

    def keep_only(self, models: Container[ModelName]) -> None:
        """Forget all others."""
        for model in [model for model in self._watched if model not in models]:
            del self._watched[model]

    def start_anew(self, model: ModelName, now_ms: int) -> None:
        """There are more or fewer workers now: what tasks had to wait before says nothing any more."""
        if model in self._watched:
            self._watched[model] = Delay(since_ms=now_ms)

    def took(self, task: Task, event: StreamEnded) -> None:
        """A task has ended; on the path of every task."""
        delay = self._watched.get(task.model)
        if delay is not None and task.submitted_at_ms >= delay.since_ms:
            delay.sum_ms += task.queue_ms + max(0, event.first_token_ms)
            delay.weight += 1.0

    def fade(self, now_ms: int) -> None:
        """Time has passed."""
        before_ms, self._faded_at_ms = self._faded_at_ms, now_ms
        keep = 2.0 ** (-(now_ms - before_ms) / HALF_LIFE_MS) if before_ms is not None else 1.0
        for delay in self._watched.values():
            delay.sum_ms *= keep
            delay.weight *= keep

    def mean_ms(self, model: ModelName) -> int:
        """0 when there was no task of late."""
        delay = self._watched.get(model)
        return round(delay.sum_ms / delay.weight) if delay is not None and delay.weight >= WEIGHT_MIN else 0
