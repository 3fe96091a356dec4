"""Stands for the client's exchange towards the relay where an answer is not to go to the client as it is."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Final, Protocol

import msgspec

from swarmesh.core.errors import EngineError, SwarmeshError
from swarmesh.net.exchange import Exchange
from swarmesh.net.request import Request
from swarmesh.wire.http1 import HEAD_BYTES_MAX, HOP_BY_HOP, Framer, Headers, ResponseHead, parse_response_head
from swarmesh.wire.sse import SseReader

FRAMING: Final = HOP_BY_HOP | {b"content-length"}
"""Headers that say how one answer is sent, and nothing about another."""
UNREADABLE: Final = (EngineError, msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class AnswerOwner(Protocol):
    """Who makes the client's answer out of what the relay writes.

    Attributes:
        paused: The client reads too slowly.
    """

    paused: bool

    def began(self, part: Any, head: ResponseHead) -> None:
        """The head is there."""

    def received(self, part: Any, payload: bytes) -> None:
        """Bytes of the body, without their framing; what it raises of `UNREADABLE` fails the answer."""

    def ended(self, part: Any) -> None:
        """The relay has finished it, whole or not."""

    def fail(self, error: SwarmeshError, part: Any) -> None:
        """It cannot be read."""


class AnswerExchange(Exchange):
    """Reads the HTTP answer that is written to it.

    Attributes:
        head: Of the answer, once it is there.
        is_streamed: The answer is a stream of events.
        whole: Its body has come to its end.
        events: Reads the body of a stream.
        body: For the body of anything else.
    """

    __slots__ = ("_framer", "_owner", "_unread", "body", "events", "head", "is_streamed", "whole")

    def __init__(self, owner: AnswerOwner, request: Request) -> None:
        # A client of HTTP/1.1 in any case: its answers say where they end, whatever the real client speaks.
        self.request = Request(request.method, request.target, request.headers)
        self.on_abort = self.on_pause = None
        self.started = self.finished = False
        self.head: ResponseHead | None = None
        self.is_streamed = False
        self.whole = False
        self.events = SseReader()
        self.body = bytearray()
        self._owner = owner
        self._framer: Framer | None = None
        self._unread = b""

    def write(self, data: bytes) -> None:
        """See `Exchange.write`."""
        if self.finished or not data:
            return
        self.started = True
        try:
            self._read(data)
        except UNREADABLE as error:
            self._owner.fail(unreadable(error), self)
        if self._owner.paused and not self.finished:
            self.writing_paused(True)  # A stream that began, or went on elsewhere, after the client was called slow.

    def finish(self, *, keep_alive: bool = True) -> None:  # noqa: ARG002 - the framing says whether it is whole
        """See `Exchange.finish`."""
        if not self.finished:
            self.finished = True
            self._owner.ended(self)

    def dismiss(self) -> None:
        """Nobody wants the rest of it; its task is cancelled if it still runs."""
        if self.on_abort is not None:
            self.on_abort()

    def decision_headers(self) -> Headers:
        """Where it went, as the relay told it."""
        return [header for header in self.head.headers if header[0].startswith(b"x-swarmesh-")] if self.head else []

    def _read(self, data: bytes) -> None:
        if self.head is None:
            raw, blank_line, data = (self._unread + data).partition(b"\r\n\r\n")
            if len(raw) > HEAD_BYTES_MAX:
                raise EngineError(f"the head is longer than {HEAD_BYTES_MAX} bytes")
            if not blank_line:
                self._unread = raw
                return
            self._begin(parse_response_head(raw))
        if self._framer is not None and data:
            payload: list[bytes] = []
            self.whole = self._framer.feed(data, payload) >= 0
            self._owner.received(self, b"".join(payload))

    def _begin(self, head: ResponseHead) -> None:
        media_type = head.header(b"content-type") or b""
        self.head = head
        self.is_streamed = head.status < 400 and media_type.startswith(b"text/event-stream")
        self._framer = head.framer()
        self.whole = self._framer is None
        self._unread = b""
        self._owner.began(self, head)


def headers_without(names: Container[bytes], head: ResponseHead) -> Headers:
    """The headers of an answer but these."""
    return [header for header in head.headers if header[0] not in names]


def unreadable(error: Exception) -> EngineError:
    """What the client is told of an answer that cannot be read."""
    return EngineError(f"the rustbee sent what cannot be read: {error}")
