"""What the language says of a mistake, taken apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from swarmesh.core.script import Hook
from swarmesh.policy.mistake import LINE_CHARS_MAX, MESSAGE_CHARS_MAX, Mistake

SCRIPT: Final = "<script>"
"""What the language calls the user's part; people read the script's own name."""

_MESSAGE: Final = re.compile(r"^(?:error: )?(?P<message>.*?)(?:\n\s*--> |\Z)", re.DOTALL)
_PLACE: Final = re.compile(r"^\s*--> <script>:(\d+):(\d+)", re.MULTILINE)
_FRAME: Final = re.compile(r"^\s*\* <script>:(\d+)", re.MULTILINE)
_TABS: Final = "tabs are not allowed"
_TRACE: Final = "Traceback (most recent call last):"


class Lines:
    """A script's source, by line.

    Attributes:
        name: Of the script.
    """

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self._lines = source.splitlines()

    def mistake(self, message: str, line: int = 0, column: int = 0) -> Mistake:
        """A mistake in that line; a line behind the last is the last: there the language missed something."""
        line = min(line, len(self._lines))
        text = self._lines[line - 1] if line else ""
        return Mistake(message[:MESSAGE_CHARS_MAX], self.name, line, column, text[:LINE_CHARS_MAX])

    def defines(self, hook: Hook) -> int:
        """The line in which a function begins; 0 when it is not known."""
        begin = re.compile(rf"{hook}\s*=|def\s+{hook}\b")
        return next((number for number, line in enumerate(self._lines, 1) if begin.match(line)), 0)

    def read(self, error: str, otherwise: int = 0, message: str = "") -> Mistake:
        """A mistake as the language shows it, with ``otherwise`` for its line where it says none of the script's.

        ``message`` stands in for the language's own.
        """
        said = _message(error)
        place = _PLACE.search(error)
        if place is not None:
            line, column = int(place[1]), int(place[2])
            if _TABS in said:
                line, column = line + 1, 1  # The language names the line end before the tab.
            return self.mistake(message or said, line, column)
        frames: Sequence[str] = _FRAME.findall(error)
        return self.mistake(message or said, int(frames[-1]) if frames else otherwise)


def _message(error: str) -> str:
    body = error.rpartition("\nerror: ")[2] if error.startswith(_TRACE) else error
    match = _MESSAGE.match(body)
    text = match["message"] if match else body
    return " ".join(text.replace(f"{SCRIPT}.", "").split()) or "the language gives no reason"
