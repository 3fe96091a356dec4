"""What somebody else said, an engine perhaps, as a part of one of our sentences."""

from __future__ import annotations

from typing import Final

CHARS_MAX: Final = 300


def clause(said: str) -> str:
    """In one line, without a full stop, of `CHARS_MAX` characters or a little more; dots are where lines ended."""
    lines = filter(None, (line.strip() for line in said.splitlines()))
    joined = " ... ".join(lines).rstrip(" .")
    return joined if len(joined) <= CHARS_MAX else f"{joined[:CHARS_MAX].rstrip(' .')} ..."
