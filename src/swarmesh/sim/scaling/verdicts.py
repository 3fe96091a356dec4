"""What must hold of a swarm that scales itself, by name, and what did not."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum


class Check(StrEnum):
    """The promises, each looked at in every run."""

    BOUNDS = "bounds"
    """Never more workers than the owner allows, those that start counted in; never more than a while after fewer
    were allowed."""
    MIN = "min"
    """As many as the owner wants at least, within the time that starting them takes."""
    ONE_ACTION = "one_action"
    """Nothing is begun for a model while something is under way for it."""
    REVERSALS = "reversals"
    """At even load at most one change of direction in ten minutes."""
    SETTLES = "settles"
    """At even load the number of workers finds its level."""
    NO_FAILURE = "no_failure"
    """No request fails unless its model cannot be placed."""
    BUSY = "busy"
    """No worker is stopped with tasks on it, nor even drained except for a model that has nobody."""
    MEMORY = "memory"
    """No host holds more than it has."""
    PATIENCE = "patience"
    """Every request has its end, and none waits longer than the trace explains."""
    PAUSE = "pause"
    """Nothing is begun while the owner has paused it."""
    IDLE = "idle"
    """A model that nobody asks for does not stay, if none of it is to be kept."""
    BREAKER = "breaker"
    """What cannot be placed is not tried again and again."""


class Verdicts:
    """Which promises were broken, how often, and how it looked for the first time."""

    def __init__(self) -> None:
        self.counts: Counter[Check] = Counter()
        self.first: dict[Check, str] = {}
        self.now_ms = 0

    def demand(self, check: Check, holds: bool, words: str, *facts: object) -> None:  # noqa: FBT001 - a sentence
        """Let a true statement pass, and write a false one down; ``facts`` are put into the braces of ``words``."""
        if not holds:
            self.counts[check] += 1
            self.first.setdefault(check, f"at {self.now_ms / 1_000:.1f} s: {words.format(*facts)}")
