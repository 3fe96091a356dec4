"""How many workers may be declared dead at once on one signal alone.

When many workers fall silent together it is rarely the workers: it is the queen's own network, or her own pause. A
second signal (a closed connection, an ended process, silence on both ways) needs no such care.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from swarmesh.core.fleet import Fleet

WINDOW_MS: Final = 60_000
SHARE_DIVISOR: Final = 3
"""At most one in so many workers within the window, and always at least one."""


class Evictions:
    """The times of the last declarations of death on one signal alone."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._at_ms: deque[int] = deque()

    def allow(self, now_ms: int, *, certain: bool) -> bool:
        """Whether another worker may be declared dead now; counts it if so. A certain one always may, uncounted."""
        if certain:
            return True
        while self._at_ms and now_ms - self._at_ms[0] > WINDOW_MS:
            self._at_ms.popleft()
        if len(self._at_ms) >= max(1, len(self._fleet) // SHARE_DIVISOR):
            return False
        self._at_ms.append(now_ms)
        return True
