"""How often a host is tried again."""

from __future__ import annotations

import pytest

from swarmesh.hosts.backoff import FIRST_S, JITTER, LINK_MAX_S, SETUP_MAX_S, STEADY_S, Backoff


def waits(backoff: Backoff, count: int, *, passing: bool = True) -> list[float]:
    return [backoff.wait_s(passing=passing) for _ in range(count)]


def test_the_first_try_is_at_once_and_the_waits_double_to_a_limit() -> None:
    first, *later = waits(Backoff(), 12)
    assert first == 0.0
    for number, wait_s in enumerate(later):
        meant_s = min(FIRST_S * 2**number, LINK_MAX_S)
        assert meant_s * (1 - JITTER) <= wait_s <= meant_s * (1 + JITTER)


def test_what_somebody_has_to_mend_is_tried_seldom() -> None:
    last_s = waits(Backoff(), 20, passing=False)[-1]
    assert last_s == pytest.approx(SETUP_MAX_S, rel=JITTER)


def test_hosts_are_not_tried_in_step() -> None:
    assert len({waits(Backoff(), 5)[-1] for _ in range(10)}) > 1


def test_a_connection_that_held_begins_the_count_anew() -> None:
    backoff = Backoff()
    waits(backoff, 5)
    backoff.lost(STEADY_S - 1)
    assert backoff.wait_s(passing=True) > 0.0
    backoff.lost(STEADY_S)
    assert backoff.wait_s(passing=True) == 0.0
