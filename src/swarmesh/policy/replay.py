"""A script over decisions that were made without it: what would it have changed?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from swarmesh.core.script import Facts, Hook
from swarmesh.policy.mistake import ScriptMistakeError
from swarmesh.policy.patient import Opinion, PatientScript

CHANGES_SHOWN_MAX: Final = 200
FAILURES_SHOWN_MAX: Final = 20
REFUSED: Final = "refused"
WAITS: Final = "waits"
ADMITTED: Final = "let in"


class Recorded(msgspec.Struct, frozen=True):
    """One decision as it was made.

    Attributes:
        at_s: Unix seconds.
        subject: The task or the model it was about.
        arguments: What the hook would have been given then, in order.
        chosen: The id or name that was chosen; for ``scale`` the number; else `ADMITTED`, `REFUSED` or `WAITS`.
        options: Ids or names of the candidates, in the order of the arguments' list.
    """

    hook: Hook
    at_s: float
    subject: str
    arguments: Sequence[Facts | Sequence[Facts]]
    chosen: str = ""
    options: tuple[str, ...] = ()


class Change(msgspec.Struct, frozen=True):
    """A decision that would have been another one; ``was`` and ``would_be`` are as in `Recorded.chosen`."""

    hook: str
    at_s: float
    subject: str
    was: str
    would_be: str


class Failed(msgspec.Struct, frozen=True):
    """A decision for which the script had no usable answer."""

    hook: str
    at_s: float
    subject: str
    why: str


class ReplayReport(msgspec.Struct, frozen=True):
    """What came of a replay.

    Attributes:
        decisions: How many were recorded.
        asked: Of those, the script has the function for.
        changed: Of those, it would have decided otherwise.
        failed: Of those, it had no usable answer; the built-in policy would have decided.
        changes: The first of them.
        failures: The first of them.
    """

    decisions: int = 0
    asked: int = 0
    changed: int = 0
    failed: int = 0
    changes: tuple[Change, ...] = ()
    failures: tuple[Failed, ...] = ()


class Replay:
    """Asks a script about decisions in order, each at the time it was made, in a process of its own that it waits for.

    Raises:
        ScriptFailedError: The script cannot be loaded.
    """

    def __init__(self, name: str, source: str) -> None:
        self._at_s = 0.0
        self._patient = PatientScript(name, source, clock=lambda: self._at_s, said=lambda _lines: None)
        self._decisions = self._asked = self._changed = self._failed = 0
        self._changes: list[Change] = []
        self._failures: list[Failed] = []

    def take(self, decision: Recorded) -> None:
        """Ask about one."""
        self._decisions += 1
        if decision.hook not in self._patient.script.hooks:
            return
        self._asked += 1
        self._at_s = decision.at_s
        try:
            would_be = _outcome(decision, self._patient.ask(decision.hook, decision.arguments))
        except ScriptMistakeError as error:
            self._fail(decision, error.message)
            return
        if would_be != decision.chosen:
            self._change(decision, would_be)

    def report(self) -> ReplayReport:
        """What came of it so far."""
        return ReplayReport(
            self._decisions, self._asked, self._changed, self._failed, tuple(self._changes), tuple(self._failures)
        )

    def close(self) -> None:
        """End its process."""
        self._patient.close()

    def _change(self, decision: Recorded, would_be: str) -> None:
        self._changed += 1
        if len(self._changes) < CHANGES_SHOWN_MAX:
            self._changes.append(Change(decision.hook, decision.at_s, decision.subject, decision.chosen, would_be))

    def _fail(self, decision: Recorded, why: str) -> None:
        self._failed += 1
        if len(self._failures) < FAILURES_SHOWN_MAX:
            self._failures.append(Failed(decision.hook, decision.at_s, decision.subject, why))


def _outcome(decision: Recorded, opinion: Opinion) -> str:
    """What would have come of an opinion, in the words of `Recorded.chosen`."""
    match opinion:
        case None if decision.hook is Hook.ADMIT:
            return ADMITTED
        case None:
            return decision.chosen  # No opinion: the built-in rule decides as it did.
        case str():
            return REFUSED
        case int():
            return str(opinion)
        case _:
            return _best(decision, opinion)


def _best(decision: Recorded, scores: Sequence[float | None]) -> str:
    offered = [(score, option) for score, option in zip(scores, decision.options, strict=True) if score is not None]
    if not offered:
        return WAITS
    highest = max(score for score, _ in offered)
    best = [option for score, option in offered if score == highest]
    # Of equals the built-in policy's choice stays.
    return decision.chosen if decision.chosen in best else best[0]
