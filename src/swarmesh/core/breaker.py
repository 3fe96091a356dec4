"""When starting workers of a model is given up for a while, because it fails again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

FAILURES_MAX: Final = 3
"""Failures in a row that open it."""
OPEN_MS: Final = 30_000
"""How long it stays open the first time; twice as long with every trial that fails."""
OPEN_MS_MAX: Final = 600_000
DISTRUST_MS: Final = 300_000
"""After the last of many failures in a row, how long nobody who is in use gives way for one more try."""
RETRY_MS: Final = 3_000
"""Times the failures in a row: the pause before the next try while it is closed."""
REASONS_MAX: Final = 16
"""Places whose reasons are kept."""


@dataclass(slots=True)
class Breaker:
    """Of one model. Open: nothing is tried. When its time is over one trial is let through, which closes it or not.

    Attributes:
        failures: In a row.
        until_ms: When it lets a trial through; 0 while it is closed.
        retry_ms: Before this nothing is tried even while it is closed.
        reasons: Why the last tries failed, by place; an empty one for what concerns no place.
        avoided: Places where something was started and failed; others are tried first.
        failed_ms: When the last of them was.
        for_room: It is open because others hold all memory; what they do may end that at any time.
    """

    failures: int = 0
    until_ms: int = 0
    retry_ms: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    avoided: set[str] = field(default_factory=set)
    failed_ms: int = 0
    for_room: bool = False
    _openings: int = 0

    def failed(self, reasons: Mapping[str, str], now_ms: int, *, hopeless: bool = False) -> bool:
        """Count a failure; whether it has opened by that. ``hopeless``: trying again at once cannot help."""
        self.failures += 1
        self.failed_ms = now_ms
        self._note(reasons)
        self.retry_ms = now_ms + RETRY_MS * self.failures
        if self.failures < FAILURES_MAX and not hopeless:
            return False
        self.failures = max(self.failures, FAILURES_MAX)
        self.until_ms = now_ms + min(OPEN_MS_MAX, OPEN_MS * 2 ** min(self._openings, 16))
        self._openings += 1
        self.for_room = False
        return True

    def found_no_room(self, reasons: Mapping[str, str], now_ms: int) -> None:
        """Others hold all memory and do not let go of it: open for a while, though nothing has failed."""
        # Why it ended where it was started says more than that others are there now.
        self._note({place: reason for place, reason in reasons.items() if not self.distrusts(place, now_ms)})
        self.until_ms = now_ms + OPEN_MS
        self.for_room = True

    def room_changed(self) -> None:
        """There may be room now: if it is open for lack of it, a trial is let through at once."""
        if self.for_room:
            self.until_ms, self.for_room = 0, False

    def succeeded(self) -> None:
        """What was tried has worked."""
        self.failures = self.until_ms = self.retry_ms = self._openings = 0
        self.for_room = False
        self.reasons.clear()
        self.avoided.clear()

    def left_ms(self, now_ms: int) -> int:
        """How long nothing is tried because it is open; 0 when it is closed, or a trial may go through."""
        return max(0, self.until_ms - now_ms)

    def distrusts(self, place: str, now_ms: int) -> bool:
        """Whether it fails again and again, also there: then nobody who is in use gives way for one more try."""
        return self.failures >= FAILURES_MAX and place in self.avoided and now_ms - self.failed_ms < DISTRUST_MS

    def holds(self, now_ms: int) -> bool:
        """Whether nothing may be tried now."""
        return now_ms < self.until_ms or now_ms < self.retry_ms

    def in_words(self) -> str:
        """Why, by place."""
        return "; ".join(f"{place}: {reason}" if place else reason for place, reason in self.reasons.items())

    def _note(self, reasons: Mapping[str, str]) -> None:
        for place, reason in reasons.items():
            self.reasons.pop(place, None)
            self.reasons[place] = reason
        while len(self.reasons) > REASONS_MAX:
            del self.reasons[next(iter(self.reasons))]
