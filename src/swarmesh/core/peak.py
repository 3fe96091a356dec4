"""How many tasks there were at once at the busiest moment of the last minutes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from swarmesh.core.scale_rule import PEAK_MS

PARTS: Final = 10
"""The time is divided into so many parts, of which only the highest value is kept each."""


@dataclass(slots=True)
class Peak:
    """Of one model: running and waiting tasks together.

    Attributes:
        parts: The number of each part of time in which anything was seen, and the most that was.
    """

    parts: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=PARTS + 1))

    def see(self, tasks: int, now_ms: int) -> None:
        """So many there are now."""
        part = now_ms * PARTS // PEAK_MS
        while self.parts and self.parts[0][0] < part - PARTS:
            self.parts.popleft()
        if self.parts and self.parts[-1][0] == part:
            tasks = max(tasks, self.parts.pop()[1])
        self.parts.append((part, tasks))

    @property
    def tasks(self) -> int:
        """The most there were."""
        return max((tasks for _, tasks in self.parts), default=0)
