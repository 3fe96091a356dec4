"""When requests come: at random, at a rate that changes with time; and how much work each is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from swarmesh.sim.scaling.plan import Ask, ModelPlan

WORK_SIGMA: Final = 0.5
"""Of the logarithm of a request's work."""
WORK_MS_MIN: Final = 200

Rate = Callable[[int], float]
"""Workers' worth of work asked for at a time in ms."""


def even(level: float) -> Rate:
    """The same at all times."""
    return lambda _at_ms: level


class Arrivals:
    """Requests for one model; a rate of 1.0 keeps all slots of one worker on a usual host busy.

    Args:
        work_ms: Mean work of a request.
    """

    def __init__(self, rng: Random, model: ModelPlan, work_ms: float) -> None:
        self._rng = rng
        self._model = model
        self._work_ms = work_ms

    def at_rate(self, rate: Rate, highest: float, from_ms: int, until_ms: int) -> Iterator[Ask]:
        """A Poisson process, thinned from one at the ``highest`` rate."""
        gap_ms, at_ms = self._work_ms / (highest * self._model.slots), float(from_ms)
        while (at_ms := at_ms + self._rng.expovariate(1 / gap_ms)) < until_ms:
            if self._rng.random() * highest < rate(int(at_ms)):
                yield self._ask(int(at_ms))

    def at_once(self, count: int, at_ms: int, within_ms: int) -> Iterator[Ask]:
        """So many within a moment."""
        for _ in range(count):
            yield self._ask(at_ms + self._rng.randint(0, within_ms))

    def _ask(self, at_ms: int) -> Ask:
        work_ms = self._work_ms * self._rng.lognormvariate(-(WORK_SIGMA**2) / 2, WORK_SIGMA)
        return Ask(at_ms, self._model.name, max(WORK_MS_MIN, round(work_ms)))
