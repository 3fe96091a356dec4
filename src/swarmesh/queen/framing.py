"""From a worker's framing to a client's: usually none at all, bytes pass as they are."""

from __future__ import annotations

from typing import Protocol

from swarmesh.net.request import Request
from swarmesh.wire.http1 import HOP_BY_HOP, ChunkedFramer, Headers, ResponseHead, render_head, status_line


class Passage(Protocol):
    """How one answer's body goes through.

    Attributes:
        keeps_alive: The client's connection can be used again afterwards.
        can_tell: It is an event stream at the end of an event, so another event can follow.
    """

    keeps_alive: bool

    @property
    def can_tell(self) -> bool:
        """See the class."""

    def head(self, head: ResponseHead, extra: bytes) -> bytes:
        """The client's head, with ``extra`` header lines of ours."""

    def forward(self, data: bytes, *, ended: bool) -> bytes:
        """The client's bytes for a worker's bytes."""

    def tell(self, event: bytes) -> bytes:
        """A last event of our own, and the end."""


def passage_for(head: ResponseHead, request: Request) -> Passage:
    """The cheapest passage that this worker's answer and this client allow."""
    if request.http_1_0 and not head.chunked:
        return AsItIs(head) if not head.until_close else UntilClose(head)
    if request.http_1_0:
        return UntilClose(head)
    if head.until_close:
        return Chunked(head)
    return AsItIs(head)


class AsItIs:
    """Chunked or of known length on both sides: not a byte is touched."""

    __slots__ = ("_events", "_tail", "keeps_alive")

    def __init__(self, head: ResponseHead) -> None:
        self.keeps_alive = True
        self._events = head.chunked and _is_event_stream(head)
        self._tail = b""

    @property
    def can_tell(self) -> bool:
        """See `Passage`: true when the last bytes ended an event and its chunk together, as our agents send them."""
        return self._events and (not self._tail or self._tail.endswith(b"\n\n\r\n"))

    def head(self, head: ResponseHead, extra: bytes) -> bytes:
        """See `Passage`."""
        if not head.hop_by_hop:
            return b"%s\r\n%s\r\n" % (head.raw, extra)
        return _head(head, extra, [h for h in head.headers if h[0] == b"transfer-encoding"])

    def forward(self, data: bytes, *, ended: bool) -> bytes:  # noqa: ARG002 - the worker's own end mark is in data
        """See `Passage`."""
        if data:
            self._tail = data[-4:] if len(data) > 3 else (self._tail + data)[-4:]
        return data

    def tell(self, event: bytes) -> bytes:
        """See `Passage`."""
        return _chunk(event) + b"0\r\n\r\n"


class Chunked:
    """The worker ends its answer by closing; the client's connection lives on, so its body goes in chunks."""

    __slots__ = ("_events", "_tail", "keeps_alive")

    def __init__(self, head: ResponseHead) -> None:
        self.keeps_alive = True
        self._events = _is_event_stream(head)
        self._tail = b""

    @property
    def can_tell(self) -> bool:
        """See `Passage`."""
        return self._events and (not self._tail or self._tail.endswith(b"\n\n"))

    def head(self, head: ResponseHead, extra: bytes) -> bytes:
        """See `Passage`."""
        return _head(head, extra, [(b"transfer-encoding", b"chunked")])

    def forward(self, data: bytes, *, ended: bool) -> bytes:
        """See `Passage`."""
        if data:
            self._tail = (self._tail + data[-2:])[-2:]
        return _chunk(data) + (b"0\r\n\r\n" if ended else b"")

    def tell(self, event: bytes) -> bytes:
        """See `Passage`."""
        return _chunk(event) + b"0\r\n\r\n"


class UntilClose:
    """The client speaks HTTP/1.0: plain bytes, ended by closing."""

    __slots__ = ("_events", "_framer", "_tail", "keeps_alive")

    def __init__(self, head: ResponseHead) -> None:
        self.keeps_alive = False
        self._events = _is_event_stream(head)
        self._framer = ChunkedFramer() if head.chunked else None
        self._tail = b""

    @property
    def can_tell(self) -> bool:
        """See `Passage`."""
        return self._events and (not self._tail or self._tail.endswith(b"\n\n"))

    def head(self, head: ResponseHead, extra: bytes) -> bytes:
        """See `Passage`."""
        return _head(head, extra, [(b"connection", b"close")])

    def forward(self, data: bytes, *, ended: bool) -> bytes:  # noqa: ARG002 - the end is the close
        """See `Passage`."""
        if self._framer is not None:
            payload: list[bytes] = []
            self._framer.feed(data, payload)
            data = b"".join(payload)
        if data:
            self._tail = (self._tail + data[-2:])[-2:]
        return data

    def tell(self, event: bytes) -> bytes:
        """See `Passage`."""
        return event


def _head(head: ResponseHead, extra: bytes, framing: Headers) -> bytes:
    kept = [header for header in head.headers if header[0] not in HOP_BY_HOP]
    return render_head(status_line(head.status) + extra, kept + framing)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def _is_event_stream(head: ResponseHead) -> bool:
    return (head.header(b"content-type") or b"").startswith(b"text/event-stream")
