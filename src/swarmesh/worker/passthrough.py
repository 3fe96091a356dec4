"""OpenAI's routes: the request goes to the engine as it came, the answer comes back as the engine gives it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final

from swarmesh.core.errors import EngineError, SwarmeshError, TaskRefusedError
from swarmesh.engines.engine import EngineDoor
from swarmesh.engines.errors import EngineDiedError
from swarmesh.engines.openai_dialect import TEXT_TARGETS, OpenAiDialect, read_ask
from swarmesh.engines.refusal import engine_error
from swarmesh.net.exchange import Exchange
from swarmesh.net.upstream import UpstreamCall, UpstreamPool
from swarmesh.wire.errors import envelope
from swarmesh.wire.http1 import ChunkedFramer, Headers, ResponseHead, render_head, request_head, status_line
from swarmesh.wire.resume import Resume
from swarmesh.wire.sse import SseEvent, render
from swarmesh.worker.answer_stream import AnswerStream
from swarmesh.worker.meter import Meter

ERROR_BODY_BYTES_MAX: Final = 64 * 1024
PASSED_HEADERS: Final = frozenset({b"content-type", b"content-length", b"transfer-encoding"})
"""Of the engine's answer; the rest is between the engine and the agent."""

Why = Callable[[], Awaitable[str]]


async def died() -> str:
    """Why an engine ended of which nothing more is known."""
    return EngineDiedError.code


class Passthrough:
    """One request on its way; a `swarmesh.net.upstream.Sink`.

    Bytes are passed on as they come, with two exceptions. A stream of events is made an `AnswerStream`, whose head may
    be sent before the engine's. An error gets our envelope, in an event when the head is out.

    Args:
        ended: Called once when it is over.
        why: Tells the code of an engine's end, soon after it. A stream that breaks off says it in a comment.

    Raises:
        BadInputError: The request has a resume point that cannot be followed.
    """

    def __init__(self, exchange: Exchange, meter: Meter, ended: Callable[[Passthrough], None], why: Why = died) -> None:
        self._exchange = exchange
        self._meter = meter
        self._ended = ended
        self._why = why
        self._loop = asyncio.get_running_loop()
        self._ask = read_ask(exchange.request.body)
        self._is_text = exchange.request.path in TEXT_TARGETS
        self._call: UpstreamCall | None = None
        self._task: asyncio.Task[None] | None = None
        self._head: ResponseHead | None = None
        self._stream = self._answer_stream() if self._ask.stream else None
        self._framer = ChunkedFramer()
        self._error_body = b""
        self._closed = False

    def start(self, pool: UpstreamPool, door: EngineDoor) -> None:
        """Send the request to the engine."""
        self._meter.busy += 1
        self._exchange.on_abort = self.cancel
        self._exchange.on_pause = self._paused
        resume, dialect, body = self._ask.swarmesh_resume, door.dialect, self._exchange.request.body
        if dialect is not None and self._stream is not None and self._is_text:
            if resume is not None:
                self._begin(self._resume(self._stream, dialect, resume))
                return
            tapped = dialect.tap(body, self._ask)
            if tapped is not None:
                body, self._stream.tap = tapped
                self._stream.on_lookup = self._regulate
        self._call = pool.request(_payload(self._exchange, door, body), self)

    def cancel(self) -> None:
        """End it now: the engine's slot is freed, and a client that is still there can tell that its answer is cut."""
        if self._call is not None:
            self._call.cancel()
        if self._task is not None:
            self._task.cancel()
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
            if self._stream is not None:
                self._stream.stop()
            data = render_head(status_line(head.status), [h for h in head.headers if h[0] in PASSED_HEADERS]) + data
        self._exchange.write(data)
        if ended:
            self._close(good=True)
            self._exchange.finish(keep_alive=self._head is not None and not self._head.until_close)

    def _pass_events(self, stream: AnswerStream, data: bytes, *, ended: bool) -> None:
        payload: list[bytes] = []
        self._framer.feed(data, payload)
        try:
            stream.feed(b"".join(payload))
        except SwarmeshError as error:
            self._end(error)
            return
        if ended:
            self._call = None
            stream.end()

    def _answer_stream(self) -> AnswerStream:
        resume = self._ask.swarmesh_resume
        return AnswerStream(
            self._exchange,
            last_seq=resume.last_seq if resume is not None else 0,
            choices=self._ask.choices if self._is_text else 0,
            passed=self._count,
            over=self._over,
        )

    def _count(self, events: int) -> None:
        self._meter.tokens(self._loop.time(), events)

    def _over(self, error: SwarmeshError | None) -> None:
        if error is None:
            self._close(good=True)
        else:
            self._end(error)

    async def _resume(self, stream: AnswerStream, dialect: OpenAiDialect, resume: Resume) -> None:
        request = self._exchange.request
        try:
            async with aclosing(dialect.resume(request.path, request.body, resume)) as events:
                async for event in events:
                    stream.put(event)
                    await stream.writable()
            stream.end()
        except SwarmeshError as error:
            self._end(error)

    def _take_error(self, head: ResponseHead, data: bytes, *, ended: bool) -> None:
        if head.chunked:
            payload: list[bytes] = []
            self._framer.feed(data, payload)
            data = b"".join(payload)
        self._error_body = (self._error_body + data)[:ERROR_BODY_BYTES_MAX]
        if ended:
            self._end(engine_error(head.status, self._error_body))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self._loop.create_task(work)
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "an answer failed", "exception": error, "task": task})
            self._end(EngineError("the agent could not go on with this answer; its log says why"))

    def _end(self, error: SwarmeshError) -> None:
        if self._call is not None:
            self._call.cancel()
        if self._stream is not None:
            self._stream.stop()
        if isinstance(error, EngineDiedError):
            self._begin(self._tell(error))
            return
        self._close(good=None if isinstance(error, TaskRefusedError) else False)
        if not self._exchange.started:
            self._exchange.fail(error)
        elif self._stream is not None:
            # The client has a 200 already; OpenAI's clients take an event with an error in it for what it is.
            self._stream.finish(render(SseEvent(envelope(error), seq=self._stream.next_seq)))
        else:
            self._exchange.finish(keep_alive=False)

    async def _tell(self, error: EngineDiedError) -> None:
        error.code = await self._why()
        self._close(good=False)
        if self._exchange.finished:
            return
        if not self._exchange.started:
            self._exchange.fail(error)
            return
        if self._stream is not None:
            self._stream.send(b": broken %s\n" % error.code.encode())
        self._exchange.finish(keep_alive=False)

    def _paused(self, paused: bool) -> None:  # noqa: FBT001 - the two states of one signal
        if self._stream is not None:
            self._stream.pause(paused)
            self._regulate()
        elif self._call is not None:
            self._call.pause(paused)

    def _regulate(self) -> None:
        if self._call is not None and self._stream is not None:
            self._call.pause(self._stream.paused or self._stream.looking_up)

    def _close(self, *, good: bool | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        if self._stream is not None:
            self._stream.stop()
        self._meter.busy -= 1
        if good is not None:
            self._meter.outcome(self._loop.time(), good=good)
        self._ended(self)


def _is_stream(head: ResponseHead) -> bool:
    named = (head.header(b"content-type") or b"").startswith(b"text/event-stream")
    return named and head.chunked


def _payload(exchange: Exchange, door: EngineDoor, body: bytes) -> bytes:
    request = exchange.request
    headers: Headers = [(b"host", door.address.authority), *door.headers]
    headers.append((b"content-type", request.header(b"content-type") or b"application/json"))
    if body:
        headers.append((b"content-length", b"%d" % len(body)))
    return request_head(request.method.encode(), request.target, headers) + body
