"""Answers byte by byte, as a peer sends them that means well or ill, on both event loops."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from swarmesh.wire.http1 import HEAD_BYTES_MAX
from upstream_bed import HELLO, Peer, serving

Until = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_answer_that_is_cut_is_broken(part: bytes, how: str, until: Until) -> None:
    async with serving() as server:
        sink, peer = await server.asked()
        peer.send(part)
        await peer.writer.drain()
        body = part.partition(b"\r\n\r\n")[2]
        await until(lambda: sink.data == body)
        getattr(peer, how)()
        assert "before the answer was whole" in await sink.failure()


async def test_a_body_until_the_close_is_whole_at_the_close() -> None:
    async with serving() as server:
        sink, peer = await server.asked()
        peer.send(b"HTTP/1.0 200 OK\r\n\r\nall ")
        peer.send(b"of it")
        peer.close()
        assert await sink.whole() == b"all of it"
        assert not server.pool._idle


async def test_a_body_until_the_close_that_is_reset_is_broken(until: Until) -> None:
    async with serving() as server:
        sink, peer = await server.asked()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nsome")
        await until(lambda: sink.data)
        _reset_hard(peer)
        await sink.failure()


def _reset_hard(peer: Peer) -> None:
    sock = peer.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    peer.reset()


async def test_chunks_are_handed_on_as_they_came_and_the_end_is_counted() -> None:
    async with serving() as server:
        body = b"5\r\n0\r\n\r\n\r\n3;x\r\nabc\r\n0\r\nt: r\r\n\r\n"
        sink = await server.answered(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body)
        assert sink.data == body
        assert len(server.pool._idle) == 1


async def test_any_byte_may_come_alone() -> None:
    async with serving() as server:
        await server.answered(HELLO)
        (connection,) = server.pool._idle
        sink = server.call()  # Takes that connection.
        for byte in b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n":
            connection.data_received(bytes([byte]))
        assert await sink.whole() == b"5\r\nhello\r\n0\r\n\r\n"


async def test_interim_answers_are_nobodys_business() -> None:
    async with serving() as server:
        early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
        sink = await server.answered(early + HELLO)
        assert sink.head is not None
        assert (sink.head.status, sink.data) == (200, b"hello")


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_is_whole_with_its_head(status: int) -> None:
    async with serving() as server:
        sink = await server.answered(b"HTTP/1.1 %d X\r\n\r\n" % status)
        assert sink.data == b""
        assert len(server.pool._idle) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"x" * (HEAD_BYTES_MAX + 1),
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n",
    ],
)
async def test_garbage_is_broken_and_its_connection_closed(garbage: bytes) -> None:
    async with serving() as server:
        sink, peer = await server.asked()
        peer.send(garbage)
        assert await sink.failure()
        assert await peer.gone()
        assert not server.pool._idle


@pytest.mark.parametrize("answer", [HELLO, b"HTTP/1.1 204 X\r\n\r\n"])
async def test_a_server_that_says_more_than_its_answer_is_not_asked_again(answer: bytes) -> None:
    async with serving() as server:
        sink, peer = await server.asked()
        peer.send(answer + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")
        await sink.whole()
        assert not server.pool._idle
        assert await peer.gone()


async def test_bytes_that_nobody_asked_for_close_the_connection(until: Until) -> None:
    async with serving() as server:
        sink, peer = await server.asked()
        peer.send(HELLO)
        await sink.whole()
        peer.send(HELLO)
        await until(lambda: not server.pool._idle)


async def test_connection_close_is_honoured() -> None:
    async with serving() as server:
        sink, peer = await server.asked()
        peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello")
        assert await sink.whole() == b"hello"
        assert await peer.gone()
        assert not server.pool._idle
