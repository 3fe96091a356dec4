r"""HTTP/1.1 as bytes: rendering heads, reading response heads, finding where a body ends.

Request heads are read by httptools in `net`; what is here serves the other direction. Bodies are forwarded as they
come, so the end is found by counting; looking for ``0\\r\\n\\r\\n`` would be fooled by a body that contains it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Final, Protocol

import msgspec

from swarmesh.core.errors import EngineError

HEAD_BYTES_MAX: Final = 16 * 1024
CHUNK_LINE_BYTES_MAX: Final = 1024
HEADS_KEPT: Final = 512

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)

UNTIL_CLOSE: Final = -1
CHUNKED: Final = -2
"""In place of a length: the body ends with the connection, or with its last chunk."""
BODILESS: Final = frozenset({*range(100, 200), 204, 304})

REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


def status_line(status: int) -> bytes:
    """``HTTP/1.1 404 Not Found`` with its line end."""
    return b"HTTP/1.1 %d %s\r\n" % (status, REASONS.get(status, b"Unknown"))


def render_head(first_line: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A head with its blank line; names and values must have been validated by whoever made them."""
    return first_line + b"".join([b"%s: %s\r\n" % header for header in headers]) + b"\r\n"


def request_head(method: bytes, target: bytes, headers: Headers) -> bytes:
    """A request head with its blank line."""
    return render_head(b"%s %s HTTP/1.1\r\n" % (method, target), headers)


class Framer(Protocol):
    """Finds the end of one body."""

    def feed(self, data: bytes, payload: list[bytes] | None = None) -> int:
        """Count ``data``; the index just past the body's end in it, or -1 when more must come.

        ``payload``, when given, receives the body without its framing.

        Raises:
            EngineError: The framing is broken.
        """


class LengthFramer:
    """A body of a length that was announced."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, data: bytes, payload: list[bytes] | None = None) -> int:
        """See `Framer`."""
        size = len(data)
        if size < self._left:
            self._left -= size
            if payload is not None:
                payload.append(data)
            return -1
        end, self._left = self._left, 0
        if payload is not None:
            payload.append(data[:end])
        return end


class ChunkedFramer:
    """A body in chunks (RFC 9112 section 7.1); trailers are passed over."""

    __slots__ = ("_in_trailers", "_left", "_line")

    def __init__(self) -> None:
        self._left = 0  # Bytes to come of the present chunk, its line end included.
        self._line = b""
        self._in_trailers = False

    def feed(self, data: bytes, payload: list[bytes] | None = None) -> int:
        """See `Framer`."""
        position, size = 0, len(data)
        while position < size:
            if self._left:
                step = min(self._left, size - position)
                if payload is not None and self._left > 2:
                    payload.append(data[position : position + min(step, self._left - 2)])
                self._left -= step
                position += step
                continue
            line_end = data.find(b"\n", position)
            line = self._line + data[position : line_end if line_end >= 0 else size]
            if len(line) > CHUNK_LINE_BYTES_MAX:
                raise EngineError(f"a chunk line is longer than {CHUNK_LINE_BYTES_MAX} bytes")
            if line_end < 0:
                self._line = line
                return -1
            line, self._line = line.rstrip(b"\r"), b""
            position = line_end + 1
            if self._take_line(line):
                return position
        return -1

    def _take_line(self, line: bytes) -> bool:
        if self._in_trailers:
            return not line
        size = parse_hex(line.partition(b";")[0].strip())
        if size:
            self._left = size + 2
        else:
            self._in_trailers = True
        return False


class CloseFramer:
    """A body that lasts until the connection is closed."""

    __slots__ = ()

    def feed(self, data: bytes, payload: list[bytes] | None = None) -> int:
        """See `Framer`; never finds an end."""
        if payload is not None:
            payload.append(data)
        return -1


def parse_hex(text: bytes) -> int:
    """A chunk size; ``int(x, 16)`` alone would also take signs, blanks and underscores."""
    if not text or len(text) > 15 or text.strip(b"0123456789abcdefABCDEF"):
        raise EngineError(f"{text[:32]!r} is no chunk size")
    return int(text, 16)


class ResponseHead(msgspec.Struct, frozen=True):
    """The head of a response. Immutable, so that equal heads can be one object.

    Attributes:
        raw: The head as it came, without its blank line.
        headers: Names in lower case, in order.
        length: Bytes of the body, or `CHUNKED`, or `UNTIL_CLOSE`.
        keep_alive: The connection can be used again.
        hop_by_hop: It has headers (or a version) that are nobody's business beyond this connection, its framing apart.
    """

    raw: bytes
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    length: int
    keep_alive: bool
    hop_by_hop: bool

    @property
    def chunked(self) -> bool:
        """The body comes in chunks."""
        return self.length == CHUNKED

    @property
    def until_close(self) -> bool:
        """The body ends with the connection, which therefore cannot be used again."""
        return self.length == UNTIL_CLOSE

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, by its name in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def framer(self) -> Framer | None:
        """A new framer for the body; None when there is none. Whoever reads the payload has one of its own."""
        if self.length == CHUNKED:
            return ChunkedFramer()
        if self.length == UNTIL_CLOSE:
            return CloseFramer()
        return LengthFramer(self.length) if self.length else None


@lru_cache(maxsize=HEADS_KEPT)
def parse_response_head(raw: bytes) -> ResponseHead:
    """Read a head without its blank line. Engines repeat themselves, so the last heads are remembered.

    Raises:
        EngineError: It is not HTTP/1.x, or does not say clearly where the body ends.
    """
    lines = raw.split(b"\r\n")
    version, status = _status(lines[0])
    if not raw.count(b"\n") == raw.count(b"\r") == len(lines) - 1 or b"\0" in raw:
        raise EngineError("a head has control characters in it")  # It is passed on as it came.
    headers: Headers = []
    keep_alive = version != b"HTTP/1.0"
    length, hop_by_hop = UNTIL_CLOSE, version != b"HTTP/1.1"
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise EngineError(f"{line[:64]!r} is no header")
        name, value = name.lower(), value.strip()
        headers.append((name, value))
        if name == b"content-length":
            length = _agreed(length, _content_length(value))
        elif name == b"transfer-encoding":
            length = _agreed(length, CHUNKED if value.lower().endswith(b"chunked") else UNTIL_CLOSE)
        elif name in HOP_BY_HOP:
            hop_by_hop = True
            if name == b"connection":
                keep_alive = b"close" not in value.lower()
    if status in BODILESS:
        length = 0
    return ResponseHead(raw, status, tuple(headers), length, keep_alive and length != UNTIL_CLOSE, hop_by_hop)


def _status(line: bytes) -> tuple[bytes, int]:
    version, _, rest = line.partition(b" ")
    code = rest.partition(b" ")[0]
    if not version.startswith(b"HTTP/1.") or not code.isdigit() or len(code) != 3:
        raise EngineError(f"{line[:64]!r} is no status line")
    return version, int(code)


def _agreed(before: int, said: int) -> int:
    # Whoever reads the answer after us may believe the other of the two, and take the rest for an answer of its own.
    if before not in {UNTIL_CLOSE, said}:
        raise EngineError("a head gives its body two lengths")
    return said


def _content_length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 15:
        raise EngineError(f"content-length {value[:32]!r} is no number")
    return int(value)
