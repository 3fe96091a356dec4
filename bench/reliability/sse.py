"""Reading server-sent events the way a stranger would: by the standard, sharing no code with what is under test."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

READ_BYTES: Final = 65_536
ANSWER_S_MAX: Final = 300.0
"""Pings keep a stream open for as long as its task waits; a reader that waits longer measures nothing."""


@dataclass(frozen=True)
class Event:
    """One event. ``token_ids`` are those of the comment line ``: t 1,2``, which a browser would pass over."""

    data: str
    name: str = ""
    seq: int | None = None
    token_ids: tuple[int, ...] = ()


def events_of(response: http.client.HTTPResponse) -> Iterator[Event]:
    """The events of an answer as they arrive.

    Raises:
        OSError: The connection broke, was silent for longer than its timeout, or is still open after `ANSWER_S_MAX`.
        http.client.HTTPException: The body ended before its end mark.
        UnicodeDecodeError: An event is not UTF-8.
    """
    buffer = b""
    give_up_s = time.monotonic() + ANSWER_S_MAX
    while data := response.read1(READ_BYTES):
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"the stream did not end within {ANSWER_S_MAX:g} s")
        *blocks, buffer = (buffer + data).split(b"\n\n")
        for block in blocks:
            event = _event(block.decode("utf-8"))
            if event is not None:
                yield event
    if buffer:
        raise http.client.IncompleteRead(buffer)


def _event(block: str) -> Event | None:
    data: list[str] = []
    name, seq = "", None
    token_ids: tuple[int, ...] = ()
    for line in block.split("\n"):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "data":
                data.append(value)
            case "event":
                name = value
            case "id":
                seq = int(value)
            case "" if value.startswith("t "):
                token_ids = tuple(int(number) for number in value[2:].split(","))
    return Event("\n".join(data), name, seq, token_ids) if data else None
