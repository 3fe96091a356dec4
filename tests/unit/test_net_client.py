"""The client for probes, waggles and an engine's own API, against our own server, on both event loops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from swarmesh.net.address import parse_address
from swarmesh.net.client import BUFFERED_BYTES_MAX, HttpClient, UpstreamError
from swarmesh.net.event_stream import EventStream
from swarmesh.net.exchange import Exchange
from swarmesh.net.server import HttpServer

Until = Callable[..., Awaitable[Any]]


class Served:
    """A server whose answers the test gives, and a client of it."""

    client: HttpClient

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.answer: Callable[[Exchange], None] = lambda _exchange: None

    def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.answer(exchange)


@asynccontextmanager
async def serving(prefix: str = "") -> AsyncIterator[Served]:
    served = Served()
    server = HttpServer(served)
    await server.listen(host="127.0.0.1")
    address = parse_address(f"http://127.0.0.1:{server.port}{prefix}")
    served.client = HttpClient(address, headers=[(b"x-always", b"1")])
    try:
        yield served
    finally:
        served.client.close()
        await server.close()


def echo(exchange: Exchange) -> None:
    """Answer with what was received."""
    request = exchange.request
    headers = {name.decode(): value.decode() for name, value in request.headers}
    shown = [request.method, request.target.decode(), request.body.decode(), headers]
    exchange.respond_json(201, json.dumps(shown).encode())


async def test_a_request_says_what_it_should() -> None:
    async with serving("/api") as served:
        served.answer = echo
        status, body = await served.client.request("POST", "/x?y=1", b"{}", headers=[(b"x-once", b"2")])
        method, target, sent, headers = json.loads(body)
        assert (status, method, target, sent) == (201, "POST", "/api/x?y=1", "{}")
        assert headers["host"] == f"127.0.0.1:{served.client.address.port}"
        assert (headers["x-always"], headers["x-once"], headers["content-length"]) == ("1", "2", "2")
        _, body = await served.client.request("GET", "/x")
        assert "content-length" not in json.loads(body)[3]


async def test_connections_are_kept() -> None:
    async with serving() as served:
        served.answer = echo
        for _ in range(5):
            await served.client.request("GET", "/")
        assert len({id(exchange._connection) for exchange in served.exchanges}) == 1


async def test_an_error_status_is_an_answer_like_any_other() -> None:
    async with serving() as served:
        served.answer = lambda exchange: exchange.respond_json(503, b"busy")
        assert await served.client.request("GET", "/") == (503, b"busy")


async def test_a_stream_is_read_as_it_comes() -> None:
    async with serving() as served:
        streams: list[EventStream] = []

        def begin(exchange: Exchange) -> None:
            streams.append(EventStream(exchange))
            streams[0].send(b"data: 1\n\n")

        served.answer = begin
        async with served.client.stream("GET", "/") as response:
            chunks = response.chunks()
            assert response.status == 200
            assert await anext(chunks) == b"data: 1\n\n"
            streams[0].send(b"data: 2\n\n")
            assert await anext(chunks) == b"data: 2\n\n"
            streams[0].end()
            assert [chunk async for chunk in chunks] == []
        served.answer = echo
        await served.client.request("GET", "/")
        assert served.exchanges[0]._connection is served.exchanges[1]._connection


async def test_leaving_a_stream_early_tells_the_server(until: Until) -> None:
    async with serving() as served:
        gone = asyncio.Event()

        def begin(exchange: Exchange) -> None:
            exchange.on_abort = gone.set
            EventStream(exchange)

        served.answer = begin
        async with served.client.stream("GET", "/"):
            pass
        await until(gone.is_set)


async def test_a_stream_that_is_cut_is_no_end() -> None:
    async with serving() as served:

        def cut(exchange: Exchange) -> None:
            stream = EventStream(exchange)
            stream.send(b"data: 1\n\n")
            stream.cut()

        served.answer = cut
        async with served.client.stream("GET", "/") as response:
            chunks = response.chunks()
            assert await anext(chunks) == b"data: 1\n\n"
            with pytest.raises(UpstreamError, match="before the answer was whole"):
                await anext(chunks)


async def test_a_reader_that_does_not_read_holds_the_server_back(until: Until) -> None:
    async with serving() as served:
        signals: list[bool] = []
        total = 40_000_000

        def flood(exchange: Exchange) -> None:
            exchange.on_pause = signals.append
            exchange.respond_json(200, b"z" * total)

        served.answer = flood
        async with served.client.stream("GET", "/") as response:
            await until(lambda: signals)
            assert response._buffered_bytes < total / 2 > BUFFERED_BYTES_MAX
            assert len(await response.read()) == total


async def test_an_answer_that_does_not_come_in_time(until: Until) -> None:
    async with serving() as served:
        gone = asyncio.Event()

        def hold(exchange: Exchange) -> None:
            exchange.on_abort = gone.set

        served.answer = hold
        with pytest.raises(UpstreamError, match=r"did not answer GET /slow within 0.05 s"):
            await served.client.request("GET", "/slow", timeout_s=0.05)
        await until(gone.is_set)


async def test_a_server_that_closes_without_a_word() -> None:
    async with serving() as served:
        served.answer = lambda exchange: exchange.finish(keep_alive=False)
        with pytest.raises(UpstreamError, match="before the answer was whole"):
            await served.client.request("GET", "/")


async def test_nobody_there() -> None:
    client = HttpClient(parse_address("unix:/nonexistent/x.sock"))
    with pytest.raises(UpstreamError, match="cannot be reached"):
        await client.request("GET", "/")
