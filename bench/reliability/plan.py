"""How much of it is run, and what every scenario has at hand."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Protocol

from .result import Journal, Outcome, Row


@dataclass(frozen=True)
class Plan:
    """One call of the harness.

    Attributes:
        runs: In place of each scenario's own number.
        quick: A look, not a result: about a tenth of the runs.
    """

    journal: Journal
    runs: int | None = None
    quick: bool = False

    def count(self, full: int) -> int:
        """Runs of something that has ``full`` of them."""
        if self.runs is not None:
            return self.runs
        return max(2, full // 10) if self.quick else full

    def saw(self, row: Row) -> Row:
        """Show a row as soon as it is there, and hand it back."""
        verdict = "held" if row.held else f"missed: {'; '.join(row.problems)}"
        self.say(f"{row.scenario}, {row.fault}: {verdict} ({row.runs} runs, {row.also})")
        return row

    def say(self, words: str) -> None:
        """A line for whoever watches."""
        print(words, file=sys.stderr, flush=True)


class Scenario(Protocol):
    """One kind of trouble."""

    name: str
    about: str

    def run(self, plan: Plan) -> Outcome:
        """Bring up a swarm of its own, break it as planned, take it down."""
