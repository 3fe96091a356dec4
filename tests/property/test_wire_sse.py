"""Events that were rendered are read back, however the stream is cut and whichever line ends it uses."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmesh.core.errors import EngineError
from swarmesh.wire.sse import DONE_MARK, PING, SseEvent, SseReader, render, waiting_line

JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)


@st.composite
def events(draw: st.DrawFn) -> SseEvent:
    data = draw(st.one_of(JSON.map(lambda value: json.dumps(value).encode()), st.just(DONE_MARK), st.just(b"")))
    return SseEvent(
        data,
        draw(st.sampled_from(["", "token", "done", "error"])),
        draw(st.none() | st.integers(0, 10**12)),
        tuple(draw(st.lists(st.integers(0, 200_000), max_size=4))),
    )


def read_in_pieces(stream: bytes, places: list[int]) -> list[SseEvent]:
    reader = SseReader()
    edges = [0, *sorted(places), len(stream)]
    return [event for start, end in itertools.pairwise(edges) for event in reader.feed(stream[start:end])]


@given(st.lists(events(), max_size=8), st.sampled_from([b"\n", b"\r\n"]), st.data())
@settings(deadline=None)
def test_there_and_back(sent: list[SseEvent], line_end: bytes, data: st.DataObject) -> None:
    pings = st.sampled_from([b"", PING, b": t x\n\n", b"retry: 5\n\n", b":\n\n", b"\n\n"])
    stream = b"".join(data.draw(pings) + render(event) for event in sent).replace(b"\n", line_end)
    cut = st.one_of(st.lists(st.integers(0, len(stream)), max_size=12), st.just(list(range(len(stream)))))
    assert read_in_pieces(stream, data.draw(cut)) == sent


@given(st.binary(max_size=200), st.data())
@settings(deadline=None)
def test_noise_is_read_alike_for_any_cut(noise: bytes, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(noise)), max_size=10))
    assert read_in_pieces(noise, places) == read_in_pieces(noise, [])


@given(st.integers(0, 30), st.lists(st.integers(0, 30), max_size=5))
@settings(deadline=None)
def test_an_event_without_end_is_an_error(length: int, places: list[int]) -> None:
    reader = SseReader(event_bytes_max=20)
    stream = b"d" * length
    edges = [0, *sorted(min(place, length) for place in places), length]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    if length <= 20:
        assert [event for piece in pieces for event in reader.feed(piece)] == []
    else:
        with pytest.raises(EngineError, match="more than 20 bytes"):
            [reader.feed(piece) for piece in pieces]


def test_fields_as_other_servers_write_them() -> None:
    reader = SseReader()
    (event,) = reader.feed(b"data:no blank\ndata: two\nid: 7x\nevent:e\nunknown: x\nnocolon\n\n")
    assert event == SseEvent(b"no blank\ntwo", "e", None)


@pytest.mark.parametrize("field", [b"id: ", b": t 1,"])
def test_a_number_longer_than_any_is_no_number(field: bytes) -> None:
    (event,) = SseReader().feed(field + b"9" * 10_000 + b"\ndata: x\n\n")
    assert event == SseEvent(b"x")


@given(st.text(st.characters(exclude_categories=["Cs"])), events())
@settings(deadline=None)
def test_what_a_stream_waits_for_is_a_line_that_changes_no_event(words: str, event: SseEvent) -> None:
    line = waiting_line(words)
    assert line.count(b"\n") + line.count(b"\r") == 1
    assert line.endswith(b"\n")
    assert SseReader().feed(line + render(event)) == SseReader().feed(render(event))
