"""Watches streams that must never be silent for long: one clock for all of them, a counter each.

Silence is counted in ticks, not in time: when the queen herself was asleep, she has heard nobody, and that says nothing
about anybody else.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

TICK_S: Final = 0.5
SILENT_TICKS_MAX: Final = 6
"""3 s: an agent pings each second, also while a prompt is read."""
PROGRESS_EVENTS: Final = 4
"""So many events of a watched stream say that its task did not crash the engine where it crashed one before: the last
ones before a crash may have been lost with it. More find a culprit more surely, and keep others waiting longer."""
CLIENT_PING_TICKS: Final = 10
"""5 s: so often a client hears from a stream that waits for another worker."""


class Watched(Protocol):
    """A stream under watch. It counts its own ticks, and starts anew with every byte that comes."""

    def tick(self) -> None:
        """`TICK_S` have passed."""


class Vigil:
    """Ticks everything that is under watch."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def add(self, watched: Watched) -> None:
        """Begin to watch."""
        self._watched.add(watched)

    def remove(self, watched: Watched) -> None:
        """Watch no more; harmless when it was not watched."""
        self._watched.discard(watched)

    def close(self) -> None:
        """Stop the clock."""
        self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)  # First: whatever a tick leads to, the clock goes on.
        for watched in list(self._watched):
            watched.tick()
