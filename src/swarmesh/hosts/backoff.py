"""When to try again: at once after what had worked, then less and less often, and never all hosts in step."""

from __future__ import annotations

import random
from typing import Final

FIRST_S: Final = 0.2
LINK_MAX_S: Final = 5.0
"""For what may mend itself. A host that comes back is used again within this time."""
SETUP_MAX_S: Final = 60.0
"""For what somebody has to change: a host that denies us would take many tries for an attack."""
JITTER: Final = 0.25
"""By what part a wait is drawn longer or shorter."""
STEADY_S: Final = 5.0
"""A connection that held for so long had worked; one that breaks at once does not begin the count anew."""


class Backoff:
    """Doubling waits with jitter."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def lost(self, held_s: float) -> None:
        """A connection broke after so long."""
        if held_s >= STEADY_S:
            self._next_s = 0.0

    def wait_s(self, *, passing: bool) -> float:
        """How long to wait now, after something that may pass by itself or will not."""
        limit_s = LINK_MAX_S if passing else SETUP_MAX_S
        wait_s = min(self._next_s, limit_s)
        self._next_s = min(max(FIRST_S, 2 * self._next_s), SETUP_MAX_S)
        return wait_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - nobody gains by guessing it
