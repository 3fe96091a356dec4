"""Reads an HTTP/1.1 response a router sends and says which bytes of the body came, however they are framed."""

from __future__ import annotations

CRLF = b"\r\n"
MAX_HEAD_BYTES = 16 * 1024
MAX_CHUNK_LINE_BYTES = 64


class WrongAnswerError(Exception):
    """A router answered with something else than the worker sent."""


class ResponseReader:
    """One response, fed as it arrives; the body is handed back without its framing."""

    def __init__(self) -> None:
        self.done = False
        self._buffer = b""
        self._in_body = False
        self._body_left: int | None = None  # None: chunked
        self._chunk_left = 0
        self._chunk_ends = False

    def feed(self, data: bytes) -> bytes:
        """The body bytes in ``data``; raises WrongAnswerError where the response is not a 200 in good form."""
        if self.done:
            raise WrongAnswerError(f"bytes after the end of the response: {data[:80]!r}")
        if not self._in_body:
            data = self._buffer + data
            head_end = data.find(b"\r\n\r\n") + 4
            if head_end == 3:
                self._buffer = data
                if len(data) > MAX_HEAD_BYTES:
                    raise WrongAnswerError(f"no end of the head in {len(data)} bytes")
                return b""
            self._begin_body(data[:head_end], data[head_end:])
            data, self._buffer = data[head_end:], b""
        return self._take_chunked(data) if self._body_left is None else self._take_counted(data)

    def _begin_body(self, head: bytes, rest: bytes) -> None:
        lower = head.lower()
        if not lower.startswith(b"http/1.1 200"):
            status_line = head[: head.find(CRLF)]
            raise WrongAnswerError(f"{status_line!r} {rest[:300]!r}")
        self._in_body = True
        length_at = lower.find(b"\r\ncontent-length:")
        if length_at >= 0:
            self._body_left = int(lower[length_at + 17 : lower.find(b"\r\n", length_at + 17)])
        elif b"\r\ntransfer-encoding: chunked\r\n" not in lower:
            raise WrongAnswerError(f"neither a length nor chunks: {head!r}")

    def _take_counted(self, data: bytes) -> bytes:
        assert self._body_left is not None
        if len(data) > self._body_left:
            raise WrongAnswerError(f"{len(data) - self._body_left} bytes more than content-length")
        self._body_left -= len(data)
        self.done = self._body_left == 0
        return data

    def _take_chunked(self, data: bytes) -> bytes:
        data, self._buffer = self._buffer + data, b""
        parts = []
        at = 0
        while not self.done:
            if self._chunk_left:
                part = data[at : at + self._chunk_left]
                parts.append(part)
                at += len(part)
                self._chunk_left -= len(part)
                if self._chunk_left:
                    break
                self._chunk_ends = True
            begin = self._chunk_begin(data, at)
            if begin < 0:
                self._buffer = data[at:]
                break
            at = begin
        if self.done and at < len(data):
            raise WrongAnswerError(f"bytes after the last chunk: {data[at : at + 80]!r}")
        return b"".join(parts)

    def _chunk_begin(self, data: bytes, at: int) -> int:
        """Where the next chunk's bytes begin in ``data``, or -1 when its size line is not complete yet."""
        line_at = at + 2 if self._chunk_ends else at
        if self._chunk_ends and not data.startswith(CRLF, at):
            if len(data) - at < 2:
                return -1
            raise WrongAnswerError(f"a chunk does not end where its size says: {data[at : at + 80]!r}")
        line_end = data.find(CRLF, line_at)
        if line_end < 0:
            if len(data) - line_at > MAX_CHUNK_LINE_BYTES:
                raise WrongAnswerError(f"no chunk size in {data[line_at : line_at + 80]!r}")
            return -1
        size = int(data[line_at:line_end].partition(b";")[0], 16)
        if size == 0:
            if not data.startswith(CRLF, line_end + 2):
                return -1
            self.done = True
            return line_end + 4
        self._chunk_left, self._chunk_ends = size, False
        return line_end + 2
