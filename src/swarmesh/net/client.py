"""An HTTP client for everything that is not the relay's hot path: waggles, probes, an engine's own API."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from swarmesh.core.errors import SwarmeshError
from swarmesh.net.address import Address
from swarmesh.net.upstream import UpstreamPool
from swarmesh.wire.http1 import Framer, Headers, ResponseHead, request_head

BUFFERED_BYTES_MAX: Final = 256 * 1024
"""Unread bytes of one stream after which its reading pauses."""


class UpstreamError(SwarmeshError):
    """A server did not answer, or its answer broke off."""

    code = "upstream_failed"
    status = 502


class Response:
    """An answer whose body is read as it comes."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self._chunks: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._ended = False
        self._broken: str | None = None
        self._wake = asyncio.Event()
        self._framer: Framer | None = None
        self.pause_reading: Callable[[bool], None] = _no_pause

    @property
    def status(self) -> int:
        """The HTTP status."""
        assert self.head is not None, "a response is handed out when its head is there"
        return self.head.status

    def received(self, head: ResponseHead | None, data: bytes, *, ended: bool) -> None:
        """See `swarmesh.net.upstream.Sink`."""
        if head is not None:
            self.head = head
            self._framer = head.framer()
        if data and self._framer is not None:
            payload: list[bytes] = []
            self._framer.feed(data, payload)
            self._chunks.extend(payload)
            self._buffered_bytes += len(data)
        self._ended = ended
        if not ended and self._buffered_bytes > BUFFERED_BYTES_MAX:
            self.pause_reading(True)
        self._wake.set()

    def broken(self, reason: str) -> None:
        """See `swarmesh.net.upstream.Sink`."""
        self._broken = reason
        self._wake.set()

    async def wait_head(self) -> None:
        """Wait until the head is there.

        Raises:
            UpstreamError: The connection broke before.
        """
        while self.head is None:
            if self._broken is not None:
                raise UpstreamError(self._broken)
            await self._sleep()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body without its framing, as it comes.

        Raises:
            UpstreamError: The answer broke off; what came before was yielded.
        """
        while True:
            while self._chunks:
                yield self._chunks.popleft()
            self._buffered_bytes = 0
            if self._ended:
                return
            if self._broken is not None:
                raise UpstreamError(self._broken)
            self.pause_reading(False)
            await self._sleep()

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def _sleep(self) -> None:
        self._wake.clear()
        await self._wake.wait()


class HttpClient:
    """Requests to one server; connections are kept."""

    def __init__(self, address: Address, *, headers: Headers | None = None) -> None:
        self.address = address
        self._headers: Headers = [(b"host", address.authority), *(headers or [])]
        self._pool = UpstreamPool(address, idle_ttl_s=4.0)

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, body: bytes | None = None, headers: Headers | None = None
    ) -> AsyncIterator[Response]:
        """Send a request and hand out the answer as soon as its head is there; leaving the block cancels the rest.

        Raises:
            UpstreamError: No answer came, or (while reading) it broke off.
        """
        response = Response()
        call = self._pool.request(self._payload(method, target, body, headers or []), response)
        response.pause_reading = call.pause
        try:
            await response.wait_head()
            yield response
        finally:
            call.cancel()

    async def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        headers: Headers | None = None,
        timeout_s: float = 10.0,
    ) -> tuple[int, bytes]:
        """Send a request and read the whole answer: its status and body.

        Raises:
            UpstreamError: No whole answer came in time.
        """
        try:
            async with asyncio.timeout(timeout_s), self.stream(method, target, body, headers) as response:
                return response.status, await response.read()
        except TimeoutError as error:
            raise UpstreamError(f"{self.address} did not answer {method} {target} within {timeout_s:g} s") from error

    def close(self) -> None:
        """Close kept connections."""
        self._pool.close()

    def _payload(self, method: str, target: str, body: bytes | None, headers: Headers) -> bytes:
        all_headers = [*self._headers, *headers]
        if body is not None:
            all_headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        full_target = (self.address.prefix + target).encode()
        return request_head(method.encode(), full_target, all_headers) + (body or b"")


def _no_pause(_paused: bool) -> None:  # noqa: FBT001 - the two states of one signal
    """An answer that came before its call was known cannot be paused; it is short."""
