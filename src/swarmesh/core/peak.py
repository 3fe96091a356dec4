"""How many tasks there were at once in the busiest minute of a quarter of an hour."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from swarmesh.core.scale_rule import PEAK_MS

PART_MS: Final = 60_000
"""The mean of each such part is kept: a moment with many tasks is what a queue is for, a minute is not."""


@dataclass(slots=True)
class Part:
    """What was seen in one part of the time."""

    number: int
    sum: int = 0
    count: int = 0


@dataclass(slots=True)
class Peak:
    """Of one model: running and waiting tasks together.

    Attributes:
        parts: Those in which anything was seen, the oldest first.
    """

    parts: deque[Part] = field(default_factory=deque)

    def see(self, tasks: int, now_ms: int) -> None:
        """So many there are now; to be called at even intervals."""
        number = now_ms // PART_MS
        while self.parts and self.parts[0].number <= number - PEAK_MS // PART_MS:
            self.parts.popleft()
        if not self.parts or self.parts[-1].number != number:
            self.parts.append(Part(number))
        self.parts[-1].sum += tasks
        self.parts[-1].count += 1

    @property
    def slots(self) -> float:
        """How many the tasks of the busiest minute needed: their mean, and as they come by chance its root more."""
        tasks = max((part.sum / part.count for part in self.parts), default=0.0)
        return tasks + math.sqrt(tasks)
