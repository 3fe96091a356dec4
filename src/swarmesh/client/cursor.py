"""Where a stream stands, so that a dropped connection is taken up again at the right token.

Touches no socket and no clock: a transport asks what to send, feeds what comes, and says when the connection broke.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from swarmesh.client import routes
from swarmesh.client.call import Call, ConnectionBrokenError, StreamCall
from swarmesh.client.events import Done, Event, Progress, Token, read_event
from swarmesh.core.errors import QueenUnreachableError
from swarmesh.wire.flow import Accepted
from swarmesh.wire.sse import SseReader

RECONNECT_WAIT_S_MAX: Final = 1.0


class Reconnects(msgspec.Struct, frozen=True):
    """How often a stream may be taken up again with no new token between, and how long to wait before.

    The defaults wait for 13.5 s in all, so that a queennode may take ten to come back. More ``times`` outlast a
    longer absence; the price is that a stream whose queennode never returns ends that much later.

    Attributes:
        times: Reconnects in a row; 0 gives up at the first drop.
        first_wait_s: Before the first; each next one waits twice as long, up to `RECONNECT_WAIT_S_MAX`.
    """

    times: int = 16
    first_wait_s: float = 0.1


class StreamCursor:
    """The state of one stream over all its connections.

    Attributes:
        job_id: The task's id; empty until the queen has said it.
        last_seq: Number of the last token that was handed out.
        ended: `Done` was read; nothing more will come.
        on_progress: Told what the task waits for while it does.
    """

    def __init__(self, first: StreamCall, reconnects: Reconnects) -> None:
        self.job_id = first.job_id
        self.last_seq = first.after
        self.ended = False
        self.on_progress: Callable[[Progress], None] = _nobody
        self._next = first.call
        self._repeatable = first.repeatable
        self._was_sent = bool(first.job_id)
        self._reconnects = reconnects
        self._drops = 0
        self._reader = SseReader()

    def connect(self) -> Call[None]:
        """The request of the next connection."""
        self._reader = SseReader()
        return self._next

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes in and return the events they complete, each token once.

        Raises:
            RemoteError: The answer ended in an error.
        """
        return [event for sse in self._reader.feed(data) if (event := self._take(read_event(sse))) is not None]

    @property
    def retrying(self) -> bool:
        """The next connection takes up again what an earlier one could not finish."""
        return self._drops > 0

    def dropped(self, why: QueenUnreachableError) -> float:
        """The connection broke before the end: seconds to wait before the next one.

        Raises:
            QueenUnreachableError: The request never went out, or must not go out twice, or there were too many drops.
        """
        self._was_sent = self._was_sent or isinstance(why, ConnectionBrokenError)
        if not (self._was_sent and self._repeatable):
            raise why
        if self._drops >= self._reconnects.times:
            raise self._given_up(why) from why
        wait_s = min(self._reconnects.first_wait_s * 2.0**self._drops, RECONNECT_WAIT_S_MAX)
        self._drops += 1
        if self.job_id:
            self._next = routes.resume(self.job_id, self.last_seq)
        return wait_s

    def _given_up(self, why: QueenUnreachableError) -> QueenUnreachableError:
        tried = f"{self._drops} reconnects did not help"
        if not self.job_id:
            hint = "'swarmesh nectarflow list' shows whether the task was taken in."
            return QueenUnreachableError(f"{why.message} (before the task's id was known, {tried})", hint=hint)
        hint = f"'swarmesh honeytokens collect --job-id {self.job_id}' gets the rest later."
        return QueenUnreachableError(
            f"{why.message} (the stream of {self.job_id} broke after token {self.last_seq}, {tried})", hint=hint
        )

    def _take(self, event: Token | Done | Accepted | Progress | None) -> Event | None:
        match event:
            case Token(seq=seq):
                if seq is not None:
                    if seq <= self.last_seq:
                        return None
                    self.last_seq = seq
                self._drops = 0
                return event
            case Done():
                self.ended = True
                self.job_id = event.job_id
                return event
            case Accepted():
                self.job_id = event.job_id
                return None
            case Progress():
                self.on_progress(event)
                return None
            case None:
                return None


def _nobody(_progress: Progress) -> None:
    """Progress that nobody wants to hear of."""
