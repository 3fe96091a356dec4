"""Reading a JSON body that nobody vouches for: depth first, then types and ranges, each mistake with its place."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from swarmesh.core.errors import BadInputError, InvalidValueError, MalformedJsonError
from swarmesh.wire.mistake import mistake

JSON_DEPTH_MAX: Final = 64

T = TypeVar("T")

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


def _invalid(said: str, kind: object) -> BadInputError:
    wrong = mistake(said, kind)
    message = f"{wrong.param}: {wrong.words}" if wrong.param else f"the body: {wrong.words}"
    return InvalidValueError(message, hint=wrong.hint, param=wrong.param or None)
