"""The bytes of a stream: all of them back, in little room, with a bound."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmesh.queen import journal as journal_module
from swarmesh.queen.journal import SEGMENT_BYTES, Journal

EVENT = b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'


@given(st.lists(st.binary(max_size=SEGMENT_BYTES), max_size=8))
@settings(deadline=None, max_examples=30)
def test_all_that_went_in_comes_out(pieces: list[bytes]) -> None:
    journal = Journal()
    for piece in pieces:
        journal.append(piece)
    assert journal.read() == b"".join(pieces)
    assert journal.complete


def test_a_stream_that_repeats_itself_takes_little_room() -> None:
    journal = Journal()
    for _ in range(10_000):
        journal.append(EVENT)
    assert journal.read() == EVENT * 10_000
    assert journal._compressed_bytes + journal._recent_bytes < 10_000 * len(EVENT) / 10


def test_beyond_its_bound_it_keeps_what_it_has_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "JOURNAL_BYTES_MAX", 3 * SEGMENT_BYTES)
    journal = Journal()
    pieces = [os.urandom(SEGMENT_BYTES + 1) for _ in range(10)]
    for piece in pieces:
        journal.append(piece)
    assert not journal.complete
    kept = journal.read()
    assert b"".join(pieces).startswith(kept)
    assert SEGMENT_BYTES < len(kept) < 4 * SEGMENT_BYTES


def test_how_much_was_shown_is_about_right_however_long_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal()
    assert journal.shown_tokens() == 0
    for _ in range(20):
        journal.append(EVENT)
    assert journal.shown_tokens() == 20
    for _ in range(20_000):
        journal.append(EVENT)
    assert journal.shown_tokens() == pytest.approx(20_020, rel=0.01)
    monkeypatch.setattr(journal_module, "JOURNAL_BYTES_MAX", 1)
    for _ in range(20_000):
        journal.append(EVENT)
    assert not journal.complete
    assert journal.shown_tokens() == pytest.approx(40_020, rel=0.01)
