"""What a policy script prints, in the queen's log: of a script that prints much, a little."""

from __future__ import annotations

import time
from typing import Final

import structlog

from swarmesh.policy.mistake import LINE_CHARS_MAX

LINES_PER_MINUTE: Final = 60
_MINUTE_S: Final = 60.0

log = structlog.get_logger("script")


class SaidLog:
    """Called with each answer's lines.

    Args:
        name: Of the script.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._until_s = 0.0
        self._left = LINES_PER_MINUTE
        self._dropped = 0

    def __call__(self, lines: tuple[str, ...]) -> None:
        """Log what there is room for."""
        for line in lines:
            if self._has_room():
                log.info("said", script=self._name, line=line[:LINE_CHARS_MAX])
            else:
                self._dropped += 1

    def _has_room(self) -> bool:
        now_s = time.monotonic()
        if now_s >= self._until_s:
            if self._dropped:
                log.info("said_more", script=self._name, lines=self._dropped)
            self._until_s, self._left, self._dropped = now_s + _MINUTE_S, LINES_PER_MINUTE, 0
        self._left -= 1
        return self._left >= 0
