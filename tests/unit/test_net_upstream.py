"""The client side of HTTP/1.1 against a peer that sends exactly the bytes the test says, on both event loops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from swarmesh.net import upstream as upstream_module
from swarmesh.net.address import parse_address
from swarmesh.net.upstream import UpstreamPool
from upstream_bed import HELLO, REQUEST, CollectingSink, serving

Until = Callable[..., Awaitable[Any]]
Turn = Callable[[], Awaitable[None]]


async def test_one_connection_is_used_again_and_again() -> None:
    async with serving() as server:
        await server.answered(HELLO)
        (connection,) = server.pool._idle
        for _ in range(3):
            sink = server.call()
            assert connection._call is not None, "the idle connection was taken"
            connection.data_received(HELLO)
            assert await sink.whole() == b"hello"
        assert server.accepted == 1


async def test_calls_at_the_same_time_have_connections_of_their_own() -> None:
    async with serving() as server:
        sinks = [server.call() for _ in range(3)]
        peers = [await server.peer() for _ in range(3)]
        for number, peer in enumerate(peers):
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % number)
        assert sorted([await sink.whole() for sink in sinks]) == [b"0", b"1", b"2"]
        assert len(server.pool._idle) == 3


async def test_an_idle_connection_that_the_server_closed_is_not_used(until: Until) -> None:
    async with serving() as server:
        sink, peer = await server.asked()
        peer.send(HELLO)
        await sink.whole()
        peer.close()
        await until(lambda: not server.pool._idle)
        await server.answered(HELLO)
        assert server.accepted == 2


async def test_an_idle_connection_that_is_too_old_is_closed_and_not_used() -> None:
    async with serving(idle_ttl_s=0.0) as server:
        sink, old = await server.asked()
        old.send(HELLO)
        await sink.whole()
        server.pool._idle[0].idle_since_s -= 1
        await server.answered(HELLO)
        assert await old.gone()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_stale_connection_is_replaced_once(how: str) -> None:
    async with serving() as server:
        sink, stale = await server.asked()
        stale.send(HELLO)
        await sink.whole()
        again = server.call()
        await stale.request()
        getattr(stale, how)()
        fresh = await server.peer()
        await fresh.request()
        fresh.close()  # A fresh connection that breaks is no staleness: there is no third try.
        assert "closed the connection before the answer was whole" in await again.failure()
        assert server.accepted == 2


async def test_a_reused_connection_that_breaks_after_the_first_byte_is_not_tried_again() -> None:
    async with serving() as server:
        sink, peer = await server.asked()
        peer.send(HELLO)
        await sink.whole()
        again = server.call()
        await peer.request()
        peer.send(b"H")
        peer.close()
        await again.failure()
        assert server.accepted == 1


async def test_cancelling_closes_the_connection_and_the_sink_hears_nothing(until: Until) -> None:
    async with serving() as server:
        sink = CollectingSink()
        call = server.pool.request(REQUEST, sink)
        peer = await server.peer()
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab")
        await until(lambda: sink.data)
        call.cancel()
        assert await peer.gone()
        assert not sink.ended.is_set()
        call.cancel()  # Harmless.


async def test_cancelling_before_the_connection_stands(until: Until) -> None:
    async with serving() as server:
        sink = CollectingSink()
        call = server.pool.request(REQUEST, sink)
        call.cancel()
        peer = await server.peer()
        assert await peer.gone()
        assert not sink.ended.is_set()


async def test_cancelling_after_the_end_leaves_the_connection_to_others() -> None:
    async with serving() as server:
        sink = CollectingSink()
        call = server.pool.request(REQUEST, sink)
        (await server.peer()).send(HELLO)
        await sink.whole()
        call.cancel()
        assert len(server.pool._idle) == 1
        assert server.pool._idle[0].usable


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        pool = UpstreamPool(parse_address(f"http://127.0.0.1:{unused.getsockname()[1]}"))
        sink = CollectingSink()
        pool.request(REQUEST, sink)
        assert "cannot be reached: Connect" in await sink.failure()


@pytest.mark.parametrize("address", ["unix:/nonexistent/agent.sock", "http://no.such.invalid:1"])
async def test_no_way_there(address: str) -> None:
    pool = UpstreamPool(parse_address(address))
    sink = CollectingSink()
    pool.request(REQUEST, sink)
    assert "cannot be reached" in await sink.failure()


async def test_a_server_that_does_not_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_module, "CONNECT_TIMEOUT_S", 0.05)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.socket() as first, socket.socket() as second:  # They fill its queue.
            for filler in (first, second):
                filler.setblocking(False)
                filler.connect_ex(address)
            sink = CollectingSink()
            UpstreamPool(parse_address(f"http://127.0.0.1:{address[1]}")).request(REQUEST, sink)
            assert "did not accept a connection within 0.05 s" in await sink.failure()


async def test_pausing_holds_the_server_back(until: Until) -> None:
    async with serving() as server:
        sink = CollectingSink()
        call = server.pool.request(REQUEST, sink)
        call.pause(True)  # Before there is a connection; it counts from its start.
        peer = await server.peer()
        await peer.request()
        body = b"z" * 20_000_000
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.writer.drain(), 0.05)
        assert len(sink.data) == 0
        call.pause(False)
        await until(lambda: sink.data)
        assert await sink.whole() == body


async def test_a_pool_keeps_so_many_idle_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_module, "IDLE_MAX", 1)
    async with serving() as server:
        sinks = [server.call() for _ in range(2)]
        peers = [await server.peer() for _ in range(2)]
        for peer in peers:
            await peer.request()
            peer.send(HELLO)
        for sink in sinks:
            await sink.whole()
        assert len(server.pool._idle) == 1


async def test_severed_connections_break_and_none_is_made_for_a_while() -> None:
    async with serving() as server:
        sink, peer = await server.asked()
        waiting = server.call()
        other = await server.peer()
        await other.request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart")
        server.pool.sever(30)
        for call in (sink, waiting):
            assert "cut off" in await call.failure()
        assert await peer.gone()
        assert await other.gone()
        made = server.accepted
        assert "cut off" in await server.call().failure()
        assert server.accepted == made
        server.pool.sever(0)
        again, peer = await server.asked()
        peer.send(HELLO)
        assert await again.whole() == b"hello"


async def test_an_answer_that_lasts_until_the_close_is_not_whole_because_it_was_severed(until: Until) -> None:
    async with serving() as server:
        sink, peer = await server.asked()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await until(lambda: sink.data == b"half")
        server.pool.sever(30)
        assert "cut off" in await sink.failure()


async def test_a_connection_that_was_being_made_is_severed_too(until: Until, turn: Turn) -> None:
    async with serving() as server:
        sink = server.call()
        await turn()  # It is on its way.
        server.pool.sever(30)
        assert "cut off" in await sink.failure()
        await until(lambda: not server.pool._open)


async def test_idle_connections_are_severed_and_not_used_again(until: Until) -> None:
    async with serving() as server:
        await server.answered(HELLO)
        server.pool.sever(0)
        await until(lambda: not server.pool._idle and not server.pool._open)
        await server.answered(HELLO)
        assert server.accepted == 2
