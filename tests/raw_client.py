"""An HTTP/1.1 client that hides nothing: tests say which bytes go out and see which come back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from swarmesh.net.address import parse_address
from swarmesh.wire.sse import SseEvent, SseReader

ANSWER_TIMEOUT_S = 20.0


@dataclass
class Answer:
    """One answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """What the envelope holds; that it is one is asserted on the way."""
        assert self.headers["content-type"] == "application/json"
        envelope = self.json()
        assert list(envelope) == ["error"], envelope
        assert set(envelope["error"]) == {"code", "message", "hint", "type", "param"}
        error: dict[str, Any] = envelope["error"]
        return error


def request_bytes(
    method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None, version: str = "1.1"
) -> bytes:
    """A request as its bytes."""
    lines = [f"{method} {target} HTTP/{version}", "host: test"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


class RawConnection:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def ask(
        self,
        method: str,
        target: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        *,
        version: str = "1.1",
    ) -> Answer:
        """Send a request and read its whole answer; a body that is no bytes goes as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self.send(request_bytes(method, target, data, headers, version))
        return await self.read_answer(head_only=method == "HEAD")

    async def read_head(self) -> Answer:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            assert name not in headers, f"two headers are called {name}"
            headers[name] = value
        return Answer(int(lines[0].split(" ")[1]), headers)

    async def read_answer(self, *, head_only: bool = False) -> Answer:
        """A whole answer; fails when it is cut."""
        answer = await self.read_head()
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            if head_only or answer.status in {100, 204, 304}:
                pass
            elif answer.headers.get("transfer-encoding") == "chunked":
                while chunk := await self.read_chunk():
                    answer.chunks.append(chunk)
                answer.body = b"".join(answer.chunks)
            elif "content-length" in answer.headers:
                answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
            else:
                answer.body = await self.reader.read()
        return answer

    async def read_chunk(self) -> bytes:
        """The next chunk; empty for the last one.

        Raises:
            asyncio.IncompleteReadError: The connection was cut.
        """
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
            data = await self.reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def events(self) -> AsyncIterator[SseEvent]:
        """Events of a chunked answer whose head was read; fails when it is cut."""
        sse = SseReader()
        while chunk := await self.read_chunk():
            for event in sse.feed(chunk):
                yield event

    async def read_to_end(self) -> bytes:
        """Whatever comes until the server closes; a reset counts as a close."""
        received = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while data := await self.reader.read(65536):
                    received += data
        return received

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    def abort(self) -> None:
        self.writer.transport.abort()


async def open_connection(url: str) -> RawConnection:
    """Connect to ``http://host:port``."""
    address = parse_address(url)
    return RawConnection(*await asyncio.open_connection(address.host, address.port))


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RawConnection]:
    """A connection that is closed at the end."""
    connection = await open_connection(url)
    try:
        yield connection
    finally:
        await connection.close()


async def ask_once(
    url: str, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
) -> Answer:
    """One request on a connection of its own."""
    async with connected(url) as connection:
        return await connection.ask(method, target, body, headers)
