"""What is wrong with a value of a JSON body, in words: which field, what it must be, and what may stand there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import inspect

_PLACE: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_STEPS: Final = re.compile(r"\[[^\]]*\]|[^.\[]+")
_NO_CHOICE: Final = "Invalid enum value"
"""Begins what msgspec says of a value that is none of a few."""
_TYPES: Final = re.compile(r"Expected `(?P<wanted>[^`]+)`, got `(?P<found>[^`]+)`")
_BOUND: Final = re.compile(r"Expected `(?:int|float)` (?P<order>[<>]=?) (?P<bound>\S+)")
_LENGTH: Final = re.compile(r"Expected `(?P<kind>\w+)` of length (?P<order>[<>]=) (?P<count>\d+)")
_PATTERN: Final = "Expected `str` matching regex"
_MISSING: Final = re.compile(r"Object missing required field `(?P<field>[^`]+)`")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<field>[^`]+)`")

_TYPE_WORDS: Final = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_ORDER_WORDS: Final = {">=": "{} or more", "<=": "{} or less", ">": "more than {}", "<": "less than {}"}
_LENGTH_WORDS: Final = {">=": "at least", "<=": "at most"}


class Mistake(msgspec.Struct, frozen=True):
    """One mistake.

    Attributes:
        param: The path to the field; of one that is missing or too many, at least its name. Empty for the whole body.
        words: What is wrong with it.
        hint: What may stand there; empty where that cannot be told.
    """

    param: str
    words: str
    hint: str


def mistake(said: str, kind: object) -> Mistake:
    """What msgspec said when it was to decode a ``kind``; words that are not known here stay as they are.

    Of a pattern the ``description`` beside it is told (`msgspec.Meta`): nobody should have to read one.
    """
    place = _PLACE.search(said)
    path = place.group("path") if place else ""
    said = said[: place.start()] if place else said
    shapes = _shapes(kind, path)
    field = _MISSING.fullmatch(said) or _UNKNOWN.fullmatch(said)
    return Mistake(path or (field.group("field") if field else ""), _words(said), _hint(said, shapes))


def _words(said: str) -> str:
    if said.startswith(_PATTERN):
        return "it is not in the form that it must have"
    if match := _MISSING.fullmatch(said):
        return f"the field `{match.group('field')}` is missing"
    if match := _UNKNOWN.fullmatch(said):
        return f"there is no field `{match.group('field')}`"
    if match := _BOUND.fullmatch(said):
        return f"must be {_ORDER_WORDS[match.group('order')].format(_number(match.group('bound')))}"
    if match := _LENGTH.fullmatch(said):
        count = int(match.group("count"))
        noun = "character" if match.group("kind") == "str" else "element"
        return f"must have {_LENGTH_WORDS[match.group('order')]} {count:,} {noun}{'' if count == 1 else 's'}"
    match = _TYPES.fullmatch(said)
    return _of_types(match, said) if match else said


def _of_types(match: re.Match[str], said: str) -> str:
    wanted, found = match.group("wanted").split(" | "), match.group("found")
    if not {*wanted, found} <= _TYPE_WORDS.keys():
        return said
    other = "a fraction" if found == "float" else _TYPE_WORDS[found]
    return f"must be {' or '.join(_TYPE_WORDS[name] for name in wanted)}, not {other}"


def _number(text: str) -> str:
    value = float(text) if re.search(r"[.e]", text) else int(text)
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _hint(said: str, shapes: list[inspect.Type]) -> str:
    if said.startswith(_NO_CHOICE):
        return _sentence("It is one of", [str(value) for shape in shapes for value in _values(shape)])
    if said.startswith(_PATTERN):
        return _sentence("It is", [words for shape in shapes for words in _forms(shape)])
    if match := _UNKNOWN.fullmatch(said):
        known = [field.encode_name for shape in shapes for field in _fields(shape)]
        near = difflib.get_close_matches(match.group("field")[:128], known, n=1)
        return f"Did you mean `{near[0]}`?" if near else _sentence("Its fields are", known)
    if _MISSING.fullmatch(said):
        return _sentence("It needs", [each.encode_name for shape in shapes for each in _fields(shape) if each.required])
    return _sentence("It is", [words for shape in shapes for words in _ranges(shape)])


def _sentence(begin: str, names: list[str]) -> str:
    return f"{begin} {', '.join(dict.fromkeys(names))}." if names else ""


def _shapes(kind: object, path: str) -> list[inspect.Type]:
    """What may stand at a place, no unions among it; nothing where that cannot be told."""
    found = list(_alternatives(_shape(kind)))
    for step in _STEPS.findall(path):
        found = [each for shape in found for below in _below(shape, step) for each in _alternatives(below)]
    return found


@lru_cache(maxsize=64)
def _shape(kind: object) -> inspect.Type:
    return inspect.type_info(kind)


def _alternatives(shape: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(shape, inspect.UnionType):
        for each in shape.types:
            yield from _alternatives(each)
    else:
        yield shape


def _below(shape: inspect.Type, step: str) -> Iterator[inspect.Type]:
    match shape:
        case inspect.Metadata(type=inner):
            for each in _alternatives(inner):
                yield from _below(each, step)
        case inspect.StructType(fields=fields):
            yield from (field.type for field in fields if field.encode_name == step)
        case inspect.CollectionType(item_type=inside) | inspect.DictType(value_type=inside) if step.startswith("["):
            yield inside
        case _:  # Nothing lies below it.
            return


def _values(shape: inspect.Type) -> Iterable[object]:
    match shape:
        case inspect.EnumType(cls=cls):
            return (member.value for member in cls)
        case inspect.LiteralType(values=values):
            return values
        case _:
            return ()


def _fields(shape: inspect.Type) -> Iterable[inspect.Field]:
    return shape.fields if isinstance(shape, inspect.StructType) else ()


def _forms(shape: inspect.Type) -> Iterable[str]:
    match shape:
        case inspect.Metadata(extra_json_schema={"description": str(words)}):
            return (words,)
        case _:
            return ()


def _ranges(shape: inspect.Type) -> Iterable[str]:
    return _range(shape) if isinstance(shape, inspect.IntType | inspect.FloatType) else ()


def _range(shape: inspect.IntType | inspect.FloatType) -> Iterable[str]:
    bounds = {">=": shape.ge, ">": shape.gt, "<=": shape.le, "<": shape.lt}
    if shape.ge is not None and shape.le is not None:
        return (f"a number from {_number(str(shape.ge))} to {_number(str(shape.le))}",)
    said = [_ORDER_WORDS[order].format(_number(str(bound))) for order, bound in bounds.items() if bound is not None]
    return (f"a number, {' and '.join(said)}",) if said else ()
