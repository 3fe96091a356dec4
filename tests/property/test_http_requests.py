"""However the network cuts a client's bytes, the same requests arrive and the same answers leave."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swarmesh.net.exchange import Exchange
from swarmesh.net.server import HttpServer, Limits, ServerConnection

LIMITS = Limits(head_bytes_max=300, body_bytes_max=200)


class ScriptedTransport(asyncio.Transport):
    """Takes what is written; remembers whether reading is paused and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False
        self.paused = False

    def write(self, data: Any) -> None:
        assert not self.closed, "nothing is written after the close"
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


Seen = tuple[str, bytes, bytes, bool, bool]


async def deliver(pieces: list[bytes]) -> tuple[list[Seen], bytes, bool]:
    """Requests that reached the application, what was answered, and whether the server ended the connection."""
    seen: list[Seen] = []

    def application(exchange: Exchange) -> None:
        request = exchange.request
        seen.append((request.method, request.target, request.body, request.keep_alive, request.http_1_0))
        # In hex, so that no request can make an answer that looks like two.
        exchange.respond_json(200, f"{request.target.hex()}|{request.body.hex()}".encode())

    server = HttpServer(application, LIMITS)
    connection, transport = ServerConnection(server), ScriptedTransport()
    connection.connection_made(transport)
    for piece in pieces:
        if transport.closed:
            break
        connection.data_received(piece)
        if connection._waiting or connection._refusal is not None:
            await _settled(transport)
    return seen, bytes(transport.written), transport.closed


async def _settled(transport: ScriptedTransport) -> None:
    """Let the loop run until nothing is answered any more; only then does the network deliver again."""
    loop = asyncio.get_running_loop()
    before = -1
    while before != len(transport.written):
        before = len(transport.written)
        reached = loop.create_future()
        loop.call_soon(loop.call_soon, reached.set_result, None)
        await reached
    assert not transport.paused


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


TOKEN = st.text("abcdefgh-", min_size=1, max_size=8)
BODY = st.binary(max_size=60)
HEADERS = st.lists(st.tuples(TOKEN.map(lambda name: f"x-{name}"), TOKEN), max_size=4)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One valid request in one of its framings."""
    target = "/" + draw(TOKEN)
    lines = [f"{name}: {value}" for name, value in draw(HEADERS)]
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    body = b""
    if framing == "length":
        body = draw(BODY)
        lines.append(f"content-length: {len(body)}")
    elif framing == "chunked":
        lines.append("transfer-encoding: chunked")
        chunks = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
        trailer = draw(st.sampled_from([b"", b"x-trailer: t\r\n"]))
        body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n"
    method = "GET" if framing == "none" else "POST"
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines]).encode() + b"\r\n\r\n" + body


@st.composite
def cuts(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """The stream in pieces; one in four times byte by byte."""
    if draw(st.integers(0, 3)) == 0:
        return [stream[index : index + 1] for index in range(len(stream))]
    places = sorted(draw(st.sets(st.integers(0, len(stream)), max_size=12)))
    edges = [0, *places, len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges) if end > start]


@st.composite
def valid_deliveries(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    stream = b"".join(draw(st.lists(requests(), min_size=1, max_size=12)))
    return stream, draw(cuts(stream))


@given(valid_deliveries())
@settings(max_examples=150, deadline=None)
def test_any_cut_of_a_valid_stream_gives_the_same_requests_and_answers(
    runner: asyncio.Runner, delivery: tuple[bytes, list[bytes]]
) -> None:
    stream, pieces = delivery
    whole = runner.run(deliver([stream]))
    assert runner.run(deliver(pieces)) == whole
    seen, answered, closed = whole
    assert answered.count(b"HTTP/1.1 200 OK") == len(seen) >= 1
    assert not closed


@st.composite
def broken_deliveries(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Valid requests with a few bytes changed, put in or taken out."""
    stream = bytearray(b"".join(draw(st.lists(requests(), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(stream) - 1))
        what = draw(st.sampled_from([b"", b"\0", b"\r", b"\n", b"\r\n", b" ", b"9", b"0", b":", b"x"]))
        stream[place : place + draw(st.integers(0, 1))] = what
        if not stream:
            stream += b"x"
    return bytes(stream), draw(cuts(bytes(stream)))


@given(broken_deliveries())
@example((b"GET /a HTTP/1.1\r\n\r\n" + b"x" * 301, [b"GET /a HTTP/1.1\r\n\r\nx", b"x" * 300]))
@settings(max_examples=150, deadline=None)
def test_any_cut_of_a_broken_stream_gives_the_same_requests_and_the_same_refusal(
    runner: asyncio.Runner, delivery: tuple[bytes, list[bytes]]
) -> None:
    stream, pieces = delivery
    seen, answered, closed = runner.run(deliver([stream]))
    seen_in_pieces, answered_in_pieces, closed_in_pieces = runner.run(deliver(pieces))
    assert seen_in_pieces == seen
    assert closed_in_pieces == closed
    assert _statuses(answered_in_pieces) == _statuses(answered)
    assert answered.count(b"HTTP/1.1 200 OK") == len(seen)


def _statuses(answered: bytes) -> list[bytes]:
    return [line[9:12] for line in answered.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


@given(st.binary(max_size=400), st.data())
@settings(max_examples=150, deadline=None)
def test_noise_is_survived(runner: asyncio.Runner, noise: bytes, data: st.DataObject) -> None:
    seen, answered, closed = runner.run(deliver(data.draw(cuts(noise))))
    statuses = _statuses(answered)
    assert statuses[: len(seen)] == [b"200"] * len(seen), "noise may happen to be a request"
    assert statuses[len(seen) :] in ([], [b"400"], [b"431"])
    assert closed or not statuses[len(seen) :]
