"""Reading a JSON body that nobody vouches for: depth first, then types and ranges, each mistake with its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, TypeVar

import msgspec
from msgspec import inspect

from swarmesh.core.errors import BadInputError, InvalidValueError, MalformedJsonError

JSON_DEPTH_MAX: Final = 64

T = TypeVar("T")

_NO_CHOICE: Final = "Invalid enum value"
"""Begins what msgspec says of a value that is none of a few."""
_STEPS: Final = re.compile(r"\[[^\]]*\]|[^.\[]+")
_PLACE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
# A string without an end is taken to the body's end: trying again behind each of its quotes would take forever.
_BRACKETS_OR_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{\]}]', re.DOTALL)


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode a body.

    Raises:
        MalformedJsonError: It is no JSON; the message has the position in bytes.
        InvalidValueError: It is nested too deeply, or a field is missing, of the wrong type or out of range.
    """
    _check_depth(body)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), decoder.type) from error
    except UnicodeDecodeError as error:
        raise MalformedJsonError(f"the body is not UTF-8 (byte {_bad_byte(body)})") from error
    except msgspec.DecodeError as error:
        raise MalformedJsonError(f"the body is not JSON: {_with_position(str(error), body)}") from error


def _check_depth(body: bytes) -> None:
    # Two counts of C speed settle nearly every body; only one with many brackets is looked at closely.
    if body.count(b"[") + body.count(b"{") <= JSON_DEPTH_MAX:
        return
    depth = 0
    for match in _BRACKETS_OR_STRINGS.finditer(body):
        token = match.group()
        if token in (b"[", b"{"):
            depth += 1
            if depth > JSON_DEPTH_MAX:
                raise InvalidValueError(
                    f"the body is nested more than {JSON_DEPTH_MAX} levels deep, at byte {match.start()}"
                )
        elif token in (b"]", b"}"):
            depth -= 1


def _bad_byte(body: bytes) -> int:
    # msgspec counts from the start of the string it was reading.
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(body)


def _with_position(message: str, body: bytes) -> str:
    if "(byte " in message:
        return message
    return f"{message} (byte {len(body)})"


def _invalid(message: str, kind: object) -> BadInputError:
    match = _PLACE.search(message)
    path = match.group("path") if match else ""
    words = message[: match.start()] if match else message
    param = path or _named_field(words)
    choice = ", ".join(_choice(kind, path)) if words.startswith(_NO_CHOICE) else ""
    hint = f"It is one of {choice}." if choice else ""
    return InvalidValueError(f"{param}: {words}" if param else words, hint=hint, param=param or None)


def _choice(kind: object, path: str) -> list[str]:
    """What may stand at a place where only some values may; empty where that cannot be told."""
    found = [_shape(kind)]
    for step in _STEPS.findall(path):
        found = [below for each in found for below in _below(each, step)]
    return [str(value) for each in found for value in _values(each)]


@lru_cache(maxsize=64)
def _shape(kind: object) -> inspect.Type:
    return inspect.type_info(kind)


def _below(shape: inspect.Type, step: str) -> Iterator[inspect.Type]:
    match shape:
        case inspect.UnionType(types=types):
            for each in types:
                yield from _below(each, step)
        case inspect.StructType(fields=fields):
            yield from (field.type for field in fields if field.encode_name == step)
        case inspect.CollectionType(item_type=inside) | inspect.DictType(value_type=inside) if step.startswith("["):
            yield inside
        case _:  # Nothing lies below it.
            return


def _values(shape: inspect.Type) -> Iterable[object]:
    match shape:
        case inspect.UnionType(types=types):
            return (value for each in types for value in _values(each))
        case inspect.EnumType(cls=cls):
            return (member.value for member in cls)
        case inspect.LiteralType(values=values):
            return values
        case _:
            return ()


def _named_field(message: str) -> str:
    found = re.search(r"field `([^`]+)`", message)
    return found.group(1) if found else ""
