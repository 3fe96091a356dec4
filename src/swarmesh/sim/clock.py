"""Virtual time: a heap of what is to happen; the clock jumps from one entry to the next."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

Action = Callable[[], None]


class Clock:
    """Runs actions in order of their time; those of one moment in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now_ms = 0
        self._heap: list[tuple[int, int, Action]] = []
        self._serial = 0

    def after(self, delay_ms: float, action: Action) -> None:
        """Let ``action`` happen ``delay_ms`` from now, never in the past."""
        self._serial += 1
        heappush(self._heap, (self.now_ms + max(0, round(delay_ms)), self._serial, action))

    def advance(self) -> bool:
        """Jump to the next action and run it; False when nothing is left to happen."""
        if not self._heap:
            return False
        self.now_ms, _, action = heappop(self._heap)
        action()
        return True
