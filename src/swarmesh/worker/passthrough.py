"""OpenAI's routes: the request goes to the engine as it came, the answer comes back as the engine gives it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from swarmesh.core.errors import SwarmeshError, TaskRefusedError
from swarmesh.engines.engine import EngineDoor
from swarmesh.engines.errors import EngineDiedError
from swarmesh.engines.refusal import engine_error
from swarmesh.net.exchange import Exchange
from swarmesh.net.upstream import UpstreamCall, UpstreamPool
from swarmesh.wire.errors import envelope
from swarmesh.wire.http1 import ChunkedFramer, Headers, ResponseHead, render_head, request_head, status_line
from swarmesh.wire.sse import SseEvent, render
from swarmesh.worker.meter import Meter
from swarmesh.worker.pinged_stream import PingedStream
from swarmesh.worker.sse_numbering import SseNumbering

ERROR_BODY_BYTES_MAX: Final = 64 * 1024
PASSED_HEADERS: Final = frozenset({b"content-type", b"content-length", b"transfer-encoding"})
"""Of the engine's answer; the rest is between the engine and the agent."""


class _Wish(msgspec.Struct, frozen=True):
    stream: bool = False


class Passthrough:
    """One request on its way; a `swarmesh.net.upstream.Sink`.

    Bytes are passed on as they come, with two exceptions. A stream of events is numbered and, from the first second
    on, pinged: its head is then sent before the engine's. An error gets our envelope, in an event when the head is out.
    """

    def __init__(self, exchange: Exchange, meter: Meter, ended: Callable[[Passthrough], None]) -> None:
        self._exchange = exchange
        self._meter = meter
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._call: UpstreamCall | None = None
        self._head: ResponseHead | None = None
        self._stream = PingedStream(exchange) if _wants_stream(exchange.request.body) else None
        self._numbering = SseNumbering()
        self._framer = ChunkedFramer()
        self._error_body = b""
        self._closed = False

    def start(self, pool: UpstreamPool, door: EngineDoor) -> None:
        """Send the request to the engine."""
        self._meter.busy += 1
        self._exchange.on_abort = self.cancel
        self._exchange.on_pause = self._paused
        self._call = pool.request(_payload(self._exchange, door), self)

    def cancel(self) -> None:
        """End it now: the engine's slot is freed, and a client that is still there can tell that its answer is cut."""
        if self._call is not None:
            self._call.cancel()
        self._close()
        self._exchange.finish(keep_alive=False)

    def received(self, head: ResponseHead | None, data: bytes, *, ended: bool) -> None:
        """See `swarmesh.net.upstream.Sink`."""
        self._head = self._head or head
        assert self._head is not None, "the head comes first"
        if self._head.status >= 400:
            self._take_error(self._head, data, ended=ended)
        elif self._stream is not None and _is_stream(self._head):
            self._pass_events(self._stream, data, ended=ended)
        elif self._stream is not None and self._stream.exchange.started:
            self.broken("it answered with something else than events")
        else:
            self._pass(head, data, ended=ended)

    def broken(self, reason: str) -> None:
        """See `swarmesh.net.upstream.Sink`: what was sent is not whole, and the client must be able to tell."""
        self._end(EngineDiedError(f"the engine broke off: {reason}"))

    def _pass(self, head: ResponseHead | None, data: bytes, *, ended: bool) -> None:
        if head is not None:
            self._stop_pings()
            data = render_head(status_line(head.status), [h for h in head.headers if h[0] in PASSED_HEADERS]) + data
        self._exchange.write(data)
        if ended:
            self._close(good=True)
            self._exchange.finish(keep_alive=self._head is not None and not self._head.until_close)

    def _pass_events(self, stream: PingedStream, data: bytes, *, ended: bool) -> None:
        payload: list[bytes] = []
        self._framer.feed(data, payload)
        before = self._numbering.seq
        try:
            events = self._numbering.feed(b"".join(payload))
        except SwarmeshError as error:
            self._end(error)
            return
        if events:
            self._meter.tokens(self._loop.time(), self._numbering.seq - before)
            stream.send(events)
        if ended:
            self._close(good=True)
            stream.finish()

    def _take_error(self, head: ResponseHead, data: bytes, *, ended: bool) -> None:
        if head.chunked:
            payload: list[bytes] = []
            self._framer.feed(data, payload)
            data = b"".join(payload)
        self._error_body = (self._error_body + data)[:ERROR_BODY_BYTES_MAX]
        if ended:
            self._end(engine_error(head.status, self._error_body))

    def _end(self, error: SwarmeshError) -> None:
        if self._call is not None:
            self._call.cancel()
        tasks_fault = isinstance(error, TaskRefusedError)
        self._close(good=None if tasks_fault else False)
        if not self._exchange.started:
            self._exchange.fail(error)
        elif self._stream is not None and not isinstance(error, EngineDiedError):
            # The client has a 200 already; OpenAI's clients take an event with an error in it for what it is.
            self._stream.send(render(SseEvent(envelope(error), seq=self._numbering.seq + 1)))
            self._stream.finish()
        else:
            self._exchange.finish(keep_alive=False)

    def _paused(self, paused: bool) -> None:  # noqa: FBT001 - the two states of one signal
        if self._stream is not None:
            self._stream.paused = paused
        if self._call is not None:
            self._call.pause(paused)

    def _stop_pings(self) -> None:
        if self._stream is not None:
            self._stream.stop_pings()

    def _close(self, *, good: bool | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        self._stop_pings()
        self._meter.busy -= 1
        if good is not None:
            self._meter.outcome(self._loop.time(), good=good)
        self._ended(self)


def _wants_stream(body: bytes) -> bool:
    try:
        return msgspec.json.decode(body, type=_Wish).stream
    except msgspec.DecodeError:
        return False


def _is_stream(head: ResponseHead) -> bool:
    named = (head.header(b"content-type") or b"").startswith(b"text/event-stream")
    return named and head.chunked


def _payload(exchange: Exchange, door: EngineDoor) -> bytes:
    request = exchange.request
    headers: Headers = [(b"host", door.address.authority), *door.headers]
    headers.append((b"content-type", request.header(b"content-type") or b"application/json"))
    if request.body:
        headers.append((b"content-length", b"%d" % len(request.body)))
    return request_head(request.method.encode(), request.target, headers) + request.body
