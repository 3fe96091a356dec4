"""What a script may answer, and the words for what it may not; the same whatever language it is written in."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from swarmesh.core.script import Hook

NUMBER_MAX: Final = 2**53
"""Larger whole numbers are not exact as a float any more."""
REASON_CHARS_MAX: Final = 500
WORKERS_MAX: Final = 10_000
"""That ``scale`` may ask for."""

ARGUMENTS: Final = {
    Hook.ADMIT: ("task",),
    Hook.SCORE: ("task", "workers"),
    Hook.PLACE: ("model", "hosts"),
    Hook.SCALE: ("model", "stats"),
}
WANTED: Final = {
    Hook.ADMIT: "None to let the task in, or a string that says why not",
    Hook.SCORE: "a list with one number or None for each worker",
    Hook.PLACE: "a list with one number or None for each host",
    Hook.SCALE: f"a whole number from 0 to {WORKERS_MAX}, or None",
}
_EACH: Final = {Hook.SCORE: "worker", Hook.PLACE: "host"}
_TYPES: Final = {str: "string", type(None): "None"}


class Odd(msgspec.Struct, frozen=True):
    """An answer that is none, as far as words need it.

    Attributes:
        kind: Type of the answer, as the script's language calls it.
        size: Of a list that is too short or too long, or of a string that is too long or empty.
        index: Of the first item that is wrong, from 0.
        item: That item: its type, or itself when it is a number; or the answer itself when that is a number.
    """

    kind: str = ""
    size: int | None = None
    index: int | None = None
    item: str = ""


def words(hook: Hook, odd: Odd, expected: int) -> str:
    """What is wrong with an answer, in one sentence."""
    return f"{hook} returned {_what(hook, odd, expected)}; it has to return {WANTED[hook]}"


def oddness(hook: Hook, answer: object, expected: int) -> Odd | None:
    """What is wrong with a Python value as an answer; None when it is one."""
    match hook:
        case Hook.ADMIT:
            return _odd_reason(answer)
        case Hook.SCALE:
            return _odd_count(answer)
        case Hook.SCORE | Hook.PLACE:
            return _odd_numbers(answer, expected)


def _what(hook: Hook, odd: Odd, expected: int) -> str:
    if odd.index is not None:
        return f"{odd.item} as item {odd.index} of its list (the first is 0)"
    if odd.item:
        return odd.item
    if odd.size is None:
        return _with_article(odd.kind)
    if hook in _EACH:
        return f"a list of {odd.size} for {expected} {_EACH[hook]}s" if expected != 1 else f"a list of {odd.size} for 1"
    return f"a string of {odd.size} characters (1 to {REASON_CHARS_MAX} are allowed)"


def _with_article(kind: str) -> str:
    if kind == "None":
        return kind
    return f"an {kind}" if kind[:1] in "aeio" else f"a {kind}"


def _odd_reason(answer: object) -> Odd | None:
    if answer is None:
        return None
    if not isinstance(answer, str):
        return Odd(_name(answer))
    return None if 0 < len(answer) <= REASON_CHARS_MAX else Odd("string", len(answer))


def _odd_count(answer: object) -> Odd | None:
    if answer is None:
        return None
    if not isinstance(answer, int) or isinstance(answer, bool):
        return Odd(_name(answer))
    return None if 0 <= answer <= WORKERS_MAX else Odd("int", item=_shown(answer))


def _odd_numbers(answer: object, expected: int) -> Odd | None:
    if not isinstance(answer, list | tuple):
        return Odd(_name(answer))
    if len(answer) != expected:
        return Odd("list", len(answer))
    for index, item in enumerate(answer):
        wrong = _odd_number(item)
        if wrong:
            return Odd("list", index=index, item=wrong)
    return None


def _odd_number(item: object) -> str:
    if item is None:
        return ""
    if isinstance(item, bool) or not isinstance(item, int | float):
        return _with_article(_name(item))
    if isinstance(item, float):
        return "" if math.isfinite(item) else str(item)
    return "" if abs(item) <= NUMBER_MAX else _shown(item)


def _shown(number: int) -> str:
    # A number may have a million digits, which take long to write.
    return str(number) if number.bit_length() <= 64 else "a number of more than 64 bits"


def _name(answer: object) -> str:
    return _TYPES.get(type(answer), type(answer).__name__)
