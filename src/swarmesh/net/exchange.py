"""One request and its answer on a client's connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from swarmesh.core.errors import SwarmeshError
from swarmesh.net.request import Request
from swarmesh.wire.errors import envelope
from swarmesh.wire.http1 import Headers, render_head, status_line

if TYPE_CHECKING:
    from swarmesh.net.server import ServerConnection


class Exchange:
    """What an application answers with. All methods return at once; nothing here awaits.

    Attributes:
        on_abort: Called once when the client leaves before `finish`.
        on_pause: Called with True when the client reads too slowly, with False when it has caught up.
        started: Bytes of the answer have been sent.
        finished: Nothing more can be sent: the answer is whole, or the client has left.
    """

    __slots__ = ("_connection", "finished", "on_abort", "on_pause", "request", "started")

    def __init__(self, request: Request, connection: ServerConnection) -> None:
        self.request = request
        self._connection = connection
        self.on_abort: Callable[[], None] | None = None
        self.on_pause: Callable[[bool], None] | None = None
        self.started = False
        self.finished = False

    def write(self, data: bytes) -> None:
        """Send bytes of the answer, its head included, as they are; harmless when the client has left."""
        if not self.finished and data:
            self.started = True
            self._connection.write(data)

    def finish(self, *, keep_alive: bool = True) -> None:
        """The answer is whole. ``keep_alive=False`` closes the connection, which also says: it is cut short."""
        if not self.finished:
            self.finished = True
            self._connection.exchange_finished(keep_alive=keep_alive and self.request.keep_alive)

    def respond(self, status: int, body: bytes, headers: Headers, *, keep_alive: bool = True) -> None:
        """Send a whole answer in one write."""
        keep_alive = keep_alive and self.request.keep_alive
        all_headers = [*headers, (b"content-length", b"%d" % len(body))]
        if not keep_alive:
            all_headers.append((b"connection", b"close"))
        shown = b"" if self.request.method == "HEAD" else body
        self.write(render_head(status_line(status), all_headers) + shown)
        self.finish(keep_alive=keep_alive)

    def respond_json(self, status: int, body: bytes, *, keep_alive: bool = True) -> None:
        """Send a whole JSON answer."""
        self.respond(status, body, [(b"content-type", b"application/json")], keep_alive=keep_alive)

    def fail(self, error: SwarmeshError, headers: Headers | None = None, *, keep_alive: bool = True) -> None:
        """Answer with an error's envelope and status; only before anything was sent."""
        assert not self.started, "an answer that has begun cannot change its status"
        all_headers: Headers = [(b"content-type", b"application/json"), *(headers or [])]
        if error.retry_after_s is not None:
            all_headers.append((b"retry-after", b"%d" % error.retry_after_s))
        if error.status == 401:
            all_headers.append((b"www-authenticate", b"Bearer"))
        self.respond(error.status, envelope(error), all_headers, keep_alive=keep_alive)

    def aborted(self) -> None:
        """The connection is lost (called by the connection)."""
        if not self.finished:
            self.finished = True
            if self.on_abort is not None:
                self.on_abort()

    def writing_paused(self, paused: bool) -> None:  # noqa: FBT001 - the two states of one signal
        """The client's buffer is full, or empty again (called by the connection)."""
        if self.on_pause is not None:
            self.on_pause(paused)
