"""Server-sent events to one client."""

from __future__ import annotations

from typing import Final

from swarmesh.net.exchange import Exchange
from swarmesh.wire.http1 import Headers, render_head, status_line

EVENT_STREAM_HEADERS: Final[Headers] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """The answer to one exchange as events. What is sent goes out at once; nothing is batched."""

    def __init__(self, exchange: Exchange, headers: Headers | None = None) -> None:
        self._exchange = exchange
        self._chunked = not exchange.request.http_1_0
        framing = (b"transfer-encoding", b"chunked") if self._chunked else (b"connection", b"close")
        exchange.write(render_head(status_line(200), [*EVENT_STREAM_HEADERS, framing, *(headers or [])]))

    def send(self, events: bytes) -> None:
        """Send one or more whole events (or a comment)."""
        self._exchange.write(b"%x\r\n%s\r\n" % (len(events), events) if self._chunked else events)

    def end(self) -> None:
        """The stream is whole."""
        if self._chunked:
            self._exchange.write(b"0\r\n\r\n")
        self._exchange.finish(keep_alive=self._chunked)

    def cut(self) -> None:
        """The stream ends here though it is not whole; no client takes that for an end."""
        self._exchange.finish(keep_alive=False)
