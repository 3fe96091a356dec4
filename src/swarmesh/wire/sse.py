"""Server-sent events: rendering, and reading them from any cut of the byte stream.

A token's ids travel in a comment line, ``: t 101,2045``, and the counts of a whole answer in another one, see
`swarmesh.wire.token_counts`. Every SSE client ignores comments, so the queen forwards the bytes untouched and can still
resume by token ids.
"""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.core.errors import EngineError
from swarmesh.wire.token_counts import LINE, TokenCounts, read_line

EVENT_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest event that is read; an engine that sends more without a blank line is broken."""
PING: Final = b": ping\n"
"""A comment with no blank line after it: that would end an event, and a client that has seen an ``id`` before may take
an event without data for one that it cannot read."""
WAITING: Final = b": waiting: "
"""Begins the comment that says what a stream waits for before its first event."""
DIGITS_MAX: Final = 18
"""Of a sequence number or token id; what has more is none."""
DONE_MARK: Final = b"[DONE]"


class SseEvent(msgspec.Struct, frozen=True):
    """One event. ``name`` is empty for OpenAI's streams; ``token_ids`` and ``counts`` come from comment lines."""

    data: bytes
    name: str = ""
    seq: int | None = None
    token_ids: tuple[int, ...] = ()
    counts: TokenCounts | None = None


def waiting_line(words: str) -> bytes:
    """A comment that says what the stream waits for, as `PING` with no blank line after it."""
    return b"%s%s\n" % (WAITING, " ".join(words.split()).encode())


def render(event: SseEvent) -> bytes:
    """The event as bytes; its data must be one line, as JSON is."""
    assert b"\n" not in event.data, "data of one event is one line"
    lines = []
    if event.seq is not None:
        lines.append(b"id: %d\n" % event.seq)
    if event.token_ids:
        lines.append(b": t %s\n" % ",".join(map(str, event.token_ids)).encode())
    if event.counts is not None:
        lines.append(event.counts.line())
    if event.name:
        lines.append(b"event: %s\n" % event.name.encode())
    lines.append(b"data: %s\n\n" % event.data)
    return b"".join(lines)


class SseReader:
    """Incremental reader. Comments other than token ids and counts (pings) yield nothing."""

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._event_bytes_max = event_bytes_max

    def feed(self, data: bytes) -> list[SseEvent]:
        """Take bytes in and return the events they complete.

        Raises:
            EngineError: One event is longer than the limit.
        """
        self._buffer += data
        *blocks, rest = bytes(self._buffer).replace(b"\r\n", b"\n").split(b"\n\n")
        if len(rest) > self._event_bytes_max:
            raise EngineError(f"an event of more than {self._event_bytes_max} bytes came without an end")
        self._buffer = bytearray(rest)
        return [event for block in blocks if (event := _read_block(block)) is not None]


def _read_block(block: bytes) -> SseEvent | None:
    data: list[bytes] = []
    name = ""
    seq: int | None = None
    token_ids: tuple[int, ...] = ()
    counts: TokenCounts | None = None
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"id":
            seq = _number(value)
        elif not field and value.startswith(b"t "):
            token_ids = _read_ids(value[2:])
        elif not field and line.startswith(LINE):
            counts = read_line(line)
    if not data and not name:
        return None
    return SseEvent(b"\n".join(data), name, seq, token_ids, counts)


def _read_ids(text: bytes) -> tuple[int, ...]:
    numbers = [_number(part.strip()) for part in text.split(b",")]
    return tuple(number for number in numbers if number is not None) if None not in numbers else ()


def _number(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) <= DIGITS_MAX else None
