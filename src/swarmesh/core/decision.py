"""One choice of a worker, and why: what `explain` shows, and what a policy script is tried on again."""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.core.figures import figure
from swarmesh.core.ids import Priority, TaskId, WorkerId
from swarmesh.core.ledger_rule import Facts
from swarmesh.core.policies import Parts, parts_of
from swarmesh.core.script_guard import Unheard

CANDIDATES_MAX: Final = 8
"""How many candidates a decision names."""
POLICY_VETO: Final = "policy"
"""What keeps a task from workers that a script will not have it go to."""
POLICY_RETURN: Final = "return"
"""The worker has had this task under the queen before."""
POLICY_PREEMPT: Final = "preempt"
"""The slot was taken from a task of low priority."""
BEST: Final = "best"
ONLY: Final = "only"
TURN: Final = "turn"
SENIOR: Final = "senior"
MEASURED: Final = "measured"
SCRIPT: Final = "script"
NOBODY: Final = "no_rustbees_available"
NOBODY_FOR: Final = {
    Priority.HIGH: "no_experienced_rustbees",
    Priority.MEDIUM: "no_stable_rustbees",
    Priority.LOW: NOBODY,
}
"""Under the policy that gives each priority workers of another age."""
_REASONS: Final = {
    BEST: "it has the best score",
    ONLY: "nobody else was free for it",
    TURN: "equals take turns, and it was given a task longest ago",
    SENIOR: "of equals it has been up the longest",
    SCRIPT: "the script gave it the highest score",
    MEASURED: "it had no task for long, so it is measured again",
}


class Candidate(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One worker that could have taken the task.

    Attributes:
        score: What it was compared by; `Decision.better` says which way.
        said: What the score is made of and was taken from, by name with the unit, where that is known already.
        rule: The policy whose ``facts`` say it: few decisions are ever looked at, so it is put in words only then.
        facts: As they were at the decision.
    """

    worker_id: WorkerId
    score: float
    said: Parts = ()
    rule: str = ""
    facts: Facts = ()

    @property
    def parts(self) -> Parts:
        """What the score is made of and was taken from, by name with the unit."""
        return self.said or parts_of(self.rule, self.facts)


class Decision(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A choice and why.

    Attributes:
        policy: Its name, ``script`` and the name of a script, or why there was nothing to choose.
        chosen: The worker, or None when every candidate was vetoed.
        cost: Score of the chosen worker before this task; the policy says in what.
        considered: How many workers own the model.
        vetoes: How many of them each filter took out, by reason.
        candidates: The best of those that were left, best first, at most `CANDIDATES_MAX`; the chosen one among them.
        reason: Why this one: ``best``, ``only``, ``turn``, ``senior``, ``measured`` or ``script``; or the code of the
            error if there is none.
        better: Whether the ``lower`` or the ``higher`` score wins.
        unheard: Why a policy script had no say in it; None when there was none to ask, or it answered.
    """

    task_id: TaskId
    policy: str
    chosen: WorkerId | None
    cost: float
    considered: int
    vetoes: tuple[tuple[str, int], ...]
    candidates: tuple[Candidate, ...] = ()
    reason: str = ""
    better: str = "lower"
    unheard: Unheard | None = None

    def in_words(self) -> str:
        """One sentence for people and error messages."""
        vetoes = ", ".join(f"{count} {reason}" for reason, count in self.vetoes) or "none vetoed"
        outcome = f"chose {self.chosen}" if self.chosen else "chose none"
        words = f"{self.policy} {outcome} of {self.considered} ({vetoes})"
        if not self.chosen or self.reason not in _REASONS:
            return words
        words += f": {_REASONS[self.reason]}"
        if not self.candidates:
            return words
        others = [f"{item.worker_id} {figure(item.score)}" for item in self.candidates if item.worker_id != self.chosen]
        return f"{words}; {self.better} is better: {figure(self.cost)}" + (f", {', '.join(others)}" if others else "")
