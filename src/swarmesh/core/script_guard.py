"""Asking a policy script without depending on it: what it fails to say, the built-in rules decide."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from swarmesh.core.ids import ModelName
from swarmesh.core.script import Facts, Hook, Script, ScriptAwayError, ScriptFailedError, ScriptLateError
from swarmesh.core.script_turns import ScaleTurns

_Opinion = TypeVar("_Opinion")

FAILURES_MAX: Final = 3
"""Failures of one function in a row after which the script is not asked any more."""
BECAUSE_CHARS_MAX: Final = 300
"""Of what it did wrong: each decision that was made without it keeps that."""
LATE: Final = "gave no answer in time"
AWAY: Final = "could not be asked: its process was being started, or still at an earlier question"
FAILED: Final = "failed"
OFF: Final = f"is off after {FAILURES_MAX} failures in a row"
BY_RULE: Final = "the built-in rule decided"
STAYS_KEPT: Final = "it had kept the task from every rustbee, which holds until it answers"


class Unheard(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Why a script has no say in a decision.

    Attributes:
        script: Its name.
        what: What it did, or does, in place of an answer: `LATE`, `AWAY`, `FAILED` or `OFF`.
        because: What was wrong, in words; they may be about another task, of another key. Empty for `LATE` and `AWAY`.
    """

    script: str
    what: str
    because: str = ""

    def in_words(self, *, is_kept: bool, with_reason: bool) -> str:
        """In a sentence.

        Args:
            is_kept: What followed: the task is still kept from all workers; else the built-in rule decided.
            with_reason: Say ``because`` as well.
        """
        reason = f": {self.because}" if with_reason and self.because else ""
        return f"policy script {self.script!r} {self.what}{reason}; {STAYS_KEPT if is_kept else BY_RULE}"


class Scripted:
    """The script in use, if any. None is no opinion: there is no script, no such function, or it failed.

    Attributes:
        failures: How often it has failed since it is in use.
        last_error: What it did wrong last, in words; empty if nothing yet.
        is_off: It failed too often and is not asked any more.
        is_away: It could not answer the last question in time.
        unheard: Why the last question has no answer, or why none is put any more; None when it has one.
        has_score: It has a `score`, be it asked or turned off.
        turns: Of which models it is asked how many workers they ought to have, and what it said last.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.use(script)

    def use(self, script: Script | None) -> None:
        """Ask this script from now on, or none; what the one before it did is forgotten."""
        self._script = script
        self._hooks: frozenset[Hook] = script.hooks if script is not None else frozenset()
        self._in_a_row: Counter[Hook] = Counter()
        self._alarm: str | None = None
        self.turns = ScaleTurns()
        self.failures = 0
        self.last_error = ""
        self.is_off = False
        self.is_away = False
        self.unheard: Unheard | None = None
        self.has_score = Hook.SCORE in self._hooks

    @property
    def name(self) -> str:
        """Of the script; empty when there is none."""
        return self._script.name if self._script is not None else ""

    def has(self, hook: Hook) -> bool:
        """Whether there is such a function to be asked; cheap, so that nobody collects facts for nothing."""
        return hook in self._hooks

    def admit(self, task: Facts) -> str | None:
        """Why the task is not let in; None when it is, or when there is no opinion."""
        return self._ask(Hook.ADMIT, lambda script: _reason(script.admit(task)))

    def score(self, task: Facts, workers: Sequence[Facts]) -> Sequence[float | None] | None:
        """One number for each worker in order, the highest wins; None for a worker keeps the task from it."""
        return self._ask(Hook.SCORE, lambda script: _scores(script.score(task, workers), len(workers)))

    def place(self, model: Facts, hosts: Sequence[Facts]) -> Sequence[float | None] | None:
        """One number for each host in order, the highest wins; None for a host keeps the model from it."""
        return self._ask(Hook.PLACE, lambda script: _scores(script.place(model, hosts), len(hosts)))

    def scale(self, model: Facts, stats: Facts) -> int | None:
        """How many workers the model ought to have; what it said last while it is another model's turn."""
        name = ModelName(str(model.get("name", "")))
        if not self.turns.is_due(name):
            return self.turns.last(name)
        count = self._ask(Hook.SCALE, lambda script: _count(script.scale(model, stats)))
        self.turns.answered(name, count)
        return count

    def take_alarm(self) -> str | None:
        """What people must know, told once: that the script was turned off, and why."""
        alarm, self._alarm = self._alarm, None
        return alarm

    def _ask(self, hook: Hook, question: Callable[[Script], _Opinion]) -> _Opinion | None:
        if self._script is None or hook not in self._hooks:
            return None
        try:
            opinion = question(self._script)
        except ScriptAwayError as error:
            self.is_away = True  # No fault of the script: nothing is counted.
            self._not_heard(LATE if isinstance(error, ScriptLateError) else AWAY)
            return None
        except ScriptFailedError as error:
            self.is_away = False
            self._failed(error.hook or hook, error)
            return None
        self._in_a_row[hook], self.is_away, self.unheard = 0, False, None
        return opinion

    def _failed(self, hook: Hook, error: ScriptFailedError) -> None:
        # Counted for each function: that `admit` works would else hide that `score` never does.
        self.failures += 1
        self._in_a_row[hook] += 1
        self.last_error = f"{hook}: {error.message}"
        self._not_heard(FAILED, self.last_error)
        if self._in_a_row[hook] < FAILURES_MAX:
            return
        self.is_off, self._hooks = True, frozenset()
        self._not_heard(OFF, self.last_error)
        self._alarm = (
            f"policy script {self.name!r} was turned off: {hook} failed {FAILURES_MAX} times in a row, "
            f"last because: {error.message}"
        )

    def _not_heard(self, what: str, because: str = "") -> None:
        self.unheard = Unheard(self.name, what, because[:BECAUSE_CHARS_MAX])


def _reason(answer: object) -> str | None:
    if answer is None or (isinstance(answer, str) and answer):
        return answer
    raise ScriptFailedError(f"admit answered {answer!r:.100}, wanted None or the reason for a refusal")


def _scores(answer: Sequence[object], count: int) -> list[float | None]:
    if len(answer) != count:
        raise ScriptFailedError(f"{len(answer)} scores for {count} candidates, wanted one for each")
    return [None if score is None else _number(score) for score in answer]


def _number(score: object) -> float:
    if isinstance(score, (int, float)) and not isinstance(score, bool) and math.isfinite(score):
        return float(score)
    raise ScriptFailedError(f"{score!r:.100} is no score, wanted a number or None")


def _count(answer: object) -> int | None:
    if answer is None or (isinstance(answer, int) and not isinstance(answer, bool) and answer >= 0):
        return answer
    raise ScriptFailedError(f"scale answered {answer!r:.100}, wanted a number of rustbees or None")
