"""Answers of low priority that are wanted whole: streamed below, so that what is written is kept when they must wait.

A task that may lose its slot, or its worker, must not begin anew each time. Of a stream it is known what it has said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

from swarmesh.core.errors import EngineError, RustbeeLostError, SwarmeshError
from swarmesh.net.exchange import Exchange
from swarmesh.queen.answer_exchange import FRAMING, AnswerExchange, headers_without
from swarmesh.wire.errors import remote_error
from swarmesh.wire.http1 import ResponseHead
from swarmesh.wire.openai import ChatRequest, Sampling, StreamOptions
from swarmesh.wire.transcript import Transcript
from swarmesh.wire.whole_answer import whole_answer

COLLECTED_BYTES_MAX: Final = 64 * 1024 * 1024
EVENT_STREAM: Final = frozenset({b"content-type", b"cache-control"})

R = TypeVar("R", bound=Sampling)


class Collected(Generic[R]):
    """One such answer; see `swarmesh.queen.answer_exchange.AnswerOwner`.

    Attributes:
        paused: Never: nothing is sent before all of it is there.
    """

    def __init__(self, exchange: Exchange, request: R) -> None:
        self.paused = False
        self._exchange = exchange
        self._request = request
        self._part = AnswerExchange(self, exchange.request)
        self._transcript = Transcript()
        self._collected_bytes = 0
        exchange.on_abort = self._part.aborted

    def begin(self, run: Callable[[Exchange, R], None]) -> None:
        """Hand an exchange of ours, and the request as a stream, to ``run``."""
        options = StreamOptions(include_usage=True)
        run(self._part, msgspec.structs.replace(self._request, stream=True, stream_options=options))

    def began(self, part: AnswerExchange, head: ResponseHead) -> None:
        """See `AnswerOwner`: nothing is told before all is there."""

    def received(self, part: AnswerExchange, payload: bytes) -> None:
        """See `AnswerOwner`.

        Raises:
            EngineError: It is more than is taken, or cannot be read.
            SwarmeshError: The error that the stream ended in.
        """
        self._collected_bytes += len(payload)
        if self._collected_bytes > COLLECTED_BYTES_MAX:
            raise EngineError(f"the answer is more than {COLLECTED_BYTES_MAX} bytes")
        if not part.is_streamed:
            part.body += payload
            return
        for event in part.events.feed(payload):
            if event.data.startswith(b'{"error"'):
                self.fail(remote_error(EngineError.status, event.data), part)
                return
            self._transcript.add(event)

    def ended(self, part: AnswerExchange) -> None:
        """See `AnswerOwner`."""
        if self._exchange.finished:
            return
        if part.head is None or not part.whole:
            self.fail(RustbeeLostError("the answer was cut short"), part)
        elif not part.is_streamed:
            self._exchange.respond(part.head.status, bytes(part.body), headers_without(FRAMING, part.head))
        elif not self._transcript.is_finished:
            self.fail(RustbeeLostError("the answer has no end"), part)
        else:
            answer = whole_answer(self._transcript, chat=isinstance(self._request, ChatRequest))
            headers = headers_without(FRAMING | EVENT_STREAM, part.head)
            body = msgspec.json.encode(answer)
            self._exchange.respond(200, body, [*headers, (b"content-type", b"application/json")])

    def fail(self, error: SwarmeshError, part: AnswerExchange) -> None:
        """See `AnswerOwner`."""
        if self._exchange.finished:
            return
        self._exchange.on_abort = None
        self._exchange.fail(error, part.decision_headers())
        # Its relay is in the middle of a call of ours; cancelled under its hands it would have to expect that.
        part.finished = True
        asyncio.get_running_loop().call_soon(part.dismiss)
