"""Quality and speed, both fading."""

from __future__ import annotations

import pytest

from swarmesh.worker.meter import QUALITY_HALF_LIFE_S, SPEED_WINDOW_S, Meter


def test_quality_begins_perfect_and_falls_with_failures() -> None:
    meter = Meter()
    assert meter.quality(0.0) == 1.0
    meter.outcome(1e6, good=False)
    assert meter.quality(1e6) == 0.5
    for _ in range(8):
        meter.outcome(1e6, good=True)
    assert meter.quality(1e6) == 0.9


def test_a_failure_fades() -> None:
    fresh, old = Meter(), Meter()
    for meter, then_s in ((fresh, 0.0), (old, 10 * QUALITY_HALF_LIFE_S)):
        meter.outcome(0.0, good=False)
        meter.outcome(then_s, good=True)
    assert fresh.quality(0.0) < old.quality(10 * QUALITY_HALF_LIFE_S) < 1.0
    assert old.quality(10 * QUALITY_HALF_LIFE_S) > 0.99


def test_a_failure_fades_also_when_nothing_comes_after_it() -> None:
    meter = Meter()
    meter.outcome(0.0, good=False)
    assert meter.quality(QUALITY_HALF_LIFE_S) == pytest.approx(1 / 1.5)
    assert meter.quality(10 * QUALITY_HALF_LIFE_S) > 0.99


def test_a_steady_pace_is_told_as_it_is() -> None:
    meter = Meter()
    for step in range(1000):
        meter.tokens(step * 0.1, 5)
    assert meter.tokens_per_s(99.9) == pytest.approx(50.0, rel=0.02)


def test_silence_fades_the_speed() -> None:
    meter = Meter()
    meter.tokens(0.0, 100)
    assert meter.tokens_per_s(0.0) == 100 / SPEED_WINDOW_S
    assert meter.tokens_per_s(10 * SPEED_WINDOW_S) < 0.01


def test_a_token_and_a_whole_answer_are_progress_a_failure_is_none() -> None:
    meter = Meter()
    meter.tokens(1.0, 5)
    assert meter.progress == 1
    meter.outcome(2.0, good=False)
    assert meter.progress == 1
    meter.outcome(3.0, good=True)
    assert meter.progress == 2
