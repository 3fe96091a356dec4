"""The trail signal (R-13): who served badly of late. It evaporates: nobody is shunned for what was long ago."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HALF_LIFE_MS: Final = 60_000
"""After so long a bad mark counts half. Longer spares more tasks a bad worker, and a mended one waits longer."""
FAILURE: Final = 1.0
"""Mark of a stream that broke by the worker's fault."""
SLOW: Final = 0.25
"""Mark of an answer that took `SLOW_FACTOR` times as long as the worker's own speed promised."""
SLOW_FACTOR: Final = 4.0
MARKS_MAX: Final = 4.0


@dataclass(slots=True)
class Trail:
    """Bad marks of one worker.

    Attributes:
        marks: Their sum at ``at_ms``; it halves every `HALF_LIFE_MS`.
        broke_ms: When it last broke a stream; None if it never did.
    """

    marks: float = 0.0
    at_ms: int = 0
    broke_ms: int | None = None

    def quality(self, now_ms: int) -> float:
        """1.0 without marks, lower with them."""
        return 1.0 / (1.0 + self._left(now_ms)) if self.marks else 1.0

    def broke(self, now_ms: int) -> None:
        """A stream broke, and it was this worker's fault."""
        self.broke_ms = now_ms
        self.lower(FAILURE, now_ms)

    def lower(self, by: float, now_ms: int) -> None:
        """Add a mark."""
        self.marks, self.at_ms = min(MARKS_MAX, self._left(now_ms) + by), now_ms

    def _left(self, now_ms: int) -> float:
        return float(self.marks * 0.5 ** (max(0, now_ms - self.at_ms) / HALF_LIFE_MS))
