"""From a worker's framing to a client's, for every pair of the two, however the worker's bytes are cut."""

from __future__ import annotations

import pytest

from swarmesh.net.request import Request
from swarmesh.queen.framing import Passage, passage_for
from swarmesh.wire.http1 import ChunkedFramer, ResponseHead, parse_response_head

EVENTS = b"content-type: text/event-stream"
LAST_WORDS = b'data: {"error":{}}\n\n'


def head(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> ResponseHead:
    return parse_response_head(b"\r\n".join([first, *lines]))


def client(*, http_1_0: bool = False) -> Request:
    request = Request("POST", b"/", [])
    request.http_1_0 = http_1_0
    return request


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def sent(passage: Passage, pieces: list[bytes], *, ended: bool) -> bytes:
    last = len(pieces) - 1
    return b"".join(passage.forward(piece, ended=ended and place == last) for place, piece in enumerate(pieces))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("lines", [[b"transfer-encoding: chunked"], [b"content-length: 5"]])
def test_bytes_pass_as_they_are_where_both_sides_can(lines: list[bytes], size: int) -> None:
    passage = passage_for(head(*lines), client())
    body = b"5\r\nhello\r\n0\r\n\r\n" if lines[0].startswith(b"transfer") else b"hello"
    assert sent(passage, cut(body, size), ended=True) == body
    assert passage.keeps_alive


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_http_1_0_client_gets_no_chunks(size: int) -> None:
    parsed = head(b"transfer-encoding: chunked", b"connection: keep-alive", b"x-a: b")
    passage = passage_for(parsed, client(http_1_0=True))
    first = passage.head(parsed, b"x-ours: 1\r\n")
    assert b"transfer-encoding" not in first
    assert b"connection: close\r\n" in first
    assert b"x-a: b\r\n" in first
    assert b"x-ours: 1\r\n" in first
    assert sent(passage, cut(b"5\r\nhello\r\n1;x\r\n!\r\n0\r\n\r\n", size), ended=True) == b"hello!"
    assert not passage.keeps_alive


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_answer_until_the_close_goes_on_in_chunks(size: int) -> None:
    parsed = head(b"content-type: text/plain", b"connection: close")
    passage = passage_for(parsed, client())
    first = passage.head(parsed, b"")
    assert b"transfer-encoding: chunked\r\n" in first
    assert b"connection" not in first
    framed = sent(passage, [*cut(b"hello", size), b""], ended=True)
    payload: list[bytes] = []
    assert ChunkedFramer().feed(framed, payload) == len(framed)
    assert b"".join(payload) == b"hello"
    assert passage.keeps_alive


def test_an_answer_until_the_close_for_an_http_1_0_client_stays_so() -> None:
    passage = passage_for(head(), client(http_1_0=True))
    assert sent(passage, [b"he", b"llo", b""], ended=True) == b"hello"
    assert not passage.keeps_alive


def test_a_known_length_for_an_http_1_0_client_stays_so() -> None:
    parsed = head(b"content-length: 5")
    passage = passage_for(parsed, client(http_1_0=True))
    assert b"content-length: 5\r\n" in passage.head(parsed, b"")
    assert passage.keeps_alive


def test_a_clean_head_passes_as_it_came_and_ours_are_added() -> None:
    parsed = head(b"Content-Length: 5", b"X-Engine: a")
    assert passage_for(parsed, client()).head(parsed, b"x-ours: 1\r\n") == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Engine: a\r\nx-ours: 1\r\n\r\n"
    )


@pytest.mark.parametrize("line", [b"connection: close", b"keep-alive: timeout=5", b"upgrade: h2c", b"te: trailers"])
def test_what_concerns_only_the_worker_stays_with_us(line: bytes) -> None:
    parsed = head(b"transfer-encoding: chunked", line)
    shown = passage_for(parsed, client()).head(parsed, b"")
    assert line.partition(b":")[0] + b":" not in shown
    assert shown.count(b"transfer-encoding: chunked\r\n") == 1


def test_the_client_is_told_our_version_of_http() -> None:
    parsed = head(b"content-length: 5", first=b"HTTP/1.0 200 Fine")
    assert passage_for(parsed, client()).head(parsed, b"").startswith(b"HTTP/1.1 200 ")


CHUNKED = [EVENTS, b"transfer-encoding: chunked"]
ONE, TWO = b"data: 1\n\n", b"data: 2\n\n"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(
    ("lines", "version", "so_far", "ends"),
    [
        (CHUNKED, "1.1", b"", "told"),
        (CHUNKED, "1.1", chunk(ONE), "told"),
        (CHUNKED, "1.1", chunk(ONE) + chunk(TWO), "told"),
        (CHUNKED, "1.1", chunk(ONE)[:-1], "cut"),
        (CHUNKED, "1.1", chunk(ONE)[:-2], "cut"),
        (CHUNKED, "1.1", chunk(ONE) + b"9\r\nda", "cut"),
        (CHUNKED, "1.1", chunk(b"data: half"), "cut"),
        ([b"transfer-encoding: chunked"], "1.1", chunk(b"{}\n\n"), "cut"),
        ([EVENTS, b"content-length: 90"], "1.1", ONE, "cut"),
        ([EVENTS], "1.1", ONE, "told"),
        ([EVENTS], "1.1", ONE + b"data: ", "cut"),
        ([EVENTS], "1.0", ONE, "told"),
        (CHUNKED, "1.0", chunk(ONE), "told"),
        (CHUNKED, "1.0", chunk(b"data: half"), "cut"),
    ],
)
def test_last_words_are_said_only_between_events(
    lines: list[bytes],
    version: str,
    so_far: bytes,
    ends: str,
    size: int,
) -> None:
    passage = passage_for(head(*lines), client(http_1_0=version == "1.0"))
    shown = sent(passage, cut(so_far, size), ended=False)
    assert passage.can_tell is (ends == "told")
    if ends == "told":
        whole = shown + passage.tell(LAST_WORDS)
        if version == "1.1":
            payload: list[bytes] = []
            assert ChunkedFramer().feed(whole, payload) == len(whole)
            whole = b"".join(payload)
        assert whole.endswith(LAST_WORDS)
