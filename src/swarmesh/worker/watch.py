"""``GET /watch``: an endless stream of pings by which a living agent is told from a silent one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from swarmesh.net.exchange import Exchange
from swarmesh.wire.sse import PING
from swarmesh.worker.errors import NotReadyError, OverloadedError
from swarmesh.worker.pinged_stream import PingedStream

WATCHERS_MAX: Final = 64
"""A queen needs one, and one more while she is replaced."""


class Watches:
    """The open ones. They are no work: nothing here counts as busy.

    Args:
        report_now: Called when one has come, who may have held this rustbee for dead, and when one has left.
    """

    def __init__(self, report_now: Callable[[], None]) -> None:
        self._report_now = report_now
        self._streams: set[PingedStream] = set()
        self._ended = False

    def open(self, exchange: Exchange) -> None:
        """Begin one; its first ping is sent at once, so that its beginning is no guess.

        Raises:
            NotReadyError: The agent ends.
            OverloadedError: There are as many as there may be.
        """
        if self._ended:
            raise NotReadyError("this rustbee ends; there is nothing to watch any more")
        if len(self._streams) >= WATCHERS_MAX:
            raise OverloadedError(f"{WATCHERS_MAX} watch this rustbee already", retry_after_s=1)
        stream = PingedStream(exchange)
        self._streams.add(stream)
        exchange.on_abort = lambda: self._left(stream)
        stream.send(PING)
        self._report_now()

    def end(self) -> None:
        """The agent ends: say so to all who watch, and take no more."""
        self._ended = True
        for stream in list(self._streams):
            stream.finish()
        self._streams.clear()

    def _left(self, stream: PingedStream) -> None:
        stream.stop_pings()
        self._streams.discard(stream)
        self._report_now()
