"""The server side of HTTP/1.1: strict, bounded, one protocol object per connection and no task per request."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

import httptools
import msgspec

from swarmesh.core.errors import BadInputError, BodyTooLargeError, HeadTooLargeError, RequestTimeoutError, SwarmeshError
from swarmesh.net.exchange import Exchange
from swarmesh.net.outbox import Outbox
from swarmesh.net.request import Request
from swarmesh.wire.http1 import HEAD_BYTES_MAX, Headers

Application = Callable[[Exchange], None]

PIPELINED_MAX: Final = 8
"""Requests of one connection that may wait for the one before; then its reading pauses."""
BACKLOG: Final = 1_024
SWEEP_INTERVAL_S: Final = 1.0
LINGER_S: Final = 2.0
"""How long a refused client's bytes are still taken and dropped; closing at once would reset the answer away."""


class Limits(msgspec.Struct, frozen=True):
    """What one client may cost; bytes and seconds. The head's limit holds for a chunked body's trailers too."""

    head_bytes_max: int = HEAD_BYTES_MAX
    body_bytes_max: int = 10 * 1024 * 1024
    receive_timeout_s: float = 10.0
    idle_timeout_s: float = 120.0


class HttpServer:
    """Connections of one listening socket, with the clock that bounds their waiting.

    Args:
        gathers_writes: See `swarmesh.net.outbox`.
    """

    def __init__(self, application: Application, limits: Limits | None = None, *, gathers_writes: bool = False) -> None:
        self.application = application
        self.limits = limits or Limits()
        self.connections: set[ServerConnection] = set()
        self.outbox = Outbox(gathers=gathers_writes)
        self._loop = asyncio.get_running_loop()
        self._sweep: asyncio.TimerHandle | None = None
        self._bound: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    async def bind(self, host: str, port: int) -> None:
        """Take a TCP address; who connects waits until `listen`.

        Raises:
            OSError: The address cannot be bound.
        """
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            where = (address[0], port or (self.port if self._bound else 0))
            self._bound.append(socket.create_server(where, family=family, backlog=BACKLOG))

    async def listen(self, *, host: str = "", port: int = 0, path: str = "") -> None:
        """Serve on a unix socket (``path``), or on TCP: on the address that was bound, else on this one.

        Raises:
            OSError: The address cannot be bound.
        """
        if path:
            self._servers.append(await self._loop.create_unix_server(self._connection, path))
        elif not self._bound:
            await self.bind(host, port)
        for bound in self._bound:
            self._servers.append(await self._loop.create_server(self._connection, sock=bound, backlog=BACKLOG))
        self._sweep = self._loop.call_later(SWEEP_INTERVAL_S, self._look_at_waiting)

    @property
    def port(self) -> int:
        """The TCP port that was bound."""
        assert self._bound, "the server has an address"
        return int(self._bound[0].getsockname()[1])

    def stop_listening(self) -> None:
        """Take no new connections; those that are open go on."""
        for server in self._servers:
            server.close()
        for bound in self._bound if not self._servers else ():
            bound.close()

    async def close(self) -> None:
        """Close every connection; answers that are not finished are cut."""
        self.stop_listening()
        self.outbox.flush()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self.connections):
            connection.abort()

    def _connection(self) -> ServerConnection:
        return ServerConnection(self)

    def _look_at_waiting(self) -> None:
        now_s = self._loop.time()
        for connection in list(self.connections):
            connection.check_deadlines(now_s)
        self._sweep = self._loop.call_later(SWEEP_INTERVAL_S, self._look_at_waiting)


class ServerConnection(asyncio.Protocol):
    """One client's connection. httptools calls the ``on_*`` methods while it parses."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._limits = server.limits
        self._head_bytes_max = server.limits.head_bytes_max
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._active: Exchange | None = None
        self._waiting: deque[Request] = deque()
        self._refusal: SwarmeshError | None = None
        self._refused = False
        self._over_limit: SwarmeshError | None = None
        self._write_paused = False
        self._since_s = self._loop.time()
        self._start_message()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport; asyncio has set TCP_NODELAY."""
        self._transport = transport  # type: ignore[assignment]  # Both loops hand stream protocols a Transport.
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The client left; whoever answers it is told."""
        self._server.connections.discard(self)
        self._transport = None
        self._waiting.clear()
        active, self._active = self._active, None
        if active is not None:
            active.aborted()

    def data_received(self, data: bytes) -> None:
        """Parse; a head that grows beyond its limit, or is no HTTP, ends the connection with an answer."""
        if self._refusal is not None:
            return
        self._unseen_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Ignoring the offer would be allowed, but the parser has passed over the request's body.
            self._waiting.pop()
            self._refuse(BadInputError("this server does not switch protocols", hint="Send no Upgrade header."))
        except httptools.HttpParserError as error:
            self._refuse(self._over_limit or BadInputError(f"the request is not valid HTTP/1.1: {error}"))
        else:
            if self._head_bytes > self._head_bytes_max or self._unseen_bytes > self._head_bytes_max:
                self._refuse(self._head_too_large())
        self._answer_next()

    def pause_writing(self) -> None:
        """The client reads slowly."""
        self._write_paused = True
        if self._active is not None:
            self._active.writing_paused(True)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._write_paused = False
        if self._active is not None:
            self._active.writing_paused(False)
        self._answer_next()

    # httptools' side

    def on_message_begin(self) -> None:
        """The first byte of a request: from here on its sender has to hurry."""
        self._begun = True
        self._since_s = self._loop.time()

    def on_url(self, url: bytes) -> None:
        """Part of the target, usually all of it."""
        self._target += url
        self._head_bytes += len(url)
        self._unseen_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; trailers are counted and dropped, they came after everything was decided."""
        self._head_bytes += len(name) + len(value) + 4
        self._unseen_bytes = 0
        if not self._in_body:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole; what announces too large a body is refused before it comes."""
        self._in_body = True
        self._http_version = self._parser.get_http_version()
        if self._http_version not in {"1.1", "1.0"}:
            self._stop(BadInputError(f"HTTP/{self._http_version} is not spoken here"))
        if self._head_bytes > self._head_bytes_max:
            self._stop(self._head_too_large())
        expects_continue = False
        for name, value in self._headers:
            if name == b"content-length":
                if int(value) > self._limits.body_bytes_max:
                    self._stop(self._too_large())
            elif name == b"expect":
                expects_continue = expects_continue or value.lower() == b"100-continue"
        if expects_continue and self._active is None and not self._waiting:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A piece of the body, without its framing."""
        self._body_bytes += len(body)
        self._unseen_bytes = 0
        if self._body_bytes > self._limits.body_bytes_max:
            self._stop(self._too_large())
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole; it is answered when the parser has returned, or after the one before."""
        request = Request(self._parser.get_method().decode(), self._target, self._headers)
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request.keep_alive = self._parser.should_keep_alive()
        request.http_1_0 = self._http_version == "1.0"
        self._start_message()
        self._waiting.append(request)
        if len(self._waiting) >= PIPELINED_MAX and self._transport is not None:
            self._transport.pause_reading()

    # the exchange's side

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""
        if self._transport is not None:
            self._server.outbox.write(self._transport, data)

    def exchange_finished(self, *, keep_alive: bool) -> None:
        """The present answer is whole; go on with the next request, or close."""
        self._active = None
        self._since_s = self._loop.time()
        if self._transport is None:
            return
        if self._refused or not keep_alive:
            self._server.outbox.flush()
        if self._refused:
            self._transport.write_eof()
            self._loop.call_later(LINGER_S, self.abort)
        elif not keep_alive:
            self._transport.close()
        elif self._waiting or self._refusal is not None:
            # From the loop, not from here: a pipeline of a thousand answers must not nest a thousand calls.
            self._loop.call_soon(self._answer_next)

    def abort(self) -> None:
        """Close without waiting for what is still to be sent."""
        if self._transport is not None:
            self._transport.abort()

    def check_deadlines(self, now_s: float) -> None:
        """Refuse a request that takes too long to arrive; close a connection nobody uses."""
        if self._active is not None or self._waiting or self._refusal is not None:
            return
        waited_s = now_s - self._since_s
        if self._begun:
            if waited_s > self._limits.receive_timeout_s:
                self._refuse(RequestTimeoutError(f"no whole request within {self._limits.receive_timeout_s:g} s"))
        elif waited_s > self._limits.idle_timeout_s and self._transport is not None:
            self._transport.close()

    # inside

    def _start_message(self) -> None:
        self._target = b""
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0  # Of what httptools has handed on: the target, headers, trailers.
        self._unseen_bytes = 0  # What came since it last handed anything on: an unfinished line.
        self._begun = False
        self._in_body = False

    def _answer_next(self) -> None:
        # Not while the client has the answer before still to read: the next could not be told to wait for it.
        if self._active is not None or self._write_paused or self._transport is None or self._transport.is_closing():
            return
        if self._waiting:
            exchange = Exchange(self._waiting.popleft(), self)
            if len(self._waiting) == PIPELINED_MAX - 1:
                self._transport.resume_reading()
            self._active = exchange
            self._server.application(exchange)
        elif self._refusal is not None and not self._refused:
            self._refused = True
            request = Request("", self._target, [])
            request.keep_alive = False
            self._active = exchange = Exchange(request, self)
            exchange.fail(self._refusal, keep_alive=False)

    def _head_too_large(self) -> HeadTooLargeError:
        return HeadTooLargeError(f"the headers are larger than {self._limits.head_bytes_max} bytes")

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"the body is larger than {self._limits.body_bytes_max} bytes")

    def _stop(self, error: SwarmeshError) -> None:
        # httptools turns whatever is raised in a callback into an error of its own; this one says why.
        self._over_limit = error
        raise error

    def _refuse(self, error: SwarmeshError) -> None:
        # What was asked before is answered first.
        self._refusal = error
        self._answer_next()
