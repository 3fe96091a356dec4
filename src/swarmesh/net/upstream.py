"""The client side of HTTP/1.1: pooled keep-alive connections to one server, bytes handed on as they come."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from swarmesh.core.errors import EngineError, SwarmeshError
from swarmesh.net.address import Address
from swarmesh.net.outbox import Outbox
from swarmesh.wire.http1 import HEAD_BYTES_MAX, Framer, ResponseHead, parse_response_head

CONNECT_TIMEOUT_S: Final = 5.0
IDLE_MAX: Final = 256
"""Idle connections kept per server."""


class Sink(Protocol):
    """Who wants the answer. Called from the loop, never after `received` with ``ended`` or after `broken`."""

    def received(self, head: ResponseHead | None, data: bytes, *, ended: bool) -> None:
        """Bytes of the body, framing included; ``head`` comes exactly once, with the first call."""

    def broken(self, reason: str) -> None:
        """The answer will not be completed."""


class UpstreamPool:
    """Connections to one server. The last one released is used first, so that few stay warm and the rest expire.

    Attributes:
        idle_ttl_s: Idle connections older than this are not used; many servers close theirs after 5 s.
    """

    def __init__(self, address: Address, *, idle_ttl_s: float = 60.0) -> None:
        self.address = address
        self.idle_ttl_s = idle_ttl_s
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self._severed_until_s = 0.0
        self._loop = asyncio.get_running_loop()
        self.outbox = Outbox()

    def request(self, payload: bytes, sink: Sink) -> UpstreamCall:
        """Send a whole request (head and body, in one write) and hand the answer to ``sink``."""
        call = UpstreamCall(self, payload, sink)
        connection = self._take_idle()
        if connection is not None:
            connection.start(call)
        else:
            call.connecting = self._loop.create_task(self._connect(call))
        return call

    def release(self, connection: UpstreamConnection) -> None:
        """Take a connection back whose answer is whole."""
        if len(self._idle) >= IDLE_MAX:
            connection.close()
        else:
            connection.idle_since_s = self._loop.time()
            self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """An idle connection was closed by the server."""
        if connection in self._idle:
            self._idle.remove(connection)

    def retry_fresh(self, call: UpstreamCall) -> None:
        """Send a request again on a new connection: the reused one was closed before a byte of answer came."""
        call.connecting = self._loop.create_task(self._connect(call))

    def sever(self, seconds: float) -> None:
        """Break every connection as a lost network would, and make none for so long."""
        self._severed_until_s = self._loop.time() + seconds
        for connection in list(self._open):
            connection.break_off(self._cut_off)

    def close(self) -> None:
        """Close idle connections; those in use end with their answers."""
        while self._idle:
            self._idle.pop().close()

    def _take_idle(self) -> UpstreamConnection | None:
        idle = self._idle
        if not idle:
            return None
        oldest_s = self._loop.time() - self.idle_ttl_s
        while idle:
            connection = idle.pop()
            if connection.idle_since_s >= oldest_s and connection.usable:
                return connection
            connection.close()
        return None

    async def _connect(self, call: UpstreamCall) -> None:
        if self._is_severed():
            call.fail(self._cut_off)
            return
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if self.address.path:
                    _, connection = await self._loop.create_unix_connection(self._connection, self.address.path)
                else:
                    _, connection = await self._loop.create_connection(
                        self._connection, self.address.host, self.address.port
                    )
        except TimeoutError:
            call.fail(f"{self.address} did not accept a connection within {CONNECT_TIMEOUT_S:g} s")
        except OSError as error:
            call.fail(f"{self.address} cannot be reached: {error.strerror or error}")
        else:
            if self._is_severed():  # Since it was asked for.
                connection.abort()
                call.fail(self._cut_off)
            else:
                connection.start(call)

    def _is_severed(self) -> bool:
        return self._loop.time() < self._severed_until_s

    @property
    def _cut_off(self) -> str:
        return f"{self.address} is cut off for a while"

    def _connection(self) -> UpstreamConnection:
        return UpstreamConnection(self)

    def made(self, connection: UpstreamConnection) -> None:
        """A connection is there."""
        self._open.add(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        """A connection is gone, whoever closed it."""
        self._open.discard(connection)


class UpstreamCall:
    """One request on its way; its owner may cancel it or make it wait."""

    __slots__ = ("_paused", "cancelled", "connecting", "connection", "payload", "pool", "sink")

    def __init__(self, pool: UpstreamPool, payload: bytes, sink: Sink) -> None:
        self.pool = pool
        self.payload = payload
        self.sink = sink
        self.cancelled = False
        self.connecting: asyncio.Task[None] | None = None
        self.connection: UpstreamConnection | None = None
        self._paused = False

    def cancel(self) -> None:
        """Give up: the connection is closed, which tells the server; the sink hears nothing more."""
        self.cancelled = True
        if self.connection is not None:
            self.connection.abort()

    def pause(self, paused: bool) -> None:  # noqa: FBT001 - the two states of one signal
        """Stop reading the answer, or go on."""
        self._paused = paused
        if self.connection is not None:
            self.connection.pause(paused)

    def attached(self, connection: UpstreamConnection) -> None:
        """The request is being sent on this connection."""
        self.connection = connection
        if self._paused:
            connection.pause(True)

    def fail(self, reason: str) -> None:
        """Tell the sink that no answer will be completed."""
        self.connection = None
        if not self.cancelled:
            self.sink.broken(reason)


class UpstreamConnection(asyncio.Protocol):
    """One connection; at most one call at a time."""

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._call: UpstreamCall | None = None
        self._head: ResponseHead | None = None
        self._framer: Framer | None = None
        self._buffer = b""
        self._reused = False
        self._out_of_step = False
        self.idle_since_s = 0.0

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def start(self, call: UpstreamCall) -> None:
        """Send a call's request."""
        if call.cancelled or self._transport is None:
            self.close()
            call.fail("the connection was closed as it was made")
            return
        self._call = call
        self._head = None
        call.attached(self)
        self._pool.outbox.write(self._transport, call.payload)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport; asyncio has set TCP_NODELAY."""
        self._transport = transport  # type: ignore[assignment]  # Both loops hand stream protocols a Transport.
        self._pool.made(self)

    def data_received(self, data: bytes) -> None:
        """Hand bytes on; find the head once and the end by counting."""
        call = self._call
        if call is None:
            self.abort()  # Bytes nobody asked for: the connection is out of step.
            return
        head: ResponseHead | None = None
        try:
            if self._head is None:
                head, data = self._read_head(data)
                if head is None:
                    return
            if head is not None and len(data) == head.length:
                ended = True  # Most short answers come with their head: there is nothing to count.
            else:
                ended, data = self._read_body(data)
        except SwarmeshError as error:
            self.break_off(error.message)
            return
        if ended:
            self._finish()
        if not call.cancelled:
            call.sink.received(head, data, ended=ended)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server closed; an answer that lasts until the close is whole now, any other is broken."""
        self._transport = None
        self._pool.lost(self)
        call, self._call = self._call, None
        if call is None:
            self._pool.forget(self)
        elif call.cancelled:
            call.connection = None
        elif self._head is not None and self._head.until_close and exc is None:
            call.connection = None
            call.sink.received(None, b"", ended=True)
        elif self._reused and self._head is None and not self._buffer:
            self._pool.retry_fresh(call)
        else:
            call.fail(f"{self._pool.address} closed the connection before the answer was whole")

    def pause(self, paused: bool) -> None:  # noqa: FBT001 - the two states of one signal
        """Stop reading, or go on."""
        if self._transport is not None and not self._transport.is_closing():
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def close(self) -> None:
        """Close; harmless when it is closed."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def break_off(self, reason: str) -> None:
        """Close at once; an answer under way is broken, also one that would be whole when the server closes."""
        call, self._call = self._call, None
        self.abort()
        if call is not None:
            call.fail(reason)

    def _read_head(self, data: bytes) -> tuple[ResponseHead | None, bytes]:
        if self._buffer:
            data = self._buffer + data
        self._buffer = data
        while True:
            head_text, found, rest = self._buffer.partition(b"\r\n\r\n")
            if len(head_text) > HEAD_BYTES_MAX:
                raise EngineError(f"{self._pool.address} sent a head of more than {HEAD_BYTES_MAX} bytes")
            if not found:
                return None, b""
            self._buffer = rest
            head = parse_response_head(head_text)
            if head.status >= 200:
                break  # Interim answers (100 Continue) are nobody's business but ours.
        self._head, self._framer, self._buffer = head, None, b""
        if len(rest) != head.length:
            self._framer = head.framer()
        return head, rest

    def _read_body(self, data: bytes) -> tuple[bool, bytes]:
        assert self._head is not None, "the head comes before the body"
        end = self._framer.feed(data) if self._framer is not None else 0
        if end < 0:
            return False, data
        self._out_of_step = end < len(data)  # More than an answer: the next one could be read out of it.
        return True, data[:end]

    def _finish(self) -> None:
        assert self._head is not None, "an answer that ended had a head"
        call, self._call = self._call, None
        if call is not None:
            call.connection = None
        self._reused = True
        transport = self._transport
        is_open = transport is not None and not transport.is_closing()
        if is_open and self._head.keep_alive and not self._out_of_step:
            self._pool.release(self)
        else:
            self.close()
