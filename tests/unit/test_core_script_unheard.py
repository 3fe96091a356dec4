"""A decision that a policy script had no say in says so: late, away, failed or off."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from core_hive import Hive
from swarmesh.core.commands import StartStream
from swarmesh.core.decision import Decision
from swarmesh.core.events import StreamEnded
from swarmesh.core.ids import TaskId, WorkerId
from swarmesh.core.script import Facts, Hook, ScriptAwayError, ScriptFailedError, ScriptLateError
from swarmesh.core.script_guard import BECAUSE_CHARS_MAX, FAILURES_MAX
from swarmesh.core.task import Task

SCORE, ADMIT = Hook.SCORE, Hook.ADMIT
LATE, AWAY, WRONG = ScriptLateError("25 ms"), ScriptAwayError("starting"), ScriptFailedError("mine.star:3:9: no")


class Moody:
    """Says the same of every worker, or has no answer."""

    name = "mine.star"

    def __init__(self, *hooks: Hook, trouble: ScriptFailedError | None = None, opinion: float | None = 1.0) -> None:
        self.hooks = frozenset(hooks)
        self.trouble = trouble
        self.opinion = opinion

    def admit(self, _task: Facts) -> str | None:
        if self.trouble is not None:
            raise self.trouble
        return None

    def score(self, _task: Facts, workers: Sequence[Facts]) -> Sequence[float | None]:
        if self.trouble is not None:
            raise self.trouble
        return [self.opinion for _ in workers]

    def place(self, _model: Facts, _hosts: Sequence[Facts]) -> Sequence[float | None]:
        raise AssertionError

    def scale(self, _model: Facts, _stats: Facts) -> int | None:
        raise AssertionError


def hive_with(script: Moody) -> Hive:
    hive = Hive("a", "b", slots=8)
    hive.swarm.set_script(script)
    return hive


def decided(hive: Hive, name: str) -> Decision:
    """The decision about a task that is handed in, and started."""
    hive.submit(name)
    return hive.only(StartStream).decision


def words(decision: Decision, *, with_reason: bool = True) -> str:
    """Why the script had no say in it."""
    unheard = decision.unheard
    return unheard.in_words(is_kept=decision.chosen is None, with_reason=with_reason) if unheard is not None else ""


def task(name: str) -> Task:
    waiting = Hive("a", slots=8)
    waiting.submit(name)
    return waiting.task(name)


@pytest.mark.parametrize(
    ("trouble", "beginning"),
    [
        (LATE, "policy script 'mine.star' gave no answer in time"),
        (AWAY, "policy script 'mine.star' could not be asked: its process was being started, or still at an earlier"),
        (WRONG, "policy script 'mine.star' failed: score: mine.star:3:9: no"),
    ],
)
def test_a_decision_says_why_the_script_had_no_say(trouble: ScriptFailedError, beginning: str) -> None:
    script = Moody(SCORE, trouble=trouble)
    hive = hive_with(script)
    decision = hive.swarm.router.choose(task("t"), hive.now_ms)
    assert (decision.policy, decision.chosen) == ("swarm", "a")
    said = words(decision)
    assert said.startswith(beginning)
    assert said.endswith("; the built-in rule decided")
    script.trouble = None
    decision = hive.swarm.router.choose(task("t"), hive.now_ms)
    assert (decision.policy, words(decision)) == ("script mine.star", "")


def test_every_decision_says_that_the_script_is_off_until_another_is_used() -> None:
    hive = hive_with(Moody(SCORE, trouble=WRONG))
    for number in range(FAILURES_MAX):
        decided(hive, f"t{number}")
    assert hive.swarm.scripted.is_off
    off = "policy script 'mine.star' is off after 3 failures in a row"
    for name in ("u", "v"):
        decision = decided(hive, name)
        assert decision.policy == "swarm"
        assert words(decision) == f"{off}: score: mine.star:3:9: no; the built-in rule decided"
        assert words(decision, with_reason=False) == f"{off}; the built-in rule decided"
    hive.swarm.set_script(None)
    assert decided(hive, "w").unheard is None


def test_it_is_off_for_scores_whatever_else_failed() -> None:
    hive = hive_with(Moody(SCORE, ADMIT, trouble=WRONG))
    while not hive.swarm.scripted.is_off:
        hive.swarm.scripted.admit({})
    said = words(decided(hive, "t"))
    assert "is off after 3 failures in a row: admit: mine.star:3:9: no" in said


def test_a_script_without_scores_is_not_missed() -> None:
    hive = hive_with(Moody(ADMIT, trouble=LATE))
    assert decided(hive, "t").unheard is None
    hive.swarm.set_script(Moody(ADMIT, trouble=WRONG))
    while not hive.swarm.scripted.is_off:
        hive.swarm.scripted.admit({})
    assert decided(hive, "u").unheard is None


def test_what_a_late_admit_turned_out_to_be_is_said_where_a_score_was_wanted() -> None:
    overdue = ScriptFailedError("admit gave no answer within 250 ms")
    overdue.hook = ADMIT
    decision = decided(hive_with(Moody(SCORE, trouble=overdue)), "t")
    assert "failed: admit: admit gave no answer within 250 ms" in words(decision)


def test_a_task_that_was_kept_stays_kept_and_that_is_said() -> None:
    script = Moody(SCORE, opinion=None)
    hive = hive_with(script)
    hive.submit("kept")
    script.trouble = LATE
    decision = hive.swarm.router.choose(hive.task("kept"), hive.now_ms)
    assert (decision.chosen, decision.vetoes) == (None, (("policy", 2),))
    assert words(decision) == (
        "policy script 'mine.star' gave no answer in time; "
        "it had kept the task from every rustbee, which holds until it answers"
    )


def test_nobody_is_asked_while_nobody_is_free() -> None:
    hive = hive_with(Moody(SCORE, trouble=LATE))
    for number in range(16):
        hive.submit(f"t{number}")
    hive.submit("waits")
    assert hive.swarm.router.choose(hive.task("waits"), hive.now_ms).unheard is None
    hive.tell(StreamEnded(TaskId("t0"), 1))
    assert hive.only(StartStream).decision.unheard is not None


def test_what_is_kept_of_a_failure_is_bounded() -> None:
    decision = decided(hive_with(Moody(SCORE, trouble=ScriptFailedError("x" * 5_000))), "t")
    assert decision.unheard is not None
    assert len(decision.unheard.because) == BECAUSE_CHARS_MAX


def test_decisions_are_packed_with_it_and_those_of_before_are_read() -> None:
    decision = decided(hive_with(Moody(SCORE, trouble=WRONG)), "t")
    packed = msgspec.msgpack.encode(decision)
    read = msgspec.msgpack.decode(packed, type=Decision)
    assert words(read) == words(decision) != ""
    before = msgspec.msgpack.encode(msgspec.msgpack.decode(packed)[:-1])
    assert msgspec.msgpack.decode(before, type=Decision).unheard is None
    plain = Decision(TaskId("t"), "swarm", WorkerId("a"), 0.0, 1, ())
    assert msgspec.msgpack.encode(plain)[-1:] == b"\xc0", "nothing, in one byte"
