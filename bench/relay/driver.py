"""The load: raw protocols on uvloop that send requests and compare every byte of every answer.

It must cost less than the router it loads, so an answer framed exactly as the worker framed it is compared in
one call, and only others are parsed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from . import answers
from .responses import ResponseReader, WrongAnswerError

CONNECT_TIMEOUT_S = 30.0
DRAIN_TIMEOUT_S = 30.0

_COMPLETION = answers.completion_body()
_LENGTH = b"\r\ncontent-length: %d\r\n" % len(_COMPLETION)
_NO_HEADERS: dict[str, str] = {}


@dataclass(frozen=True)
class Target:
    """Where the load goes: one router, or all workers directly."""

    addresses: tuple[tuple[str, int], ...]
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, *, chunk_count: int, pace_per_s: int, stream: bool, session: int) -> bytes:
        """One request, head and body, ready to be written."""
        body = answers.request_body(chunk_count=chunk_count, pace_per_s=pace_per_s, stream=stream, session=session)
        lines = [
            "POST /v1/chat/completions HTTP/1.1",
            "host: 127.0.0.1",
            "user-agent: relay-bench",
            "accept: */*",
            "content-type: application/json",
            *(f"{name}: {value}" for name, value in self.headers.items()),
            f"content-length: {len(body)}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Load:
    """What a set of connections has done so far, and whether it is to go on."""

    def __init__(self) -> None:
        self.running = True
        self.answers = 0
        self.chunks = 0
        self.open_streams = 0
        self.first_token_s: list[float] = []
        self.busy = 0
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, why: str) -> None:
        """Ends the measurement: a figure of a router that answers wrongly means nothing."""
        self.running = False
        if not self.failed.done():
            self.failed.set_exception(WrongAnswerError(why))

    async def run_for(self, seconds: float) -> None:
        """Lets the load run, and raises WrongAnswerError as soon as an answer is wrong."""
        await asyncio.wait([self.failed], timeout=seconds)
        if self.failed.done():
            self.failed.result()


class Client(asyncio.Protocol):
    """One keep-alive connection that sends its request again as soon as it was answered."""

    def __init__(self, load: Load, request: bytes) -> None:
        self.load = load
        self.request = request
        self.transport: asyncio.Transport
        self._idle = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop; nothing is sent yet."""
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop; within an answer it fails the load."""
        if not self._idle:
            self.load.fail(f"the connection closed within an answer ({exc or 'no error'})")

    def send(self) -> None:
        """Sends the request, or leaves the connection idle once the load is over."""
        if not self._idle:
            self.load.busy -= 1
        self._idle = not self.load.running
        if not self._idle:
            self.load.busy += 1
            self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Called by the loop; a wrong answer fails the load."""
        try:
            self.take(data)
        except (WrongAnswerError, ValueError) as error:
            self._idle = True
            self.load.fail(str(error))
            self.transport.abort()

    def take(self, data: bytes) -> None:
        """Compares the bytes that came with those that had to come; raises WrongAnswerError."""
        raise WrongAnswerError(f"unexpected bytes: {data[:80]!r}")


class CompletionClient(Client):
    """Non-stream requests, one after the other."""

    def __init__(self, load: Load, request: bytes) -> None:
        super().__init__(load, request)
        self._reader: ResponseReader | None = None
        self._body = b""

    def take(self, data: bytes) -> None:
        """Compares a whole answer in one go, or parses one that comes in parts or in chunks."""
        if self._reader is None:
            body_at = len(data) - len(_COMPLETION)
            if (
                data.endswith(_COMPLETION)
                and data.find(b"\r\n\r\n") == body_at - 4
                and data.startswith(b"HTTP/1.1 200")
                and _LENGTH in data[:body_at].lower()
            ):
                self._answered()
                return
            self._reader = ResponseReader()
        self._body += self._reader.feed(data)
        if self._reader.done:
            if self._body != _COMPLETION:
                raise WrongAnswerError(f"another body than the worker's: {self._body[:300]!r}")
            self._reader, self._body = None, b""
            self._answered()

    def _answered(self) -> None:
        self.load.answers += 1
        self.send()


class StreamClient(Client):
    """Streams of a fixed number of chunks, one after the other, compared as they come."""

    def __init__(self, load: Load, request: bytes, chunk_count: int) -> None:
        super().__init__(load, request)
        self._payload = answers.stream_payload(chunk_count)
        self._framed = answers.stream_framed(chunk_count)
        self._framed_chunk_bytes = len(answers.frame(answers.event(0)))
        self._chunk_count = chunk_count
        self.begin()

    def begin(self) -> None:
        """Forgets the last stream."""
        self._reader: ResponseReader | None = None
        self._head = b""
        self._framed_at = 0
        self._payload_at = 0
        self._chunks = 0
        self._started_s = 0.0

    def send(self) -> None:
        """Sends the request; the time to the first token runs from here."""
        self.begin()
        self._started_s = time.perf_counter()
        super().send()

    def take(self, data: bytes) -> None:
        """Compares what came with the stream at the place it has reached."""
        if self._reader is None:
            data = self._take_framed(data)
            if self._reader is None:
                return
        self._take_payload(self._reader.feed(data))
        if self._reader.done:
            self._finish(complete=self._payload_at == len(self._payload))

    def _take_framed(self, data: bytes) -> bytes:
        """Compares with the worker's own framing; where it differs, returns all bytes for the parser."""
        if self._framed_at == 0:
            data = self._head + data
            body_at = data.find(b"\r\n\r\n") + 4
            if body_at == 3 or body_at == len(data):
                self._head = data
                return b""
            head, data = data[:body_at], data[body_at:]
            self._head = head
            if not (head.startswith(b"HTTP/1.1 200") and b"chunked" in head.lower()):
                self._reader = ResponseReader()
                return head + data
        if not self._framed.startswith(data, self._framed_at):
            self._reader = ResponseReader()
            return self._head + self._framed[: self._framed_at] + data
        self._framed_at += len(data)
        self._count(min(self._framed_at // self._framed_chunk_bytes, self._chunk_count))
        if self._framed_at == len(self._framed):
            self._finish(complete=True)
        return b""

    def _take_payload(self, payload: bytes) -> None:
        if not self._payload.startswith(payload, self._payload_at):
            raise WrongAnswerError(f"chunk {self._chunks} differs: {payload[:300]!r}")
        self._payload_at += len(payload)
        self._count(min(self._payload_at // answers.EVENT_BYTES, self._chunk_count))

    def _count(self, chunks: int) -> None:
        if self._chunks == 0 and chunks:
            self.load.first_token_s.append(time.perf_counter() - self._started_s)
            self.load.open_streams += 1
        self.load.chunks += max(0, chunks - self._chunks)
        self._chunks = max(chunks, self._chunks)

    def _finish(self, *, complete: bool) -> None:
        if not complete:
            raise WrongAnswerError(f"the stream ended after {self._chunks} of {self._chunk_count} chunks")
        self.load.answers += 1
        self.load.open_streams -= 1
        self.send()


@asynccontextmanager
async def running(target: Target, clients: list[Client], load: Load, *, spread_s: float = 0.0) -> AsyncIterator[None]:
    """Connects the clients, starts them over ``spread_s`` seconds, and afterwards lets every answer finish."""
    loop = asyncio.get_running_loop()
    for index, client in enumerate(clients):
        host, port = target.addresses[index % len(target.addresses)]
        connect = loop.create_connection(_factory(client), host, port)
        await asyncio.wait_for(connect, CONNECT_TIMEOUT_S)
    for index, client in enumerate(clients):
        loop.call_later(spread_s * index / len(clients), client.send)
    try:
        yield
        load.running = False
        await _drain(load)
    finally:
        load.running = False
        for client in clients:
            client._idle = True  # noqa: SLF001 - the connection ends on purpose now
            client.transport.abort()


def _factory(client: Client) -> Callable[[], Client]:
    return lambda: client


async def _drain(load: Load) -> None:
    deadline_s = time.monotonic() + DRAIN_TIMEOUT_S
    while load.busy:
        if time.monotonic() > deadline_s:
            raise WrongAnswerError(f"{load.busy} answers did not end within {DRAIN_TIMEOUT_S:.0f} s")
        await load.run_for(0.02)
