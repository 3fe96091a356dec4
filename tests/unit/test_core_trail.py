"""Bad marks, and that they evaporate."""

from __future__ import annotations

import pytest

from swarmesh.core.trail import FAILURE, HALF_LIFE_MS, MARKS_MAX, SLOW, Trail


def test_a_worker_without_marks_is_good() -> None:
    assert Trail().quality(10**12) == 1.0


def test_a_failure_halves_the_quality_and_is_forgotten_by_and_by() -> None:
    trail = Trail()
    trail.broke(5_000)
    assert trail.quality(5_000) == pytest.approx(1 / (1 + FAILURE))
    assert trail.quality(5_000 + HALF_LIFE_MS) == pytest.approx(1 / (1 + FAILURE / 2))
    assert trail.quality(5_000 + 20 * HALF_LIFE_MS) == pytest.approx(1.0, abs=1e-5)
    assert trail.broke_ms == 5_000


def test_a_slow_answer_weighs_less_and_marks_add_up_to_a_bound() -> None:
    slow, broken = Trail(), Trail()
    slow.lower(SLOW, 0)
    broken.broke(0)
    assert slow.quality(0) > broken.quality(0)
    assert slow.broke_ms is None
    for _ in range(100):
        broken.broke(0)
    assert broken.quality(0) == pytest.approx(1 / (1 + MARKS_MAX))
