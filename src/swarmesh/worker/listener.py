"""One reader of a task's events."""

from __future__ import annotations

from collections.abc import Callable

from swarmesh.core.errors import ConflictError, TaskRefusedError
from swarmesh.net.exchange import Exchange
from swarmesh.worker.pinged_stream import PingedStream
from swarmesh.worker.token_log import TaskRecord


class Listener:
    """Sends a record's events on one exchange, from a number on until the end.

    Args:
        after: The number before the first event that is wanted; the record has to have it.
        changed: Called when the reader has caught up or has left.
    """

    def __init__(
        self, exchange: Exchange, record: TaskRecord, after: int, changed: Callable[[], None] | None = None
    ) -> None:
        self._record = record
        self._seq = after
        self._changed = changed or _nobody
        self._stream = PingedStream(exchange)
        self._stream.on_resume = self._resumed
        exchange.on_abort = self._aborted
        record.listeners.append(self.pump)

    @property
    def paused(self) -> bool:
        """It reads more slowly than events come."""
        return self._stream.paused

    @property
    def gone(self) -> bool:
        """It has got everything, or has left."""
        return self._stream.exchange.finished

    def pump(self) -> None:
        """Send what is there and was not sent; at the end, end the answer as the task ended."""
        if self.paused or self.gone:
            return
        error, started = self._record.error, self._stream.exchange.started
        if error is not None and not started and self._record.last_seq == self._seq + 1:
            self._leave()
            self._stream.exchange.fail(error)
            return
        try:
            events = self._record.after(self._seq)
        except ConflictError:
            self._cut()  # A reader so slow that events it needs are forgotten: what it got is not whole.
            self._changed()
            return
        if events:
            self._seq = self._record.last_seq
            self._stream.send(b"".join(events))
        if self._record.ended and not self.paused:
            self._end()

    def _end(self) -> None:
        if self._record.error is None or isinstance(self._record.error, TaskRefusedError):
            self._leave()
            self._stream.finish()
        else:
            self._cut()

    def _cut(self) -> None:
        self._leave()
        self._stream.cut()

    def _resumed(self) -> None:
        self.pump()
        self._changed()

    def _aborted(self) -> None:
        self._leave()
        self._changed()

    def _leave(self) -> None:
        self._stream.stop_pings()
        self._record.listeners.remove(self.pump)


def _nobody() -> None:
    """A record that has ended runs nobody who would want to know."""
