"""Rows of figures, and the last of every scenario kept beside the harness: the page is written from several runs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from bench.reliability.plan import Plan

FILE: Final = Path(__file__).parent / "results.json"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table.

    Attributes:
        values: One for each run.
        unit: Behind each value; empty for counts.
        limit: What no value may exceed; None where there is nothing to hold.
        problems: What was wrong, in words; a row with any is missed.
    """

    what: str
    values: tuple[float, ...]
    unit: str = "s"
    limit: float | None = None
    problems: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        """Whether all that was asked of it is so."""
        return bool(self.values) and not self.problems and (self.limit is None or max(self.values) <= self.limit)

    @property
    def median(self) -> float:
        """Of all runs, of which there is at least one."""
        return statistics.median(self.values)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What one scenario brought, with which command, when and on what."""

    name: str
    about: str
    command: str
    machine: dict[str, str]
    rows: list[Row]


class Scenario(Protocol):
    """Something to be measured."""

    name: str
    about: str

    def run(self, plan: Plan) -> list[Row]:
        """Bring up a swarm of its own, measure, take it down."""


def keep(records: Sequence[Record], order: Sequence[str]) -> list[Record]:
    """Put these in the place of the older ones and return all there are, in the order of the scenarios."""
    older = msgspec.json.decode(FILE.read_bytes(), type=list[Record]) if FILE.exists() else []
    known = {record.name: record for record in [*older, *records]}
    kept = [known[name] for name in order if name in known]
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
    return kept
