"""Numbers in a stream that is passed through."""

from __future__ import annotations

import pytest

from swarmesh.core.errors import EngineError
from swarmesh.wire.sse import SseReader
from swarmesh.worker import sse_numbering
from swarmesh.worker.sse_numbering import SseNumbering

STREAM = b'data: {"a":1}\n\n: ping\n\ndata: {"b":"\xf0\x9f\x90\x9d"}\n\n: t 1,2\ndata: {"c":3}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
def test_events_are_numbered_in_any_cut_and_keep_their_bytes(cut: int) -> None:
    numbering = SseNumbering()
    blocks = [block for at in range(0, len(STREAM), cut) for block in numbering.feed(STREAM[at : at + cut])]
    out = b"".join(map(numbering.numbered, blocks))
    assert [event.seq for event in SseReader().feed(out)] == [1, 2, 3, 4]
    assert b": ping\nid: 2\n" in out
    without_numbers = b"".join(line for line in out.splitlines(keepends=True) if not line.startswith(b"id: "))
    assert without_numbers == STREAM.replace(b": ping\n\n", b": ping\n")


def test_nothing_is_sent_before_an_event_is_whole() -> None:
    numbering = SseNumbering()
    assert numbering.feed(b"data: x\n") == []
    assert numbering.feed(b"\n") == [b"data: x"]


def test_token_ids_are_told_and_numbers_go_on_from_another_stream() -> None:
    numbering = SseNumbering(last_seq=41)
    assert numbering.numbered(b"data: x", (7, 8)) == b"id: 42\n: t 7,8\ndata: x\n\n"
    assert numbering.numbered(b": ping") == b": ping\n"
    assert numbering.numbered(b": t 9\ndata: y") == b"id: 43\n: t 9\ndata: y\n\n"


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_numbering, "EVENT_BYTES_MAX", 10)
    with pytest.raises(EngineError, match="more than 10 bytes"):
        SseNumbering().feed(b"data: 0123456789")
