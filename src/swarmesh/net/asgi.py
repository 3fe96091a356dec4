"""An ordinary ASGI application behind the same port and connections as the relay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from swarmesh.net.exchange import Exchange
from swarmesh.wire.http1 import HOP_BY_HOP, Headers, render_head, status_line

Message = MutableMapping[str, Any]
AsgiApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class AsgiBridge:
    """Runs an ASGI app for exchanges; each gets a task of its own, kept until it is done.

    Args:
        app: The application; it must answer its own exceptions (as Starlette does).
        on_error: Told of an exception that escaped it.
    """

    def __init__(self, app: AsgiApp, on_error: Callable[[BaseException], None]) -> None:
        self._app = app
        self._on_error = on_error
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, exchange: Exchange, state: dict[str, Any]) -> None:
        """Answer one exchange. ``state`` reaches the app as ``request.state``."""
        task = asyncio.get_running_loop().create_task(self._run(_AsgiCycle(exchange), state))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)

    async def _run(self, cycle: _AsgiCycle, state: dict[str, Any]) -> None:
        try:
            await self._app(cycle.scope(state), cycle.receive, cycle.send)
        finally:
            cycle.close()


class _AsgiCycle:
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._body_given = False
        self._gone = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._head: tuple[int, Headers] | None = None
        self._chunked = False
        self._sent_whole = False
        exchange.on_abort = self._aborted
        exchange.on_pause = self._paused

    def scope(self, state: dict[str, Any]) -> Message:
        request = self._exchange.request
        return {
            "type": "http",
            # Not 2.4, where `send` raises when the client has left: a stream ends by http.disconnect here.
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.0" if request.http_1_0 else "1.1",
            "method": request.method,
            "scheme": "http",
            "path": unquote_to_bytes(request.path).decode("utf-8", "replace"),
            "raw_path": request.path,
            "query_string": request.query,
            "root_path": "",
            "headers": request.headers,
            "client": None,
            "server": None,
            "state": state,
        }

    async def receive(self) -> Message:
        if not self._body_given:
            self._body_given = True
            return {"type": "http.request", "body": self._exchange.request.body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = (message["status"], [h for h in message["headers"] if h[0] not in HOP_BY_HOP])
            return
        body, more = bytes(message.get("body", b"")), bool(message.get("more_body", False))
        data = self._head_bytes(body, more=more) + self._framed(body, more=more)
        self._exchange.write(data)
        if not more:
            self._finish()
        elif self._gone.is_set():
            await asyncio.sleep(0)  # So that a stream which never waits can be cancelled.
        elif not self._writable.is_set():
            await self._writable.wait()

    def close(self) -> None:
        """The app has returned; an answer it left unfinished is cut, never passed off as whole."""
        if not self._sent_whole:
            self._exchange.finish(keep_alive=False)

    def _finish(self) -> None:
        self._sent_whole = True
        closes = self._exchange.request.http_1_0 and self._chunked
        self._exchange.finish(keep_alive=not closes)

    def _head_bytes(self, body: bytes, *, more: bool) -> bytes:
        if self._head is None:
            return b""
        (status, headers), self._head = self._head, None
        headers = list(headers)
        request = self._exchange.request
        if not any(name == b"content-length" for name, _ in headers) and status not in {204, 304}:
            if not more:
                headers.append((b"content-length", b"%d" % len(body)))
            else:
                self._chunked = True
                if not request.http_1_0:
                    headers.append((b"transfer-encoding", b"chunked"))
        if not request.keep_alive:
            headers.append((b"connection", b"close"))
        return render_head(status_line(status), headers)

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        if self._exchange.request.method == "HEAD":
            return b""
        if not self._chunked or self._exchange.request.http_1_0:
            return body
        chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
        return chunk if more else chunk + b"0\r\n\r\n"

    def _aborted(self) -> None:
        self._gone.set()
        self._writable.set()

    def _paused(self, paused: bool) -> None:  # noqa: FBT001 - the two states of one signal
        if paused:
            self._writable.clear()
        else:
            self._writable.set()
