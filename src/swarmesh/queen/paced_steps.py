"""Bytes of something long as steps, no more often than people can read them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from swarmesh.wire.hosts import Step, StepState

OnStep = Callable[[Step], None]
STEP_INTERVAL_S: Final = 0.1


class PacedSteps:
    """Reports one step; the first and the last number always, those between at most every `STEP_INTERVAL_S`."""

    def __init__(self, step: str, text: str, on_step: OnStep, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._step = step
        self._text = text
        self._on_step = on_step
        self._clock = clock
        self._next_at = 0.0

    def bytes(self, done_bytes: int, total_bytes: int) -> None:
        """So much has been done."""
        now = self._clock()
        if now >= self._next_at or done_bytes == total_bytes:
            self._next_at = now + STEP_INTERVAL_S
            self._tell(StepState.RUNNING, done_bytes, total_bytes)

    def done(self, total_bytes: int = 0) -> None:
        """It is done."""
        self._tell(StepState.DONE, total_bytes, total_bytes)

    def _tell(self, state: StepState, done_bytes: int, total_bytes: int) -> None:
        self._on_step(
            Step(step=self._step, state=state, text=self._text, done_bytes=done_bytes, total_bytes=total_bytes)
        )
