"""Who has read the beginning of a prompt."""

from __future__ import annotations

import pytest

from swarmesh.core.ids import WorkerId
from swarmesh.core.prefix import ROOM_MAX, ROOM_MIN, TRUST_MIN, PrefixIndex

A, B, C = (WorkerId(name) for name in "abc")
ALL = (0, 1.0)
"""Nothing is common."""


def chain(name: str, blocks: int, then: str = "", more: int = 0) -> tuple[int, ...]:
    """A prompt: blocks of one text, then some of another."""
    first = [hash((name, depth)) for depth in range(blocks)]
    return (*first, *(hash((name, blocks, then, depth)) for depth in range(more)))


def test_the_longest_match_comes_first() -> None:
    index = PrefixIndex()
    index.insert(A, chain("s", 4, "x", 2))
    index.insert(B, chain("s", 4, "y", 6))
    index.insert(C, chain("other", 9))
    assert list(index.match(chain("s", 4, "y", 3)).items()) == [(B, 7), (A, 4)]
    assert index.match(chain("new", 3)) == {}
    assert index.match(()) == {}


def test_only_so_many_are_named_and_those_are_the_best() -> None:
    index = PrefixIndex()
    for number in range(50):
        index.insert(WorkerId(f"w{number}"), chain("s", 3))
    index.insert(A, chain("s", 3, "x", 3))
    found = index.match(chain("s", 3, "x", 5), most=10)
    assert len(found) == 10
    assert next(iter(found.items())) == (A, 6)


@pytest.mark.parametrize(("shared", "seen"), [(1, 1), (16, 16), (17, 16), (20, 20), (70, 64), (250, 248), (900, 256)])
def test_the_match_with_a_long_prompt_is_a_little_short(shared: int, seen: int) -> None:
    index = PrefixIndex()
    index.insert(A, chain("s", shared, "x", 30))
    prompt = chain("s", shared, "y", 30)
    assert index.blocks(A, prompt) == seen
    assert index.match(prompt) == {A: seen}


def test_what_was_used_longest_ago_is_forgotten_first_and_from_its_end() -> None:
    index = PrefixIndex()
    index.insert(A, chain("old", 10))
    for number in range(ROOM_MAX // 10 - 1):
        index.insert(A, chain(f"new{number}", 10))
    index.insert(A, chain("last", 14))
    assert len(index) == ROOM_MAX
    assert index.blocks(A, chain("old", 10)) == 4
    index.insert(A, chain("old", 4))
    index.insert(A, chain("more", 4))
    assert index.blocks(A, chain("old", 10)) == 4
    assert index.blocks(A, chain("new0", 10)) == 6


def test_a_new_engine_has_read_nothing() -> None:
    index = PrefixIndex()
    index.insert(A, chain("s", 4))
    index.insert(B, chain("s", 4))
    index.forget(A)
    index.forget(A)
    assert index.match(chain("s", 4)) == {B: 4}
    index.forget(B)
    assert (len(index), index.match(chain("s", 4))) == (0, {})


def test_what_all_have_read_is_nobodys_advantage() -> None:
    index, system = PrefixIndex(), chain("s", 8)
    workers = [WorkerId(f"w{number}") for number in range(10)]
    for worker_id in workers[:5]:
        index.insert(worker_id, system)
    assert index.common(system, 10) == (0, 1.0)
    index.insert(workers[5], system)
    blocks, weight = index.common(system, 10)
    assert blocks == 8
    assert weight == pytest.approx(0.8)
    assert index.worth(workers[0], 8, (blocks, weight)) == 8.0
    assert index.worth(A, 0, (blocks, weight)) == pytest.approx(1.6)
    for worker_id in workers[6:]:
        index.insert(worker_id, system)
    common = index.common(chain("s", 8, "x", 3), 10)
    assert common == (8, 0.0)
    assert index.worth(workers[0], 8, common) == index.worth(A, 0, common) == 8.0
    assert index.worth(workers[0], 11, common) == 11.0


def test_an_engine_that_keeps_less_than_was_thought_is_believed_less() -> None:
    index = PrefixIndex()
    for number in range(20):
        index.insert(A, chain(f"s{number}", 10))
    before, kept = index.worth(A, 10, ALL), len(index)
    index.correct(A, 10, 0.0)
    assert index.worth(A, 10, ALL) < before
    assert len(index) < kept
    for _ in range(1_000):
        index.correct(A, 10, 0.0)
    assert len(index) == ROOM_MIN
    assert index.worth(A, 10, ALL) == pytest.approx(10 * TRUST_MIN, rel=0.5)


def test_an_engine_that_keeps_what_was_thought_is_believed_again() -> None:
    index = PrefixIndex()
    index.insert(A, chain("s", 10))
    for _ in range(20):
        index.correct(A, 10, 0.0)
    low = index.worth(A, 10, ALL)
    for _ in range(200):
        index.correct(A, 10, 10.0)
    assert low < 6.0
    assert index.worth(A, 10, ALL) > 8.0


def test_reports_of_what_nobody_believed_change_nothing() -> None:
    index = PrefixIndex()
    index.correct(A, 5, 0.0)
    index.insert(A, chain("s", 4))
    index.correct(A, 0, 3.0)
    assert index.worth(A, 4, ALL) == 4.0
