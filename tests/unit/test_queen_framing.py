"""From a worker's framing to a client's, for every pair of the two, however the worker's bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmesh.core.errors import EngineError
from swarmesh.net.request import Request
from swarmesh.queen import framing
from swarmesh.queen.framing import CHUNK_ENDS, EVENT_ENDS, EventGate, Passage, passage_for
from swarmesh.wire.http1 import ChunkedFramer, ResponseHead, parse_response_head
from swarmesh.wire.sse import PING

EVENTS = b"content-type: text/event-stream"
LAST_WORDS = b'data: {"error":{}}\n\n'
CRLF = b"id: 3\r\ndata: 3\r\n\r\n"


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
ONE, TWO = b"id: 1\ndata: 1\n\n", b"id: 2\ndata: 2\n\n"
STREAMS: dict[str, tuple[list[bytes], str, bytes]] = {
    "as it is": (CHUNKED, "1.1", chunk(ONE) + chunk(PING) + chunk(TWO + TWO)),
    "lines that end with CRLF": (CHUNKED, "1.1", chunk(CRLF) + chunk(CRLF)),
    "one chunk for several": (CHUNKED, "1.1", chunk(ONE + TWO) + chunk(ONE)),
    "an event in several chunks": (CHUNKED, "1.1", chunk(ONE[:9]) + chunk(ONE[9:]) + chunk(TWO)),
    "until the close": ([EVENTS], "1.1", ONE + PING + TWO + CRLF),
    "for HTTP/1.0": (CHUNKED, "1.0", chunk(ONE) + chunk(PING) + chunk(TWO[:5]) + chunk(TWO[5:] + CRLF)),
    "for HTTP/1.0, until the close": ([EVENTS], "1.0", ONE + TWO),
}


def unframed(shown: bytes, version: str) -> bytes:
    """The events in what the client was sent; its chunks are whole."""
    if version == "1.0":
        return shown
    payload: list[bytes] = []
    framer = ChunkedFramer()
    assert framer.feed(shown + b"0\r\n\r\n", payload) == len(shown) + 5
    return b"".join(payload)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(("lines", "version", "stream"), STREAMS.values(), ids=STREAMS.keys())
def test_only_whole_events_are_passed_on_however_a_stream_breaks(
    lines: list[bytes], version: str, stream: bytes, size: int
) -> None:
    def passage() -> Passage:
        return passage_for(head(*lines), client(http_1_0=version == "1.0"))

    whole = unframed(sent(passage(), [stream], ended=False), version)
    for place in range(len(stream) + 1):
        broken = passage()
        shown = b"".join(broken.forward(piece, ended=False) for piece in cut(stream[:place], size))
        broken.drop_rest()
        events = unframed(shown, version)
        assert whole.startswith(events)
        assert events.endswith(EVENT_ENDS) or not events
        assert broken.payload(shown) == events
        assert unframed(shown + broken.events(LAST_WORDS), version) == events + LAST_WORDS
        ended = shown + broken.events(LAST_WORDS) + broken.end()
        assert ended.endswith(b"0\r\n\r\n") or version == "1.0"


@pytest.mark.parametrize(("lines", "version", "stream"), STREAMS.values(), ids=STREAMS.keys())
def test_what_is_whole_is_passed_on_at_once(lines: list[bytes], version: str, stream: bytes) -> None:
    passage = passage_for(head(*lines), client(http_1_0=version == "1.0"))
    assert passage.is_events
    assert len(unframed(passage.forward(stream, ended=False), version)) == len(
        unframed(stream, "1.1" if lines is CHUNKED else "1.0")
    )


@pytest.mark.parametrize("lines", [[b"transfer-encoding: chunked"], [EVENTS, b"content-length: 90"], []])
def test_what_is_no_stream_of_events_is_not_kept_back(lines: list[bytes]) -> None:
    passage = passage_for(head(*lines), client())
    assert not passage.is_events
    assert b"{}" in passage.forward(chunk(b"{}") if lines and lines[0].startswith(b"transfer") else b"{}", ended=False)


@pytest.mark.parametrize("ends", [EVENT_ENDS, CHUNK_ENDS])
def test_an_event_without_an_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch, ends: tuple[bytes, ...]) -> None:
    monkeypatch.setattr(framing, "EVENT_BYTES_MAX", 100)
    gate = EventGate(ends)
    assert gate.pass_on(b"x" * 99, ended=False) == b""
    with pytest.raises(EngineError, match="more than 100 bytes"):
        gate.pass_on(b"x" * 2, ended=False)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_gate_gives_all_in_the_end_or_forgets_it(size: int) -> None:
    data = ONE + PING + TWO + b"data: half"
    gate = EventGate(EVENT_ENDS)
    passed = b"".join(gate.pass_on(piece, ended=False) for piece in cut(data, size))
    assert passed == ONE + PING + TWO
    assert gate.pass_on(b"!", ended=True) == b"data: half!"
    assert gate.pass_on(b"data: half", ended=False) == b""
    gate.drop()
    assert gate.pass_on(ONE, ended=False) == ONE


@given(st.lists(st.sampled_from([ONE, TWO, CRLF, PING]), max_size=6), st.data())
@settings(deadline=None)
def test_any_cut_of_any_stream(events: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(chunk, events))
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]
    passage = passage_for(head(*CHUNKED), client())
    shown = b""
    for piece in pieces:
        shown += passage.forward(piece, ended=False)
        assert passage.payload(shown) in (b"".join(events[:count]) for count in range(len(events) + 1))
    assert passage.payload(shown) == b"".join(events)
    assert shown + passage.forward(b"0\r\n\r\n", ended=True) == stream + b"0\r\n\r\n"
