"""How often a script is asked again about tasks that it keeps waiting while nothing has changed."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

AGAIN_MS: Final = 1_000
"""What depends on nothing but time, such as an hour of the night, is noticed by then."""
AGAIN_MAX: Final = 64
"""Times in `AGAIN_MS`, over all models. Each may take some milliseconds, in which the queen does nothing else."""
KINDS_KEPT: Final = 10_000


class Asks:
    """What was asked about which kind of task, and how things stood; a kind is whatever names one."""

    def __init__(self) -> None:
        self._last: dict[Hashable, tuple[int, int]] = {}
        self._window_ms = 0
        self._left = AGAIN_MAX

    def may_ask(self, kind: Hashable, changes: int, now_ms: int) -> bool:
        """Whether it is time to ask about that kind, which is noted then; after other ``changes`` it always is."""
        last = self._last.get(kind)
        if last is not None and last[0] == changes and (now_ms - last[1] < AGAIN_MS or not self._spend(now_ms)):
            return False
        self._last.pop(kind, None)
        self._last[kind] = changes, now_ms
        if len(self._last) > KINDS_KEPT:
            del self._last[next(iter(self._last))]
        return True

    def _spend(self, now_ms: int) -> bool:
        if now_ms - self._window_ms >= AGAIN_MS:
            self._window_ms, self._left = now_ms, AGAIN_MAX
        self._left -= 1
        return self._left >= 0
