"""What an answer waits for before its first token: a rustbee that is being started, its key's limit, its turn."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from swarmesh.cli.screen import duration, harmless, note
from swarmesh.client import Event, Progress, TokenStream

NAMED_AFTER_S: Final = 3.0
"""Who waits for so long is told the task's id and why, so that it can be explained, or cancelled."""
WAITING: Final = "waiting"
"""The phase of a task for which no rustbee is being started; most such waits are over soon."""
_ERASE: Final = "\r\x1b[K"


class StartLine:
    """On a terminal a line that moves, and is gone before the answer begins; elsewhere one line for each phase.

    After `NAMED_AFTER_S` one line with the task's id stays; from then on also `WAITING` has lines elsewhere, as it does
    when the rustbee that was being started did not come.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._phase = ""
        self._is_shown = False
        self._is_named = False
        self._clock = clock
        self._since_s: float | None = None

    def show(self, waiting: Progress) -> None:
        """Take in what the task waits for."""
        if self._since_s is None:
            self._since_s = self._clock()
        if not self._is_named and self._clock() - self._since_s >= NAMED_AFTER_S:
            self._is_named = True
            self.clear()
            name = harmless(waiting.job_id)
            note(f"{words(waiting, name=name)}\n  next: swarmesh explain task {name}")
            self._phase = waiting.phase
        if sys.stderr.isatty():
            sys.stderr.write(_ERASE + words(waiting))
            sys.stderr.flush()
            self._is_shown = True
        elif waiting.phase != self._phase and (self._is_named or waiting.phase != WAITING):
            note(words(waiting))
        self._phase = waiting.phase

    def clear(self) -> None:
        """Leave the terminal as it was."""
        if self._is_shown:
            sys.stderr.write(_ERASE)
            sys.stderr.flush()
            self._is_shown = False

    def over(self, stream: TokenStream) -> Iterator[Event]:
        """The stream's events, with the line shown before the first of them."""
        try:
            for event in stream.tell_progress(self.show):
                self.clear()
                yield event
        finally:
            self.clear()


def words(waiting: Progress, *, name: str = "") -> str:
    """What a task waits for, in one line."""
    usual = f" of about {duration(waiting.expected_s)}" if waiting.expected_s else ""
    said = " ".join(harmless(waiting.message).split())
    who = f"{name} waits" if name else "waiting"
    return f"{who}: {said} ({duration(waiting.since_s)}{usual})"
