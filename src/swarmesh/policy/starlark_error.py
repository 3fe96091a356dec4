"""What the language says of a mistake, taken apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from swarmesh.core.script import Hook
from swarmesh.policy.mistake import LINE_CHARS_MAX, MESSAGE_CHARS_MAX, Mistake

SCRIPT: Final = "<script>"
"""What the language calls the user's part; people read the script's own name."""

_MESSAGE: Final = re.compile(r"^(?:error: )?(?P<message>.*?)(?:\n\s*--> |\Z)", re.DOTALL)
_PLACE: Final = re.compile(r"^\s*--> <script>:(\d+):(\d+)", re.MULTILINE)
_FRAME: Final = re.compile(r"^\s*\* <script>:(\d+)", re.MULTILINE)
_TABS: Final = "tabs are not allowed"
_FUNCTION: Final = re.compile(r"(?:def\s+)?(\w+)\s*(?:\(|=\s*lambda\b)")
_NEW_LINE: Final = "unexpected new line"
_SHOWN: Final = re.compile(r"^\s*\d+ \|", re.MULTILINE)
EXPECTED_MAX: Final = 8
"""Of what the language would have taken instead; longer lists help nobody."""
_WORD: Final = re.compile(r"\w+")
_ALIKE: Final = 0.75
"""How alike two names are when one is the other, mistyped: `Score`, `scores` and `scal` are, `other` is not."""
_RESERVED: Final = "cannot use reserved keyword"
_INSTEAD: Final[Mapping[str, str]] = {
    f"{_RESERVED} `while`": "write `for step in range(100)`",
    f"{_RESERVED} `import`": "scripts import nothing",
    f"{_RESERVED} `from`": "scripts import nothing",
    f"{_RESERVED} `is`": "write `==` or `!=`",
    f"{_RESERVED} `try`": "nothing is caught here: ask before, as with `if`",
    f"{_RESERVED} `raise`": "write `fail(...)`",
    f"{_RESERVED} `assert`": "write `if ...: fail(...)`",
    f"{_RESERVED} `class`": "there are functions, lists, dicts and struct(...)",
    f"{_RESERVED} `global`": "nothing is kept from one call to the next",
    "Not a valid identifier": "braces of an f-string take a name only: give the value a name before",
    "unexpected keyword 'load'": "facts are called `load_ratio`; `load` is a word of the language",
    "unexpected symbol '**'": "there are no powers: multiply",
}
"""What people write who come from Python, and what to write in its place."""
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

    def mistyped(self) -> tuple[Mistake, ...]:
        """Functions that nothing asks, by names that are nearly those of hooks."""
        told = []
        words = Counter(word[0] for line in self._lines for word in _WORD.finditer(line))
        for number, line in enumerate(self._lines, 1):
            begin = _FUNCTION.match(line)
            name = begin[1] if begin is not None else ""
            close = get_close_matches(name.lower(), list(Hook), 1, _ALIKE) if name and name not in set(Hook) else []
            if close and words[name] == 1:
                told.append(self.mistake(f"nothing asks `{name}`: is it meant to be `{close[0]}`?", number))
        return tuple(told)

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
            elif _NEW_LINE in said and not _SHOWN.search(error):
                # It shows no line of the script, and calls that its first: a bracket is open where the script ends.
                line, column, said = len(self._lines), 0, "a bracket is open where the script ends"
            return self.mistake(message or said, line, column)
        frames: Sequence[str] = _FRAME.findall(error)
        return self.mistake(message or said, int(frames[-1]) if frames else otherwise)


def _message(error: str) -> str:
    body = error.rpartition("\nerror: ")[2] if error.startswith(_TRACE) else error
    match = _MESSAGE.match(body)
    text = match["message"] if match else body
    said = " ".join(text.replace(f"{SCRIPT}.", "").split()) or "the language gives no reason"
    before, _, expected = said.partition(", expected one of ")
    said = before if expected.count('"') > 2 * EXPECTED_MAX else said
    instead = next((words for begin, words in _INSTEAD.items() if begin in said), "")
    return f"{said}; {instead}" if instead else said
