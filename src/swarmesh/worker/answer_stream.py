"""An engine's OpenAI stream on its way to the queen: numbered, with its token ids, and with an end that means it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from swarmesh.core.errors import EngineError, SwarmeshError
from swarmesh.engines.errors import EngineDiedError
from swarmesh.engines.openai_dialect import Tap, Tapped
from swarmesh.net.exchange import Exchange
from swarmesh.wire.sse import DONE_MARK, EVENT_BYTES_MAX, SseEvent
from swarmesh.wire.token_counts import LINE, NOT_TOLD, TAIL_BYTES, told_at_end
from swarmesh.worker.pinged_stream import PingedStream
from swarmesh.worker.sse_numbering import SseNumbering

HELD_BYTES_MAX: Final = EVENT_BYTES_MAX
FINISH: Final = b'"finish_reason":"'
"""In a chunk's bytes it says that a choice is whole; within JSON's strings its quotes would be escaped."""
END: Final = b"data: " + DONE_MARK
ERROR: Final = b'data: {"error"'


class AnswerStream(PingedStream):
    """Sends each event as it comes; those from the last ``finish_reason`` on only when the engine's stream is whole.

    So whoever sees a finish reason has the whole answer, and a stream that breaks off before its end shows none of it.
    Before the end mark it tells the tokens of the answer, see `swarmesh.wire.token_counts`.

    Args:
        choices: Finish reasons that an answer of this kind has; 0 when it is none of OpenAI's text answers, which are
            passed on without looking for their end.
        passed: Told how many events went through.
        over: Called once, with None when the answer is whole and finished, else with what is wrong with it.

    Attributes:
        tap: Set before the first bytes are fed, when token ids have to be read out of them.
        looking_up: Ids are being asked for; what is fed waits.
        on_lookup: Called when ``looking_up`` has changed.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        last_seq: int,
        choices: int,
        passed: Callable[[int], None],
        over: Callable[[SwarmeshError | None], None],
    ) -> None:
        super().__init__(exchange)
        self._numbering = SseNumbering(last_seq)
        self._is_text = choices > 0
        self._open_choices = choices
        self._passed = passed
        self._over = over
        self._waiting: deque[bytes] = deque()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._lookup: asyncio.Task[None] | None = None
        self._marked = False
        self._ended = False
        self.tap: Tap | None = None
        self.on_lookup: Callable[[], None] | None = None

    @property
    def looking_up(self) -> bool:
        """See the class."""
        return self._lookup is not None

    @property
    def next_seq(self) -> int:
        """Number of the next event."""
        return self._numbering.seq + 1

    def feed(self, data: bytes) -> None:
        """Bytes of the engine's stream, in any cut.

        Raises:
            EngineError: An event, or what follows the last finish reason, is longer than may be.
        """
        self._waiting.extend(self._numbering.feed(data))
        if self._lookup is None:
            self._pass()

    def put(self, event: SseEvent) -> None:
        """One event of an answer that is made here. Raises EngineError as `feed` does."""
        sent: list[bytes] = []
        counts = event.counts.line() if event.counts is not None else b""
        self._take(Tapped(b"%sdata: %s" % (counts, event.data), event.token_ids), sent)
        self._send(sent)

    def end(self) -> None:
        """The engine's stream has ended as a whole."""
        self._ended = True
        if self._lookup is None:
            self._finish()

    def stop(self) -> None:
        """Nothing more of it will be sent."""
        self.stop_pings()
        self._waiting.clear()
        if self._lookup is not None:
            self._lookup.cancel()

    def _pass(self) -> None:
        sent: list[bytes] = []
        while self._waiting:
            block = self._waiting.popleft()
            tapped = self.tap.take(block) if self.tap is not None else Tapped(block)
            if tapped.lookup is not None:
                self._lookup = self._loop.create_task(self._look_up(tapped))
                break
            self._take(tapped, sent)
        self._send(sent)

    def _take(self, tapped: Tapped, sent: list[bytes]) -> None:
        block = tapped.block
        if self._is_text and FINISH in block:
            self._open_choices -= block.count(FINISH)
        # An error stands for the end mark: the engine has said all that it will say.
        if _is_end(block):
            self._marked = True
            block = self._counted(block)
        elif block.startswith(ERROR):
            self._marked = True
        event = self._numbering.numbered(block, tapped.token_ids)
        if self._open_choices > 0 or not self._is_text:
            sent.append(event)
            return
        self._held.append(event)
        self._held_bytes += len(event)
        if self._held_bytes > HELD_BYTES_MAX:
            raise EngineError(f"more than {HELD_BYTES_MAX} bytes came after the last finish reason")

    def _counted(self, end: bytes) -> bytes:
        # An engine of ours has said it by itself.
        if not self._is_text or end != END:
            return end
        counts = told_at_end(b"".join(self._held)[-TAIL_BYTES:])
        return end if counts == NOT_TOLD else counts.line() + end

    def _send(self, events: list[bytes]) -> None:
        if events:
            self._passed(len(events))
            self.send(b"".join(events))

    async def _look_up(self, tapped: Tapped) -> None:
        assert tapped.lookup is not None, "only then it is called"
        assert self.tap is not None, "the lookup is its wish"
        self._changed()
        token_ids = await self.tap.look_up(tapped.lookup)
        self._lookup = None
        sent: list[bytes] = []
        try:
            self._take(Tapped(tapped.block, token_ids), sent)
            self._send(sent)
            self._pass()
        except EngineError as error:
            self._over(error)
            return
        if self._lookup is None:
            self._changed()
            if self._ended:
                self._finish()

    def _finish(self) -> None:
        if self._is_text and not self._marked:
            self._over(EngineDiedError("the engine ended its answer without its end mark"))
            return
        self._passed(len(self._held))
        self.finish(b"".join(self._held))
        self._over(None)

    def _changed(self) -> None:
        if self.on_lookup is not None:
            self.on_lookup()


def _is_end(block: bytes) -> bool:
    return block == END or (block.startswith(LINE) and block.endswith(b"\n" + END))
