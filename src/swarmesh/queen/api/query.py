"""What several routes take in their query strings, each with its range."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from swarmesh.core.errors import InvalidValueError

GRACE_S_DEFAULT: Final = 30.0
GRACE_S_MAX: Final = 3600.0
_TRUTHS: Final = {"true": True, "1": True, "false": False, "0": False}


def grace_s(request: Request) -> float:
    """Seconds that running tasks get to end by themselves.

    Raises:
        InvalidValueError: It is no number, or out of range.
    """
    text = request.query_params.get("grace_s")
    if text is None:
        return GRACE_S_DEFAULT
    try:
        grace = float(text)
    except ValueError:
        grace = -1.0
    if not 0 <= grace <= GRACE_S_MAX:
        raise InvalidValueError(f"grace_s is {text!r}; it is 0 to {GRACE_S_MAX:g} seconds", param="grace_s")
    return grace


def truth(request: Request, name: str) -> bool:
    """Yes or no; no when it is not said.

    Raises:
        InvalidValueError: It is neither.
    """
    text = request.query_params.get(name, "false")
    if text not in _TRUTHS:
        raise InvalidValueError(f"{name} is {text!r}; it is true or false", param=name)
    return _TRUTHS[text]
