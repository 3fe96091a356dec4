"""From a worker's framing to a client's: usually none at all, bytes pass as they are.

Of an event stream only whole events are passed on. What the client has is then always the end of an event, so that
another worker can go on there, or an error can be told.
"""

from __future__ import annotations

from typing import Final, Protocol

from swarmesh.core.errors import EngineError
from swarmesh.net.request import Request
from swarmesh.wire.http1 import HOP_BY_HOP, ChunkedFramer, Headers, ResponseHead, render_head, status_line
from swarmesh.wire.sse import EVENT_BYTES_MAX, PING

CHUNK_ENDS: Final = (b"\n\n\r\n", b"\n\r\n\r\n", PING + b"\r\n")
"""How an event and its chunk end together; servers that end lines with CRLF end theirs the second way."""
EVENT_ENDS: Final = (b"\n\n", b"\n\r\n", PING)


class Through(Protocol):
    """What a worker's bytes go through: a passage, or a continuation of one."""

    def forward(self, data: bytes, *, ended: bool) -> bytes:
        """The client's bytes for a worker's bytes."""


class Passage(Protocol):
    """How one answer's body goes through.

    Attributes:
        keeps_alive: The client's connection can be used again afterwards.
        is_events: It is an event stream, so another event can follow what was sent.
    """

    keeps_alive: bool
    is_events: bool

    def head(self, head: ResponseHead, extra: bytes) -> bytes:
        """The client's head, with ``extra`` header lines of ours."""

    def forward(self, data: bytes, *, ended: bool) -> bytes:
        """The client's bytes for a worker's bytes.

        Raises:
            EngineError: An event is longer than `EVENT_BYTES_MAX`.
        """

    def drop_rest(self) -> None:
        """Forget the beginning of an event whose end will not come."""

    def events(self, events: bytes) -> bytes:
        """The client's bytes for whole events of ours."""

    def end(self) -> bytes:
        """The client's bytes for the end of events of ours."""

    def payload(self, sent: bytes) -> bytes:
        """The events in bytes that the client was sent."""


def passage_for(head: ResponseHead, request: Request) -> Passage:
    """The cheapest passage that this worker's answer and this client allow."""
    if head.length >= 0:
        return _OF_KNOWN_LENGTH
    if request.http_1_0:
        return UntilClose(head)
    if head.until_close:
        return Chunked(head)
    return AsItIs(is_events=_is_event_stream(head))


class EventGate:
    """Lets bytes through up to the last end of an event, and keeps the rest for the next time."""

    __slots__ = ("_ends", "_held")

    def __init__(self, ends: tuple[bytes, ...]) -> None:
        self._ends = ends
        self._held = b""

    def pass_on(self, data: bytes, *, ended: bool) -> bytes:
        """What may go out now; all of it at the end."""
        if self._held:
            data = self._held + data
            self._held = b""
        if ended or data.endswith(self._ends):
            return data
        cut = max(at + len(end) if (at := data.rfind(end)) >= 0 else 0 for end in self._ends)
        self._held = data[cut:]
        if len(self._held) > EVENT_BYTES_MAX:
            raise EngineError(f"an event of more than {EVENT_BYTES_MAX} bytes came without an end")
        return data[:cut]

    def drop(self) -> None:
        """Forget what is kept."""
        self._held = b""


class AsItIs:
    """Chunked or of known length on both sides: not a byte is touched."""

    __slots__ = ("_gate", "is_events", "keeps_alive")

    def __init__(self, *, is_events: bool) -> None:
        self.keeps_alive = True
        self.is_events = is_events
        self._gate = EventGate(CHUNK_ENDS) if self.is_events else None

    def head(self, head: ResponseHead, extra: bytes) -> bytes:
        """See `Passage`."""
        if not head.hop_by_hop:
            return b"%s\r\n%s\r\n" % (head.raw, extra)
        return _head(head, extra, [h for h in head.headers if h[0] == b"transfer-encoding"])

    def forward(self, data: bytes, *, ended: bool) -> bytes:
        """See `Passage`."""
        return self._gate.pass_on(data, ended=ended) if self._gate is not None else data

    def drop_rest(self) -> None:
        """See `Passage`."""
        if self._gate is not None:
            self._gate.drop()

    def events(self, events: bytes) -> bytes:
        """See `Passage`."""
        return _chunk(events)

    def end(self) -> bytes:
        """See `Passage`."""
        return b"0\r\n\r\n"

    def payload(self, sent: bytes) -> bytes:
        """See `Passage`."""
        return _unchunked(sent)


_OF_KNOWN_LENGTH: Final = AsItIs(is_events=False)
"""One for all: nothing of such an answer is kept or counted."""


class Chunked:
    """The worker ends its answer by closing; the client's connection lives on, so its body goes in chunks."""

    __slots__ = ("_gate", "is_events", "keeps_alive")

    def __init__(self, head: ResponseHead) -> None:
        self.keeps_alive = True
        self.is_events = _is_event_stream(head)
        self._gate = EventGate(EVENT_ENDS)

    def head(self, head: ResponseHead, extra: bytes) -> bytes:
        """See `Passage`."""
        return _head(head, extra, [(b"transfer-encoding", b"chunked")])

    def forward(self, data: bytes, *, ended: bool) -> bytes:
        """See `Passage`."""
        if self.is_events:
            data = self._gate.pass_on(data, ended=ended)
        return _chunk(data) + (b"0\r\n\r\n" if ended else b"")

    def drop_rest(self) -> None:
        """See `Passage`."""
        self._gate.drop()

    def events(self, events: bytes) -> bytes:
        """See `Passage`."""
        return _chunk(events)

    def end(self) -> bytes:
        """See `Passage`."""
        return b"0\r\n\r\n"

    def payload(self, sent: bytes) -> bytes:
        """See `Passage`."""
        return _unchunked(sent)


class UntilClose:
    """The client speaks HTTP/1.0: plain bytes, ended by closing."""

    __slots__ = ("_framer", "_gate", "is_events", "keeps_alive")

    def __init__(self, head: ResponseHead) -> None:
        self.keeps_alive = False
        self.is_events = _is_event_stream(head)
        self._framer = ChunkedFramer() if head.chunked else None
        self._gate = EventGate(EVENT_ENDS)

    def head(self, head: ResponseHead, extra: bytes) -> bytes:
        """See `Passage`."""
        return _head(head, extra, [(b"connection", b"close")])

    def forward(self, data: bytes, *, ended: bool) -> bytes:
        """See `Passage`."""
        if self._framer is not None:
            payload: list[bytes] = []
            self._framer.feed(data, payload)
            data = b"".join(payload)
        return self._gate.pass_on(data, ended=ended) if self.is_events else data

    def drop_rest(self) -> None:
        """See `Passage`."""
        self._gate.drop()

    def events(self, events: bytes) -> bytes:
        """See `Passage`."""
        return events

    def end(self) -> bytes:
        """See `Passage`."""
        return b""

    def payload(self, sent: bytes) -> bytes:
        """See `Passage`."""
        return sent


def _head(head: ResponseHead, extra: bytes, framing: Headers) -> bytes:
    kept = [header for header in head.headers if header[0] not in HOP_BY_HOP]
    return render_head(status_line(head.status) + extra, kept + framing)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def _unchunked(sent: bytes) -> bytes:
    payload: list[bytes] = []
    ChunkedFramer().feed(sent, payload)
    return b"".join(payload)


def _is_event_stream(head: ResponseHead) -> bool:
    return (head.header(b"content-type") or b"").startswith(b"text/event-stream")
