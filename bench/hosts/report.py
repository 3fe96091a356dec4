"""The figures as a Markdown table, for the terminal and for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.relay.report import NOTHING, as_table, facts

from .result import Record, Row

HEAD: Final = ("What", "runs", "median", "lowest", "highest", "limit", "verdict")
OF_THE_RUN: Final = ("Date", "Commit", "Load average before")
"""Facts that differ from scenario to scenario; the others are the machine's."""


def markdown(records: Sequence[Record]) -> str:
    """Everything that was measured, what was missed right after it."""
    rows = [row for record in records for row in record.rows]
    wrong = [f"- **{row.what}**: {'; '.join(row.problems) or 'see its limit'}" for row in rows if not row.held]
    sections = [as_table(list(HEAD), [_cells(row) for row in rows])]
    if wrong:
        sections.append("Missed:\n\n" + "\n".join(wrong))
    sections.append("\n".join(_about(record) for record in records))
    machine = {label: text for record in records for label, text in record.machine.items() if label not in OF_THE_RUN}
    return "\n\n".join([*sections, "\n".join(facts(machine))])


def _cells(row: Row) -> list[str]:
    values = [row.median, min(row.values), max(row.values)] if row.values else []
    shown = [_value(value, row.unit) for value in values] or [NOTHING] * 3
    limit = NOTHING if row.limit is None else f"≤ {_value(row.limit, row.unit)}"
    verdict = NOTHING if row.held and row.limit is None else "held" if row.held else "**missed**"
    return [row.what, str(len(row.values)), *shown, limit, verdict]


def _value(value: float, unit: str) -> str:
    digits = 0 if not unit or value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()


def _about(record: Record) -> str:
    run = ", ".join(record.machine.get(label, "") for label in OF_THE_RUN[:2])
    return f"- `{record.command}` ({run}): {record.about}."
