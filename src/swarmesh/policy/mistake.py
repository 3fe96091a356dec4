"""One thing that is wrong in a script, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from swarmesh.core.script import Hook, ScriptFailedError

LINE_CHARS_MAX: Final = 200
MESSAGE_CHARS_MAX: Final = 1_000


class Mistake(msgspec.Struct, frozen=True):
    """What is wrong, and where.

    Attributes:
        file: The script's name.
        line: From 1; 0 when it is not known.
        column: From 1; 0 when it is not known.
        text: The line itself.
    """

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    text: str = ""

    @property
    def where(self) -> str:
        """``file:line:column``, as far as it is known."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part)

    @property
    def words(self) -> str:
        """On one line."""
        return f"{self.where}: {self.message}" if self.where else self.message

    @property
    def picture(self) -> str:
        """With the line of the source and a mark below the place."""
        if not self.text:
            return self.words
        mark = f"\n    {_indent(self.text, self.column)}^" if self.column else ""
        return f"{self.words}\n    {self.text}{mark}"


class ScriptInvalidError(ScriptFailedError):
    """The script has mistakes, so that it cannot be used.

    Attributes:
        mistakes: At least one.
    """

    code = "policy_script_invalid"
    status = 400
    type = "invalid_request_error"
    default_hint = "'swarmesh policy check FILE' shows each mistake in its line."

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        more = len(self.mistakes) - 1
        super().__init__(self.mistakes[0].words + (f" (and {more} more)" if more else ""), param="source")


class ScriptEndedError(ScriptInvalidError):
    """Its process ended while the script was loaded: by the script's fault, or by that of a machine in need."""


class ScriptMistakeError(ScriptFailedError):
    """The script gave no usable answer.

    Attributes:
        mistake: Why, and where.
    """

    def __init__(self, mistake: Mistake, hook: Hook | None = None) -> None:
        self.mistake = mistake
        self.hook = hook
        super().__init__(mistake.words)


def _indent(text: str, column: int) -> str:
    # A tab stays one, so that the mark stands below its place whatever a tab is wide.
    return "".join("\t" if char == "\t" else " " for char in text[: column - 1])
