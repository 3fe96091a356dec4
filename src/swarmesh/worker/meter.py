"""What a worker knows about its own work: busy slots, success, speed."""

from __future__ import annotations

import math
from typing import Final

QUALITY_HALF_LIFE_S: Final = 600.0
"""Longer forgives more slowly; a failure counts half after this."""
SPEED_WINDOW_S: Final = 10.0
"""Time constant of the speed; shorter follows faster and jumps more."""


class Meter:
    """Fed by whoever serves; times are seconds of any one monotonic clock.

    Attributes:
        busy: Requests that run now.
        progress: Grows with every sign that the engine goes on: a token, or a whole answer.
    """

    def __init__(self) -> None:
        self.busy = 0
        self.progress = 0
        self._good = 0.0
        self._all = 0.0
        self._quality_at_s = 0.0
        self._tokens = 0.0
        self._tokens_at_s = 0.0

    def outcome(self, now_s: float, *, good: bool) -> None:
        """A task ended by this worker's doing: well, or not. A client's own mistake is no outcome."""
        kept = self._kept(now_s)
        self._good = self._good * kept + (1.0 if good else 0.0)
        self._all = self._all * kept + 1.0
        self.progress += good
        self._quality_at_s = now_s

    def tokens(self, now_s: float, count: int) -> None:
        """So many tokens were made just now."""
        self._tokens = self._decayed_tokens(now_s) + count
        self._tokens_at_s = now_s
        self.progress += 1

    def quality(self, now_s: float) -> float:
        """Decayed share of good outcomes, 0.0 to 1.0; one good outcome is given in advance, and does not fade.

        So it evaporates with time alone as well: who is avoided for it gets no tasks that could mend it (R-13).
        """
        kept = self._kept(now_s)
        return (self._good * kept + 1.0) / (self._all * kept + 1.0)

    def tokens_per_s(self, now_s: float) -> float:
        """Tokens per second over about the last `SPEED_WINDOW_S`, all slots together."""
        return self._decayed_tokens(now_s) / SPEED_WINDOW_S

    def _kept(self, now_s: float) -> float:
        return float(0.5 ** ((now_s - self._quality_at_s) / QUALITY_HALF_LIFE_S))

    def _decayed_tokens(self, now_s: float) -> float:
        return self._tokens * math.exp(-(now_s - self._tokens_at_s) / SPEED_WINDOW_S)
