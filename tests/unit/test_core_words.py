"""Small things that sentences are made of: numbers, clauses, and the way on from an engine's words."""

from __future__ import annotations

import pytest

from swarmesh.core.clause import CHARS_MAX, clause
from swarmesh.core.figures import figure
from swarmesh.core.way_on import way_on


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.25, "0.25"),
        (0.123456, "0.1235"),
        (40.0, "40"),
        (999.96, "1000"),
        (1_000.0, "1000"),
        (2_434.6, "2435"),
        (-2_434.6, "-2435"),
        (81_920.0, "81920"),
        (123_456_789.0, "123456789"),
        (1e15, "1e+15"),
        (1e-9, "1e-09"),
        (float("inf"), "inf"),
    ],
)
def test_ordinary_numbers_have_no_exponent(value: float, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ("", ""),
        ("it crashed", "it crashed"),
        ("it crashed.\n", "it crashed"),
        ("no GPU\n\n  driver too old.\r\nno memory...\n", "no GPU ... driver too old. ... no memory"),
        ("x" * CHARS_MAX, "x" * CHARS_MAX),
        ("x" * (CHARS_MAX + 1), "x" * CHARS_MAX + " ..."),
    ],
)
def test_what_others_say_becomes_a_part_of_a_sentence(said: str, part: str) -> None:
    assert clause(said) == part


def test_a_context_that_is_too_small_has_a_way_on() -> None:
    hint = way_on("request (5009 tokens) exceeds the available context size (2048 tokens), try increasing it")
    assert "swarmesh spawn rustbee --modelcell NAME --context N" in hint
    assert "swarmesh swarmscale set NAME --context N" in hint
    assert way_on("no such tool") == ""
