"""How soon a worker looks for a queen it has lost."""

from __future__ import annotations

from swarmesh.worker.queen_link import longest_wait_s


def test_waits_double_up_to_a_second_in_the_first_minute() -> None:
    waits_s = [longest_wait_s(failures, 0.0) for failures in range(1, 7)]
    assert waits_s == [0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    assert longest_wait_s(500, 59.9) == 1.0


def test_after_a_minute_a_queen_is_looked_for_less_often() -> None:
    assert longest_wait_s(60, 60.0) == 5.0
    assert longest_wait_s(1, 3600.0) == 0.2
