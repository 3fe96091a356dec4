"""A body's end is found at the same byte, and its payload is the same, however its bytes are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmesh.core.errors import EngineError
from swarmesh.wire.http1 import ChunkedFramer, Framer, LengthFramer


@st.composite
def chunked_bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A chunked body and its payload; payloads love to look like the end of a body."""
    piece = st.one_of(
        st.binary(min_size=1, max_size=40), st.sampled_from([b"0\r\n\r\n", b"\r\n0\r\n\r\n", b"\n", b"\r"])
    )
    chunks = draw(st.lists(piece, max_size=6))
    extension = draw(st.sampled_from([b"", b";a=1", b' ; a="b"']))
    size = draw(st.sampled_from([b"%x", b"%X", b"00%x"]))
    trailers = draw(st.sampled_from([b"", b"x-sum: 1\r\n", b"a: b\r\nc: d\r\n"]))
    framed = b"".join((size % len(chunk)) + extension + b"\r\n" + chunk + b"\r\n" for chunk in chunks)
    return framed + b"0\r\n" + trailers + b"\r\n", b"".join(chunks)


def feed_in_pieces(framer: Framer, data: bytes, places: list[int]) -> tuple[int, bytes]:
    """The index of the end in ``data``, or -1; and the payload."""
    payload: list[bytes] = []
    for start, end in itertools.pairwise([0, *sorted(places), len(data)]):
        found = framer.feed(data[start:end], payload)
        if found >= 0:
            return start + found, b"".join(payload)
    return -1, b"".join(payload)


def places_in(data: bytes) -> st.SearchStrategy[list[int]]:
    some = st.lists(st.integers(0, len(data)), max_size=10)
    return st.one_of(some, st.just(list(range(1, len(data)))))


@given(chunked_bodies(), st.binary(max_size=20), st.data())
@settings(deadline=None)
def test_the_end_of_a_chunked_body(body: tuple[bytes, bytes], surplus: bytes, data: st.DataObject) -> None:
    framed, payload = body
    stream = framed + surplus
    assert feed_in_pieces(ChunkedFramer(), stream, []) == (len(framed), payload)
    assert feed_in_pieces(ChunkedFramer(), stream, data.draw(places_in(stream))) == (len(framed), payload)
    assert ChunkedFramer().feed(stream) == len(framed)


@given(chunked_bodies(), st.data())
@settings(deadline=None)
def test_a_chunked_body_that_is_not_whole_has_no_end(body: tuple[bytes, bytes], data: st.DataObject) -> None:
    framed, payload = body
    part = framed[: data.draw(st.integers(0, len(framed) - 1))]
    end, so_far = feed_in_pieces(ChunkedFramer(), part, data.draw(places_in(part)))
    assert end == -1
    assert payload.startswith(so_far)


@given(st.binary(min_size=1, max_size=60), st.binary(max_size=20), st.data())
@settings(deadline=None)
def test_the_end_of_a_body_of_known_length(payload: bytes, surplus: bytes, data: st.DataObject) -> None:
    stream = payload + surplus
    places = data.draw(places_in(stream))
    assert feed_in_pieces(LengthFramer(len(payload)), stream, places) == (len(payload), payload)


@given(st.binary(max_size=80), st.data())
@settings(deadline=None)
def test_noise_gives_an_error_or_no_end_and_the_same_for_any_cut(noise: bytes, data: st.DataObject) -> None:
    def outcome(places: list[int]) -> int | str:
        try:
            return feed_in_pieces(ChunkedFramer(), noise, places)[0]
        except EngineError as error:
            return error.code

    assert outcome(data.draw(places_in(noise))) == outcome([])


@given(st.integers(0, 3000), st.data())
@settings(deadline=None)
def test_a_long_chunk_line_is_refused_or_taken_for_any_cut(length: int, data: st.DataObject) -> None:
    line = b"0;" + b"e" * length + b"\r\n\r\n"

    def outcome(places: list[int]) -> int | str:
        try:
            return feed_in_pieces(ChunkedFramer(), line, places)[0]
        except EngineError as error:
            return error.code

    assert outcome(data.draw(places_in(line))) == outcome([])


@pytest.mark.parametrize("size", [b"", b"-1", b"+1", b"0x1", b"1_0", b"g", b"1 1", b"f" * 16, b"\xc2\xb2"])
def test_what_is_no_chunk_size(size: bytes) -> None:
    with pytest.raises(EngineError, match="no chunk size"):
        ChunkedFramer().feed(size + b"\r\n")
