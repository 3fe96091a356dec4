"""Who is measured although others look better."""

from __future__ import annotations

from swarmesh.core.exploration import (
    DEADLINE_MS,
    SHARE,
    SPACING,
    STALE_DEADLINE_MS,
    STALE_MS,
    STALE_SPACING,
    Exploration,
)
from swarmesh.core.ids import WorkerId

A, B = WorkerId("a"), WorkerId("b")


def anyone(_worker_id: WorkerId) -> bool:
    return True


def test_who_has_come_back_is_due_after_the_deadline() -> None:
    exploration = Exploration(seed=SPACING)
    exploration.came(A, 1_000)
    assert exploration.due(999 + DEADLINE_MS, anyone) is None
    assert exploration.due(1_000 + DEADLINE_MS, anyone) == A
    exploration.used(A, 1_000 + DEADLINE_MS)
    assert exploration.due(1_001 + DEADLINE_MS, anyone) is None


def test_one_task_in_so_many_goes_to_whoever_is_due() -> None:
    exploration = Exploration(seed=0)
    exploration.came(A, 0)
    for _ in range(SHARE):
        assert exploration.due(1, anyone) is None
        exploration.used(B, 1)
    assert exploration.due(1, anyone) == A


def test_who_had_no_task_for_long_is_due() -> None:
    exploration = Exploration(seed=0)
    exploration.used(A, 0)
    for _ in range(STALE_SPACING):
        exploration.used(B, STALE_MS)
    assert exploration.due(STALE_MS + STALE_DEADLINE_MS - 1, anyone) is None
    assert exploration.due(STALE_MS + STALE_DEADLINE_MS, anyone) == A


def test_many_at_once_are_spaced() -> None:
    exploration = Exploration(seed=SPACING)
    for number in range(9):
        exploration.came(WorkerId(f"w{number}"), 0)
    assert exploration.due(DEADLINE_MS, anyone) == "w0"
    exploration.used(WorkerId("w0"), DEADLINE_MS)
    for _ in range(SPACING):
        assert exploration.due(DEADLINE_MS, anyone) is None
        exploration.used(A, DEADLINE_MS)
    assert exploration.due(DEADLINE_MS, anyone) == "w1"


def test_who_may_not_is_passed_over_and_who_is_gone_is_forgotten() -> None:
    exploration = Exploration(seed=SPACING)
    exploration.came(A, 0)
    exploration.came(B, 0)
    assert exploration.due(DEADLINE_MS, lambda worker_id: worker_id != A) == B
    exploration.forget(B)
    assert exploration.due(DEADLINE_MS, lambda worker_id: worker_id != A) is None
