"""What an answer waits for before its first token: a rustbee that is being started."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from swarmesh.cli.screen import duration, harmless, note
from swarmesh.client import Event, Progress, TokenStream

_ERASE: Final = "\r\x1b[K"


class StartLine:
    """On a terminal a line that moves, and is gone before the answer begins; elsewhere one line for each phase."""

    def __init__(self) -> None:
        self._phase = ""
        self._is_shown = False

    def show(self, waiting: Progress) -> None:
        """Take in how far the start is."""
        if sys.stderr.isatty():
            sys.stderr.write(_ERASE + words(waiting))
            sys.stderr.flush()
            self._is_shown = True
        elif waiting.phase != self._phase:
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


def words(waiting: Progress) -> str:
    """How far a start is, in one line."""
    usual = f" of about {duration(waiting.expected_s)}" if waiting.expected_s else ""
    said = " ".join(harmless(waiting.message).split())
    return f"waiting: {said} ({duration(waiting.since_s)}{usual})"
