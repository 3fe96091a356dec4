"""Speeds learned from work and time, and what is learned of a model's tasks."""

from __future__ import annotations

import pytest

from swarmesh.core.costs import CROWD_EXPONENT, PREFILL_WEIGHTS, Costs
from swarmesh.core.ledger import DEFAULT_OUTPUT_TOKENS, PREFILL_WEIGHT
from swarmesh.core.speed import PRIOR_SPEED, RETURN_FADE, Pace, speed_class, speed_of_class


def after(*tasks: tuple[float, int], running: int = 1) -> Pace:
    """A worker that did tasks of (work, ms) one after the other, each beside others if more were running."""
    pace = Pace()
    for work, took_ms in tasks:
        pace.done(work, took_ms / 1_000 * running**-0.5)
    return pace


def test_a_worker_that_did_nothing_is_like_the_others() -> None:
    assert Pace().speed(37.0) == 37.0
    assert not Pace().is_measured


@pytest.mark.parametrize("true_speed", [5.0, 50.0, 4_000.0])
def test_some_tasks_tell_how_fast_it_is(true_speed: float) -> None:
    pace = after(*[(400.0, round(400_000 / true_speed))] * 60)
    assert pace.is_measured
    assert pace.speed(true_speed / 3) == pytest.approx(true_speed, rel=0.1)


def test_a_long_task_says_more_than_a_short_one() -> None:
    assert after((1.0, 10_000), (10_000.0, 100_000)).speed(100.0) == pytest.approx(100.0, rel=0.1)


def test_only_time_with_tasks_makes_a_crowd() -> None:
    pace = Pace()
    pace.mark(0, 1_000_000)
    pace.mark(3, 1_002_000)
    assert pace.crowd_ms == 6_000


def test_a_share_of_the_time_beside_others_is_fast_work() -> None:
    alone, beside = after((900.0, 9_000)), after((900.0, 9_000), running=4)
    assert beside.speed(100.0) > alone.speed(100.0)


def test_a_worker_that_becomes_slow_is_found_out() -> None:
    pace = after(*[(500.0, 5_000)] * 40, *[(500.0, 50_000)] * 40)
    assert pace.speed(PRIOR_SPEED) == pytest.approx(10.0, rel=0.2)


def test_what_was_read_is_put_right_by_when_a_first_token_came() -> None:
    pace = Pace()
    until_ms = pace.reads(1_000, 0, 5_000)
    assert until_ms == 6_000
    first_mark_ms = pace.read_sum_ms
    until_ms = pace.reads(3_000, until_ms, 5_100)
    assert until_ms == 9_000
    # The first was read in 200 ms: the second has 3 s of its own left from there.
    until_ms = pace.has_read(first_mark_ms, 5_200, until_ms, 7_000)
    assert until_ms == 8_200
    assert pace.has_read(pace.read_sum_ms, 5_900, until_ms, 7_000) == 5_900


def test_a_prompt_is_not_read_before_it_was_given() -> None:
    pace = Pace()
    until_ms = pace.reads(10_000, 0, 0)
    mark_ms = pace.read_sum_ms
    until_ms = pace.reads(500, until_ms, 9_000)
    assert pace.has_read(mark_ms, 100, until_ms, 9_100) == 9_500


def test_who_was_read_before_others_that_are_read_is_no_news() -> None:
    pace = Pace()
    marks_ms, until_ms = [], 0
    for _ in range(3):
        until_ms = pace.reads(1_000, until_ms, 0)
        marks_ms.append(pace.read_sum_ms)
    until_ms = pace.has_read(marks_ms[1], 2_500, until_ms, 2_600)
    assert until_ms == 3_500
    assert pace.has_read(marks_ms[0], 100, until_ms, 2_700) == until_ms
    pace.reads(1_000, until_ms, 60_000)
    assert pace.has_read(marks_ms[2], 3_000, 61_000, 60_500) == 61_000


def test_a_prompt_that_was_read_at_some_time_leaves_no_more_than_those_after_it() -> None:
    pace = Pace()
    until_ms = pace.reads(9_000, 0, 0)
    mark_ms = pace.read_sum_ms
    until_ms = pace.reads(1_000, until_ms, 0)
    assert pace.has_read(mark_ms, 0, until_ms, 2_000) == 3_000


def test_a_mark_of_another_life_is_no_news() -> None:
    assert Pace().has_read(7_000, 100, 50, 200) == 50


def test_who_comes_back_is_believed_less() -> None:
    pace = after(*[(500.0, 100_000)] * 20)
    work = pace.work
    pace.fade()
    assert pace.work == work * RETURN_FADE
    assert pace.speed(PRIOR_SPEED) > after(*[(500.0, 100_000)] * 20).speed(PRIOR_SPEED)


def test_speeds_that_differ_by_little_are_equal() -> None:
    assert speed_class(100.0) == speed_class(105.0)
    assert speed_class(100.0) != speed_class(200.0)
    assert speed_of_class(speed_class(100.0)) == pytest.approx(100.0, rel=0.1)


def test_what_reading_costs_is_learned() -> None:
    costs = Costs()
    assert costs.prefill_weight == pytest.approx(PREFILL_WEIGHT)
    for _ in range(300):
        costs.read(2_000.0, 0.5, 80.0)  # 4,000 tokens/s where 80 are written.
    assert costs.prefill_weight == pytest.approx(0.02, rel=0.05)


def test_the_first_prompt_that_was_read_says_more_than_what_is_assumed() -> None:
    costs = Costs()
    costs.read(2_000.0, 0.5, 80.0)
    assert costs.prefill_weight == pytest.approx(0.02, rel=0.25)


def test_what_reading_costs_stays_in_its_bounds() -> None:
    costs = Costs()
    for _ in range(3_000):
        costs.read(1.0, 1_000.0, 1_000.0)
    assert costs.prefill_weight == PREFILL_WEIGHTS[1]


def test_how_long_answers_are_is_learned() -> None:
    costs = Costs()
    assert costs.output_tokens == DEFAULT_OUTPUT_TOKENS
    for _ in range(300):
        costs.wrote(20)
    assert costs.output_tokens == pytest.approx(20.0, rel=0.4)


def test_the_usual_speed_is_the_median_of_the_measured() -> None:
    costs = Costs()
    paces = [after(*[(500.0, took_ms)] * 50) for took_ms in (500, 1_000, 100_000)]
    changed = [costs.compare([*paces, Pace()], 4) for _ in range(9)]
    assert changed.count(True) == 1
    assert costs.prior_speed == pytest.approx(500.0, rel=0.1)


@pytest.mark.parametrize("exponent", [0.1, 0.5, 0.9])
def test_what_a_crowd_does_to_a_worker_is_learned_from_each_workers_own_tasks(exponent: float) -> None:
    costs, fast, slow = Costs(), Pace(), Pace()
    assert costs.crowd_exponent == CROWD_EXPONENT
    for number in range(400):
        crowd = 1.0 + number % 7
        # The fast one is the fuller one: across workers, a crowd goes with speed.
        costs.ran(fast, 2 * crowd, 400.0 * (2 * crowd) ** (exponent - 1))
        costs.ran(slow, crowd, 10.0 * crowd ** (exponent - 1))
    assert costs.crowd_exponent == pytest.approx(exponent, abs=0.1)
