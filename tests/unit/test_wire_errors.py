"""The envelope: what one process writes another reads back."""

from __future__ import annotations

import json

import pytest

from swarmesh.core import errors
from swarmesh.core.errors import InvalidValueError, SwarmeshError
from swarmesh.wire.errors import envelope, remote_error


def every_kind() -> list[type[SwarmeshError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SwarmeshError)]
    assert len(found) > 20
    return found


@pytest.mark.parametrize("kind", every_kind())
def test_every_error_goes_there_and_back(kind: type[SwarmeshError]) -> None:
    error = kind("what was wrong", hint="what to do", param="where")
    shown = json.loads(envelope(error))
    assert list(shown) == ["error"]
    assert list(shown["error"]) == ["code", "message", "hint", "type", "param"]
    back = remote_error(kind.status, envelope(error))
    assert (back.code, back.message, back.hint, back.param, back.type, back.status) == (
        kind.code,
        "what was wrong",
        "what to do",
        "where",
        kind.type,
        kind.status,
    )


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in every_kind()]
    assert len(codes) == len(set(codes))


def test_the_docstring_is_the_default_message() -> None:
    assert InvalidValueError().message == "A field has a value outside its range."


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", "HTTP 502, saying 'nothing'"),
        (b"<html>bad gateway</html>", "HTTP 502, saying '<html>bad gateway</html>'"),
        (b'{"error": "short"}', "HTTP 502, saying"),
        (b'{"error": {"message": "no code"}}', "HTTP 502, saying"),
        (b"[1, 2]", "HTTP 502, saying '[1, 2]'"),
        (b"\xff\xfe", "HTTP 502, saying"),
        (b'{"error": {"code": "\xff"}}', "HTTP 502, saying"),
        (b"x" * 10_000, "x" * 200 + "'"),
    ],
)
def test_an_answer_that_is_no_envelope_is_quoted(body: bytes, shown: str) -> None:
    error = remote_error(502, body)
    assert (error.code, error.status) == ("unexpected_answer", 502)
    assert shown in error.message
    assert len(error.message) < 300


def test_an_envelope_with_more_or_less_in_it_is_read() -> None:
    error = remote_error(429, b'{"error": {"code": "c", "message": "m", "extra": 1}, "more": 2}')
    assert (error.code, error.message, error.hint, error.param) == ("c", "m", "", None)
