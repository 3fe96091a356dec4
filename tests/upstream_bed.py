"""A peer that sends exactly the bytes a test says, and what one call heard of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from swarmesh.net.address import parse_address
from swarmesh.net.upstream import UpstreamPool
from swarmesh.wire.http1 import ResponseHead

REQUEST = b"GET / HTTP/1.1\r\nhost: t\r\n\r\n"
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
WAIT_S = 10


class CollectingSink:
    """What one call heard; fails the test when it hears anything after the end."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.data = b""
        self.ended = asyncio.Event()
        self.reason = ""

    def received(self, head: ResponseHead | None, data: bytes, *, ended: bool) -> None:
        assert not self.ended.is_set(), "nothing comes after the end"
        assert (head is None) == (self.head is not None), "the head comes with the first call and only then"
        self.head = self.head or head
        self.data += data
        if ended:
            self.ended.set()

    def broken(self, reason: str) -> None:
        assert not self.ended.is_set(), "nothing comes after the end"
        self.reason = reason
        self.ended.set()

    async def whole(self) -> bytes:
        async with asyncio.timeout(WAIT_S):
            await self.ended.wait()
        assert not self.reason, self.reason
        return self.data

    async def failure(self) -> str:
        async with asyncio.timeout(WAIT_S):
            await self.ended.wait()
        assert self.reason
        return self.reason


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def gone(self) -> bool:
        """The client has closed."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


class Server:
    """Hands connections to the test in the order they come."""

    def __init__(self) -> None:
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.accepted = 0
        self.pool: UpstreamPool

    async def peer(self) -> Peer:
        async with asyncio.timeout(WAIT_S):
            return await self.peers.get()

    def call(self) -> CollectingSink:
        sink = CollectingSink()
        self.pool.request(REQUEST, sink)
        return sink

    async def asked(self) -> tuple[CollectingSink, Peer]:
        """A call on a new connection, and its peer, which has read the request."""
        sink, peer = self.call(), await self.peer()
        await peer.request()
        return sink, peer

    async def answered(self, answer: bytes) -> CollectingSink:
        """One whole exchange on a new connection."""
        sink, peer = await self.asked()
        peer.send(answer)
        await sink.whole()
        return sink


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Server]:
    served = Server()
    open_peers: list[Peer] = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        open_peers.append(peer)
        served.accepted += 1
        await served.peers.put(peer)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    served.pool = UpstreamPool(parse_address(f"http://127.0.0.1:{port}"), **options)
    try:
        yield served
    finally:
        served.pool.close()
        for peer in open_peers:
            peer.reset()
        server.close()
        await server.wait_closed()
