"""Texts of other machines: what steers a terminal is gone, and nothing is too long."""

from __future__ import annotations

import pytest

from swarmesh.hosts.host import HostFacts, HostLayout
from swarmesh.hosts.said import (
    HINT_CHARS_MAX,
    MESSAGE_CHARS_MAX,
    STEP_CHARS_MAX,
    TAIL_CHARS_MAX,
    plain,
    plain_lines,
    plain_step,
    plain_value,
    told_error,
)
from swarmesh.wire.errors import ErrorBody
from swarmesh.wire.hosts import CheckView, Step, StepState

STEERING = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]


def test_a_text_is_one_line_without_control_characters() -> None:
    assert plain("a\x1b]0;title\x07b\x9b31mc\r\nd") == "a ]0;title b 31mc d"
    assert plain("".join(f"x{each}" for each in STEERING)) == " ".join("x" * len(STEERING))
    assert plain("na\u00efve \u65e5\u672c") == "na\u00efve \u65e5\u672c"


def test_the_end_of_a_log_keeps_its_lines() -> None:
    assert plain_lines("one\r\n\ttwo\x1b[2J\x9b\n") == "one\n\ttwo[2J\n"
    assert len(plain_lines("x" * (2 * TAIL_CHARS_MAX))) == TAIL_CHARS_MAX


def test_lengths_are_bounded() -> None:
    assert len(plain("x" * 10_000)) == MESSAGE_CHARS_MAX + 1
    assert len(plain("\0" * 10_000_000 + "x")) == 0
    step = plain_step(Step(step="look\x1b", state=StepState.DONE, text="x\x1b" * 10_000, done_bytes=1))
    assert (step.step, step.state, step.done_bytes) == ("look", StepState.DONE, 1)
    assert len(step.text) <= STEP_CHARS_MAX + 1


@pytest.mark.parametrize(
    ("status", "raised"), [(404, 404), (599, 599), (200, 502), (0, 502), (-1, 502), (100_000, 502)]
)
def test_an_error_has_a_status_of_an_error(status: int, raised: int) -> None:
    assert told_error(ErrorBody(code="c", message="m"), status).status == raised


@pytest.mark.parametrize("code", ["", "A", "a b", "a\n", "x" * 65, "\x1b"])
def test_an_error_is_told_apart_by_a_word(code: str) -> None:
    error = told_error(ErrorBody(code=code, message="m\x1b[31m" * 1_000, hint="h\n" * 10_000, type=code, param="p\0"))
    assert (error.code, error.type, error.param) == ("unexpected_answer", "server_error", "p")
    assert len(error.message) <= MESSAGE_CHARS_MAX + 1
    assert len(error.hint) <= HINT_CHARS_MAX + 1
    assert "\x1b" not in error.message
    assert "\n" not in error.hint
    assert told_error(ErrorBody(code="host_in_use", message="m")).code == "host_in_use"


def test_every_text_of_a_value_is_plain_and_all_else_stays() -> None:
    layout = HostLayout(root="/r", workers_dir="/w", sockets_dir="/s", queen_file="/q\x1b")
    facts = HostFacts(name="mac\x1b[2J", total_mib=7, available_mib=5, cpu_cores=3, layout=layout, system="Li\0nux")
    clean = plain_value(facts)
    assert (clean.name, clean.system, clean.layout.queen_file, clean.total_mib) == ("mac [2J", "Li nux", "/q", 7)
    checks = plain_value([CheckView(what="a\x07", verdict="ok", found="f")])
    assert checks == [CheckView(what="a", verdict="ok", found="f")]
