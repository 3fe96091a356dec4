"""What another machine said, as it may be shown, logged and kept: nothing that steers a terminal, and not too long."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from swarmesh.core.errors import SwarmeshError
from swarmesh.wire.errors import ErrorBody, RemoteError
from swarmesh.wire.hosts import Step

MESSAGE_CHARS_MAX: Final = 2_000
HINT_CHARS_MAX: Final = 1_000
STEP_CHARS_MAX: Final = 300
WORD_CHARS_MAX: Final = 64
TAIL_CHARS_MAX: Final = 64 * 1024
UNREADABLE: Final = (msgspec.DecodeError, ValueError, TypeError, IndexError, RecursionError)
"""What reading an answer raises when it is something else than expected; too deeply nested is the last of them."""
UNNAMED: Final = "unexpected_answer"
"""The code of an error whose own code is none; see `swarmesh.wire.errors.remote_error`."""
_STEERING: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_STEERING_BUT_LINES: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]+")
_CODE: Final = re.compile(r"[a-z0-9_]{1,64}")
T = TypeVar("T")


def plain(text: str, chars_max: int = MESSAGE_CHARS_MAX) -> str:
    """The text on one line: control characters become a blank, and what is too much is cut off."""
    clean = _STEERING.sub(" ", text[: 2 * chars_max]).strip()
    return clean if len(clean) <= chars_max else clean[:chars_max] + "\N{HORIZONTAL ELLIPSIS}"


def plain_lines(text: str) -> str:
    """The end of a log: line breaks and tabs stay."""
    return _STEERING_BUT_LINES.sub("", text[-TAIL_CHARS_MAX:].replace("\r\n", "\n"))


def steers(text: str) -> bool:
    """Whether it has control characters."""
    return _STEERING.search(text) is not None


def plain_value(value: T) -> T:
    """The same value with every text in it as `plain` has it; enumerations stay what they are."""
    return _plain_value(value)  # type: ignore[no-any-return]  # each kind becomes the same kind


def plain_step(step: Step) -> Step:
    """A step as it may be shown."""
    return msgspec.structs.replace(step, step=plain(step.step, WORD_CHARS_MAX), text=plain(step.text, STEP_CHARS_MAX))


def plain_error(body: ErrorBody) -> ErrorBody:
    """An error as it may be shown and told apart."""
    return ErrorBody(
        code=body.code if _CODE.fullmatch(body.code) else UNNAMED,
        message=plain(body.message),
        hint=plain(body.hint, HINT_CHARS_MAX),
        type=body.type if _CODE.fullmatch(body.type) else SwarmeshError.type,
        param=None if body.param is None else plain(body.param, WORD_CHARS_MAX),
    )


def told_error(body: ErrorBody, status: int = 0) -> RemoteError:
    """The error that another machine told, to be raised; a status that is none of an error's becomes 502."""
    return RemoteError(plain_error(body), status if 400 <= status <= 599 else 502)


def _plain_value(value: Any) -> Any:
    if type(value) is str:
        return plain(value)
    if isinstance(value, msgspec.Struct):
        fields = {name: _plain_value(getattr(value, name)) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **fields)
    if isinstance(value, list | tuple):
        return type(value)(_plain_value(each) for each in value)
    return value
