"""An answer of server-sent events on one exchange, in chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from swarmesh.net.exchange import Exchange
from swarmesh.wire.http1 import Headers, render_head, status_line

LAST_CHUNK: Final = b"0\r\n\r\n"
HEADERS: Final[Headers] = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"transfer-encoding", b"chunked"),
]


class EventStream:
    """Begins with the first bytes sent, so that a failure before them can still be a proper error answer.

    Attributes:
        sent_at_s: Loop time of the last bytes.
        paused: The client reads too slowly; what is sent is kept in memory until it has caught up.
        on_resume: Called when the client has caught up.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._loop = asyncio.get_running_loop()
        self._resumed = asyncio.Event()
        self.sent_at_s = self._loop.time()
        self.paused = False
        self.on_resume: Callable[[], None] | None = None
        exchange.on_pause = self.pause

    def send(self, data: bytes) -> None:
        """Send whole events at once; harmless when the client has left."""
        self.exchange.write(b"%s%x\r\n%s\r\n" % (self._head(), len(data), data))
        self.sent_at_s = self._loop.time()

    def finish(self, last: bytes = b"") -> None:
        """The answer is whole, with these events at its end; they and the end go out in one write."""
        chunk = b"%x\r\n%s\r\n" % (len(last), last) if last else b""
        self.exchange.write(self._head() + chunk + LAST_CHUNK)
        self.exchange.finish()

    def cut(self) -> None:
        """Close the connection without the end mark: what was sent is not the whole answer."""
        self.exchange.finish(keep_alive=False)

    async def writable(self) -> None:
        """Wait until a slow client has caught up; one that has left cancels whoever waits."""
        while self.paused and not self.exchange.finished:
            self._resumed.clear()
            await self._resumed.wait()

    def _head(self) -> bytes:
        return b"" if self.exchange.started else render_head(status_line(200), HEADERS)

    def pause(self, paused: bool) -> None:  # noqa: FBT001 - the two states of one signal
        """The client reads too slowly, or has caught up."""
        self.paused = paused
        if not paused:
            self._resumed.set()
            if self.on_resume is not None:
                self.on_resume()
