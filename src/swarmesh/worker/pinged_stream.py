"""An event stream that is never silent for long: whoever reads it can tell waiting from a lost connection."""

from __future__ import annotations

from typing import Final

from swarmesh.engines.event_stream import EventStream
from swarmesh.net.exchange import Exchange
from swarmesh.wire.sse import PING

PING_INTERVAL_S: Final = 1.0


class PingedStream(EventStream):
    """Sends a comment after each second without bytes, from the beginning of the request on."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        self._timer = self._loop.call_later(PING_INTERVAL_S, self._look)

    def finish(self, last: bytes = b"") -> None:
        """See `EventStream.finish`."""
        self._timer.cancel()
        super().finish(last)

    def cut(self) -> None:
        """See `EventStream.cut`."""
        self._timer.cancel()
        super().cut()

    def stop_pings(self) -> None:
        """The answer will not be a stream, or nobody reads it any more."""
        self._timer.cancel()

    def _look(self) -> None:
        silent_s = self._loop.time() - self.sent_at_s
        if silent_s >= PING_INTERVAL_S and not self.paused:
            self.send(PING)
            silent_s = 0.0
        if not self.exchange.finished:
            self._timer = self._loop.call_later(max(0.01, PING_INTERVAL_S - silent_s), self._look)
