"""What one client may cost, and what is no HTTP: refused with an envelope that the client really gets to read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from raw_client import RawConnection, open_connection, request_bytes
from swarmesh.net import server as server_module
from swarmesh.net.exchange import Exchange
from swarmesh.net.server import HttpServer, Limits

Until = Callable[..., Awaitable[Any]]

SMALL = Limits(head_bytes_max=400, body_bytes_max=1000)
HURRIED = Limits(receive_timeout_s=0.05)
CHUNKED_HEAD = b"POST /c HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n"


class Talk:
    """A server that answers with the size of the body, and one client."""

    def __init__(self, server: HttpServer, client: RawConnection) -> None:
        self.server = server
        self.client = client
        self.seen: list[bytes] = []

    async def refusal(self, status: int, code: str) -> dict[str, Any]:
        """The next answer is this error, and the connection ends after it."""
        answer = await self.client.read_answer()
        assert (answer.status, answer.error["code"]) == (status, code)
        assert answer.headers["connection"] == "close"
        assert await self.client.read_to_end() == b""
        return answer.error


@asynccontextmanager
async def talking(limits: Limits = SMALL) -> AsyncIterator[Talk]:
    def application(exchange: Exchange) -> None:
        talk.seen.append(exchange.request.target)
        exchange.respond_json(200, b"%d" % len(exchange.request.body))

    server = HttpServer(application, limits)
    await server.listen(host="127.0.0.1")
    talk = Talk(server, await open_connection(f"http://127.0.0.1:{server.port}"))
    try:
        yield talk
    finally:
        await talk.client.close()
        await server.close()


@pytest.fixture
def fast_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SWEEP_INTERVAL_S", 0.01)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 500 + b" HTTP/1.1\r\nhost: t\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: t\r\nx: " + b"v" * 500 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: t\r\n" + b"a: b\r\n" * 100 + b"\r\n",
        b"GET /" + b"a" * 500,
    ],
    ids=["long target", "long header", "many headers", "endless target"],
)
@pytest.mark.parametrize("before", [b"", request_bytes("POST", "/before", b"ab")], ids=["alone", "pipelined"])
async def test_a_large_head_is_refused(head: bytes, before: bytes) -> None:
    async with talking() as talk:
        talk.client.send(before + head)
        if before:
            assert (await talk.client.read_answer()).body == b"2"
        await talk.refusal(431, "head_too_large")


async def test_a_header_without_end_is_refused(until: Until) -> None:
    async with talking() as talk:
        talk.client.send(b"GET / HTTP/1.1\r\nhost: t\r\nx: v")
        (connection,) = await until(lambda: talk.server.connections)
        await until(lambda: connection._headers)
        talk.client.send(b"v" * 500)
        await talk.refusal(431, "head_too_large")


async def test_a_head_just_within_the_limit_passes_also_with_a_body_in_the_same_write() -> None:
    async with talking() as talk:
        talk.client.send(request_bytes("POST", "/" + "a" * 300, b"z" * 1000))
        assert (await talk.client.read_answer()).body == b"1000"


async def test_an_announced_body_that_is_too_large_is_refused_before_it_comes() -> None:
    async with talking() as talk:
        talk.client.send(b"POST / HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 1001\r\n\r\n")
        error = await talk.refusal(413, "body_too_large")
        assert "1000 bytes" in error["message"]


async def test_a_client_that_sends_all_of_a_refused_body_still_reads_the_answer() -> None:
    async with talking(Limits()) as talk:
        talk.client.send(request_bytes("POST", "/", b"z" * (11 * 1024 * 1024)))
        await talk.client.writer.drain()
        await talk.refusal(413, "body_too_large")


async def test_a_chunked_body_is_counted_as_it_comes() -> None:
    async with talking() as talk:
        talk.client.send(CHUNKED_HEAD + b"1f4\r\n" + b"z" * 500 + b"\r\n")
        talk.client.send(b"1f5\r\n" + b"z" * 501 + b"\r\n")
        await talk.refusal(413, "body_too_large")


@pytest.mark.parametrize(
    "endless",
    [b"t: " + b"v" * 300, b"a: b\r\n" * 60],
    ids=["one trailer", "many trailers"],
)
async def test_trailers_have_the_limit_of_a_head(endless: bytes, until: Until) -> None:
    async with talking() as talk:
        talk.client.send(CHUNKED_HEAD + b"0\r\n")
        (connection,) = await until(lambda: talk.server.connections)
        await until(lambda: connection._in_body)
        talk.client.send(endless)
        await until(lambda: connection._head_bytes + connection._unseen_bytes > 200)
        talk.client.send(endless)
        await talk.refusal(431, "head_too_large")


async def test_chunk_extensions_have_a_limit(until: Until) -> None:
    async with talking() as talk:
        talk.client.send(CHUNKED_HEAD)
        (connection,) = await until(lambda: talk.server.connections)
        await until(lambda: connection._in_body)
        talk.client.send(b"3;ext=" + b"e" * 500)
        await talk.refusal(431, "head_too_large")


@pytest.mark.parametrize(
    "begin",
    [b"GET / HT", b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nab", CHUNKED_HEAD + b"3\r\n"],
    ids=["head", "body", "chunk"],
)
@pytest.mark.parametrize("before", [b"", request_bytes("GET", "/before")], ids=["alone", "pipelined"])
async def test_a_request_that_takes_too_long_is_refused(begin: bytes, before: bytes, fast_sweep: None) -> None:
    async with talking(HURRIED) as talk:
        talk.client.send(before + begin)
        if before:
            assert (await talk.client.read_answer()).status == 200
        error = await talk.refusal(408, "request_timeout")
        assert "0.05 s" in error["message"]


async def test_a_connection_that_was_long_quiet_has_its_whole_time_for_the_next_request() -> None:
    async with talking(Limits(receive_timeout_s=10)) as talk:
        assert (await talk.client.ask("GET", "/")).status == 200
        (connection,) = talk.server.connections
        quiet_since_s = connection._since_s = connection._since_s - 100  # As if 100 s had passed.
        request = request_bytes("POST", "/", b"abc")
        connection.data_received(request[:-1])
        connection.check_deadlines(quiet_since_s + 100.5)
        connection.data_received(request[-1:])
        assert (await talk.client.read_answer()).body == b"3"


@pytest.mark.parametrize(
    "request_text",
    [
        b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3, 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: -1\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 0x3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        CHUNKED_HEAD + b"-1\r\n\r\n",
        CHUNKED_HEAD + b"0x3\r\nabc\r\n0\r\n\r\n",
        CHUNKED_HEAD + b"3 \r\nabcd\r\n0\r\n\r\n",
        CHUNKED_HEAD + b"3\r\nabcd\r\n0\r\n\r\n",
        CHUNKED_HEAD + b"3\nabc\r\n0\r\n\r\n",
        CHUNKED_HEAD + b"fffffffffffffffff\r\n",
        b"GET / HTTP/1.1\r\nhost: t\r\nx: a\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: t\r\nx: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: t\r\nx: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : t\r\n\r\n",
        b"GET / HTTP/1.1\r\n: t\r\n\r\n",
        b"GET / HTTP/1.1\nhost: t\n\n",
        b"GET /\0 HTTP/1.1\r\nhost: t\r\n\r\n",
        b"GET / b HTTP/1.1\r\nhost: t\r\n\r\n",
        b"GET / HTTP/1.2\r\nhost: t\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"GET / HTTP/2.0\r\nhost: t\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT box:22 HTTP/1.1\r\nhost: t\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
async def test_what_is_no_clean_http_is_refused_and_reaches_nobody(request_text: bytes) -> None:
    async with talking() as talk:
        smuggled = request_bytes("GET", "/smuggled")
        talk.client.send(request_bytes("GET", "/honest") + request_text + smuggled)
        assert (await talk.client.read_answer()).body == b"0"
        error = await talk.refusal(400, "bad_input")
        assert error["type"] == "invalid_request_error"
        assert talk.seen == [b"/honest"]


async def test_an_answer_that_runs_is_not_cut_by_garbage_behind_its_request(until: Until) -> None:
    held: list[Exchange] = []
    server = HttpServer(held.append, SMALL)
    await server.listen(host="127.0.0.1")
    client = await open_connection(f"http://127.0.0.1:{server.port}")
    client.send(request_bytes("GET", "/") + b"\0garbage\r\n\r\n")
    (exchange,) = await until(lambda: held)
    exchange.respond_json(200, b"{}")
    assert (await client.read_answer()).status == 200
    assert (await client.read_answer()).status == 400
    await client.close()
    await server.close()
