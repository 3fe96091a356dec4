"""The table of a worker's life, and the two deadlines of its lease."""

from __future__ import annotations

from itertools import product

import pytest

from swarmesh.core.liveness import (
    EXPIRY_FACTOR,
    LIVENESS_TABLE,
    OVERDUE_FACTOR,
    WorkerFact,
    WorkerStatus,
    following,
    lease_fact,
)
from swarmesh.core.task import IllegalTransitionError

S, F = WorkerStatus, WorkerFact
EVERY_PAIR = list(product(S, F))


@pytest.mark.parametrize(("status", "fact"), EVERY_PAIR)
def test_every_pair_is_in_the_table_or_refused(status: WorkerStatus, fact: WorkerFact) -> None:
    if (status, fact) in LIVENESS_TABLE:
        assert following(status, fact) is LIVENESS_TABLE[status, fact]
    else:
        with pytest.raises(IllegalTransitionError, match=f"a {status} worker cannot be {fact}"):
            following(status, fact)


def test_only_draining_a_dead_worker_is_illegal() -> None:
    assert set(EVERY_PAIR) - set(LIVENESS_TABLE) == {(S.DEAD, F.DRAIN_REQUESTED)}


@pytest.mark.parametrize("status", S)
@pytest.mark.parametrize("fact", [F.ALARMED, F.LEASE_EXPIRED])
def test_an_alarm_or_a_lost_lease_is_death_from_anywhere(status: WorkerStatus, fact: WorkerFact) -> None:
    assert following(status, fact) is S.DEAD


def test_a_dead_worker_that_reports_comes_back() -> None:
    assert following(S.DEAD, F.REPORTED_READY) is S.HEALTHY
    assert following(S.DEAD, F.REPORTED_STARTING) is S.STARTING


@pytest.mark.parametrize("fact", [F.REPORTED_READY, F.REPORTED_STARTING, F.SUSPECTED])
def test_no_report_makes_a_draining_worker_serve_again(fact: WorkerFact) -> None:
    assert following(S.DRAINING, fact) is S.DRAINING


def test_a_starting_worker_is_never_a_suspect_because_suspects_get_tasks() -> None:
    assert following(S.STARTING, F.SUSPECTED) is S.STARTING


@pytest.mark.parametrize("interval_ms", [2_000, 30_000])
def test_both_sides_of_both_deadlines(interval_ms: int) -> None:
    overdue_ms, expiry_ms = int(interval_ms * OVERDUE_FACTOR), int(interval_ms * EXPIRY_FACTOR)
    assert lease_fact(0, interval_ms) is None
    assert lease_fact(overdue_ms, interval_ms) is None
    assert lease_fact(overdue_ms + 1, interval_ms) is F.SUSPECTED
    assert lease_fact(expiry_ms, interval_ms) is F.SUSPECTED
    assert lease_fact(expiry_ms + 1, interval_ms) is F.LEASE_EXPIRED


def test_one_lost_waggle_and_a_late_one_are_no_reason_for_suspicion() -> None:
    assert lease_fact(2 * 30_000 + 10_000, 30_000) is None
