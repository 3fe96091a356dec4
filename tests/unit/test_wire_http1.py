"""Response heads: what they say about their body, and which of them are refused."""

from __future__ import annotations

import pytest

from swarmesh.core.errors import EngineError
from swarmesh.wire.http1 import (
    ChunkedFramer,
    CloseFramer,
    LengthFramer,
    parse_response_head,
    render_head,
    request_head,
    status_line,
)


def head(*lines: bytes) -> bytes:
    return b"\r\n".join(lines)


OK = b"HTTP/1.1 200 OK"


def test_names_are_lowered_and_values_stripped() -> None:
    parsed = parse_response_head(head(OK, b"Content-Type:  text/plain ", b"X-A:", b"x-a: 2"))
    assert parsed.status == 200
    assert parsed.headers == (
        (b"content-type", b"text/plain"),
        (b"x-a", b""),
        (b"x-a", b"2"),
    )
    assert (parsed.header(b"x-a"), parsed.header(b"x-b")) == (b"", None)


@pytest.mark.parametrize(
    ("lines", "framer", "until_close", "keep_alive"),
    [
        ([OK, b"content-length: 5"], LengthFramer, False, True),
        ([OK, b"content-length: 0"], type(None), False, True),
        ([OK, b"transfer-encoding: chunked"], ChunkedFramer, False, True),
        ([OK, b"transfer-encoding: gzip, Chunked"], ChunkedFramer, False, True),
        ([OK, b"transfer-encoding: gzip"], CloseFramer, True, False),
        ([OK], CloseFramer, True, False),
        ([b"HTTP/1.1 204 No Content"], type(None), False, True),
        ([b"HTTP/1.1 304 Not Modified", b"content-length: 9"], type(None), False, True),
        ([b"HTTP/1.1 100 Continue"], type(None), False, True),
        ([OK, b"content-length: 5", b"connection: close"], LengthFramer, False, False),
        ([b"HTTP/1.0 200 OK", b"content-length: 5"], LengthFramer, False, False),
        ([b"HTTP/1.0 200 OK", b"content-length: 5", b"connection: Keep-Alive"], LengthFramer, False, True),
        ([b"HTTP/1.1 200", b"content-length: 5"], LengthFramer, False, True),
        ([OK, b"content-length: 5", b"content-length: 5"], LengthFramer, False, True),
    ],
)
def test_how_the_body_ends(lines: list[bytes], framer: type, until_close: bool, keep_alive: bool) -> None:  # noqa: FBT001 - columns of a table
    parsed = parse_response_head(head(*lines))
    assert isinstance(parsed.framer(), framer)
    assert (parsed.until_close, parsed.keep_alive) == (until_close, keep_alive)


def test_each_framer_counts_for_itself() -> None:
    parsed = parse_response_head(head(OK, b"content-length: 5"))
    one, other = parsed.framer(), parsed.framer()
    assert one is not None
    assert other is not None
    assert one.feed(b"abc") == -1
    assert other.feed(b"abcde") == 5
    assert one.feed(b"de") == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/2 200",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 OK",
        b"ICY 200 OK",
        b"SSH-2.0-OpenSSH",
        head(OK, b"no colon"),
        head(OK, b": no name"),
        head(OK, b"name : space before the colon"),
        head(OK, b" folded: x"),
        head(OK, b"x: a\nset-cookie: b"),
        head(OK, b"x: a\rb"),
        head(OK, b"x: a\0b"),
        head(OK, b"content-length: -1"),
        head(OK, b"content-length: 1x"),
        head(OK, b"content-length: 5, 5"),
        head(OK, b"content-length: " + b"9" * 5000),
        head(OK, b"content-length: 5", b"content-length: 6"),
        head(OK, b"content-length: 5", b"transfer-encoding: chunked"),
        head(OK, b"transfer-encoding: chunked", b"content-length: 5"),
    ],
)
def test_a_head_that_cannot_be_trusted_is_refused(raw: bytes) -> None:
    with pytest.raises(EngineError):
        parse_response_head(raw)


def test_rendered_heads() -> None:
    assert status_line(404) == b"HTTP/1.1 404 Not Found\r\n"
    assert status_line(599) == b"HTTP/1.1 599 Unknown\r\n"
    assert render_head(status_line(204), [(b"a", b"b")]) == b"HTTP/1.1 204 No Content\r\na: b\r\n\r\n"
    assert request_head(b"GET", b"/x", []) == b"GET /x HTTP/1.1\r\n\r\n"
