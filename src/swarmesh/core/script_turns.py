"""Of many models, about which the script is asked at this tick: all in turn, so that no tick takes long."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from swarmesh.core.ids import ModelName

ASKED_MAX: Final = 8
"""Models whose `scale` is asked for at one tick; of the others the last answer holds. Each may take some milliseconds,
in which the queen does nothing else."""


class ScaleTurns:
    """What `scale` last said of each model, and who is next.

    Outside a round everybody may ask: what is asked when a task comes in is about that model alone.
    """

    def __init__(self) -> None:
        self._round = 0
        self._every = 1
        self._left: int | None = None
        self._asked: dict[ModelName, tuple[int, int | None]] = {}

    def begin(self, models: Iterable[ModelName]) -> None:
        """A tick's round among these; what was said of others is forgotten."""
        known = {model: self._asked.get(model) for model in models}
        self._asked = {model: asked for model, asked in known.items() if asked is not None}
        self._round += 1
        self._every = max(1, math.ceil(len(known) / ASKED_MAX))
        self._left = ASKED_MAX

    def end(self) -> None:
        """The round is over."""
        self._left = None

    def is_due(self, model: ModelName) -> bool:
        """Whether the script is to be asked about it now."""
        if self._left is None:
            return True
        asked = self._asked.get(model)
        return self._left > 0 and (asked is None or self._round - asked[0] >= self._every)

    def answered(self, model: ModelName, count: int | None) -> None:
        """The script was asked, and said this; None is no opinion."""
        self._asked[model] = (self._round, count)
        if self._left is not None:
            self._left -= 1

    def last(self, model: ModelName) -> int | None:
        """What it said last; None also where it was never asked."""
        asked = self._asked.get(model)
        return asked[1] if asked is not None else None
