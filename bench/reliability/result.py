"""Runs, one JSON line each, and the rows of the table they add up to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

PROBLEMS_SHOWN: Final = 3


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer that was (to be) broken.

    Attributes:
        asked_index: Where the fault was to come, in tokens the client had.
        cut_index: Where it came; None when it could not be told.
        mid_stream: Whether the answer was under way when the fault came; if not, the run says nothing.
        detected_ms: From the fault to the alarm about it.
        gap_ms: Longest silence after the fault.
        recovered_ms: From the fault until the answer went on.
        problems: What was wrong, in words.
    """

    scenario: str
    fault: str
    asked_index: int = -1
    cut_index: int | None = None
    mid_stream: bool = True
    identical: bool = True
    usage_equal: bool = True
    lost: int = 0
    doubled: int = 0
    detected_ms: float | None = None
    gap_ms: float | None = None
    recovered_ms: float | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spread:
    """Median and 99th percentile (nearest rank)."""

    p50: float
    p99: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """None where nothing was measured."""
        known = sorted(value for value in values if value is not None)
        return cls(_rank(known, 0.50), _rank(known, 0.99)) if known else None


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        goal: What has to hold, in words; ``held`` is whether it did.
        also: Further figures, by name.
        problems: A few of the things that were wrong.
        identical: Share of runs that equal the unbroken one; None where that is not the question.
    """

    scenario: str
    fault: str
    runs: int
    goal: str
    held: bool
    lost: int = 0
    doubled: int = 0
    identical: float | None = None
    detected: Spread | None = None
    gap: Spread | None = None
    recovered: Spread | None = None
    also: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Figures that do not fit a row, with a heading of their own."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass
class Outcome:
    """What one scenario brought."""

    rows: list[Row] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


class Journal:
    """Where runs are written as they end, so that a broken harness loses none of them.

    Args:
        path: File of JSON lines; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            path.write_bytes(b"")

    def write(self, run: Run) -> Run:
        """Append a run and hand it back."""
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(run) + b"\n")
        return run


def row_of(
    runs: Sequence[Run],
    goal: str,
    *,
    wanted: int,
    also: dict[str, str] | None = None,
    wrong: tuple[str, ...] = (),
) -> Row:
    """Add up runs of one scenario and fault.

    It holds when ``wanted`` of them were hit, each of those equals the unbroken run, and nothing else is ``wrong``.
    """
    assert runs, "a row has runs"
    hit = [run for run in runs if run.mid_stream]
    unequal = [run for run in hit if not (run.identical and run.usage_equal) or run.problems]
    facts = {"hit in mid-stream": f"{len(hit)} of {len(runs)}"}
    cuts = [run.cut_index for run in hit if run.cut_index is not None]
    if cuts:
        facts["cut after tokens"] = f"{min(cuts)} to {max(cuts)}, {len(set(cuts))} different"
    if any(not run.usage_equal for run in hit):
        facts["usage not equal"] = str(sum(not run.usage_equal for run in hit))
    return Row(
        scenario=runs[0].scenario,
        fault=runs[0].fault,
        runs=len(hit),
        goal=goal,
        held=len(hit) >= wanted and not unequal and not wrong,
        lost=sum(run.lost for run in hit),
        doubled=sum(run.doubled for run in hit),
        identical=sum(run.identical for run in hit) / len(hit) if hit else None,
        detected=Spread.of(run.detected_ms for run in hit),
        gap=Spread.of(run.gap_ms for run in hit),
        recovered=Spread.of(run.recovered_ms for run in hit),
        also={**facts, **(also or {})},
        problems=(*wrong, *problems_of(unequal)),
    )


def problems_of(runs: Iterable[Run]) -> tuple[str, ...]:
    """A few problems, each once, with where it was."""
    found = [f"{problem} (asked at {run.asked_index})" for run in runs for problem in run.problems or ("differs",)]
    return tuple(dict.fromkeys(found))[:PROBLEMS_SHOWN]


def _rank(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
