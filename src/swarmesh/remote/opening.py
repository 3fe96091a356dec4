"""The first line of a connection, and the home it speaks of."""

from __future__ import annotations

import os
import re
import select
from pathlib import Path
from typing import Final

import msgspec

from swarmesh.config.home import Home
from swarmesh.core.errors import InvalidValueError
from swarmesh.wire.session import Opening

OPENING_BYTES_MAX: Final = 64 * 1024
HIVE_ID: Final = re.compile(r"[0-9a-f]{12}")


def read_opening(source: int, silence_limit_s: float) -> Opening:
    """Read one line and not a byte more: what follows belongs to whoever the line is for.

    Raises:
        InvalidValueError: Nothing comes, it does not end, or it is no opening.
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        if len(line) >= OPENING_BYTES_MAX:
            raise InvalidValueError(f"the first line is longer than {OPENING_BYTES_MAX:,} bytes")
        if not select.select([source], [], [], silence_limit_s)[0]:
            raise InvalidValueError(f"no first line came within {silence_limit_s:g} s")
        byte = os.read(source, 1)
        if not byte:
            raise InvalidValueError(f"the connection ended after {len(line)} bytes of its first line")
        line += byte
    try:
        return msgspec.json.decode(line, type=Opening)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidValueError(f"the first line is no opening: {error}") from error


def hive_home(opening: Opening) -> Home:
    """The hive's own home on this machine.

    Raises:
        InvalidValueError: It is no hive's id, which goes into a path here.
    """
    if not HIVE_ID.fullmatch(opening.hive):
        raise InvalidValueError(f"{opening.hive!r} is no id of a hive", param="hive")
    return Home(Path.home() / ".swarmesh" / "hives" / opening.hive)
