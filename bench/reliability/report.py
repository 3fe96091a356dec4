"""The table, fault by fault, for the terminal and for docs/reliability.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .records import Record
from .result import Row, Spread, Table

NOTHING: Final = "-"
OF_THE_RUN: Final = ("Date", "Commit", "Load average before")
"""Facts that differ from scenario to scenario; the others are the machine's."""
HEAD: Final = (
    "Scenario",
    "Fault",
    "Runs",
    "Detected, ms p50 / p99",
    "Gap, ms p50 / p99",
    "Recovered, ms p50 / p99",
    "Tokens lost",
    "Doubled",
    "Identical",
    "Verdict",
)
PAGE: Final = """# Reliability

What happens to answers, tasks and clients when something dies: counted, fault by fault. `python -m bench.reliability
--write-docs` writes this page from what it measured, and what was lost or missed stands in the same table.

- **Runs** are those in which the fault came while the answer was under way. Where one came too late it does not count.
- **Detected** is the time from the fault to the alarm about it, where there was an alarm.
- **Gap** is the longest silence the client saw after the fault; **recovered** is the time from the fault to the end of
  the first silence of at least half that length, which is when the answer went on.
- **Tokens lost** and **doubled** are counted at the client, by event numbers and by text.
- **Identical** is the share of runs that equal the unbroken one: text, ends and numbering.

{text}
"""


def page(records: Sequence[Record]) -> str:
    """The whole page."""
    return PAGE.format(text=markdown(records))


def markdown(records: Sequence[Record]) -> str:
    """Everything that was measured, what was missed first after the table."""
    rows = [row for record in records for row in record.outcome.rows]
    tables = [table for record in records for table in record.outcome.tables]
    wrong = [f"- **{row.scenario}, {row.fault}**: {_why(row)}" for row in rows if not row.held]
    sections = [
        _table(HEAD, [_cells(row) for row in rows]),
        "## Missed\n\n" + ("\n".join(wrong) if wrong else "Nothing."),
        *(_extra(table) for table in tables),
        "## What the rows are, and how to make them again",
        *(_details(record) for record in records),
        "## Machine\n\n" + "\n".join(_machine(records)),
    ]
    return "\n\n".join(sections)


def _cells(row: Row) -> list[str]:
    return [
        row.scenario,
        row.fault,
        str(row.runs),
        _spread(row.detected),
        _spread(row.gap),
        _spread(row.recovered),
        str(row.lost),
        str(row.doubled),
        NOTHING if row.identical is None else f"{row.identical:.1%}",
        "held" if row.held else "**missed**",
    ]


def _details(record: Record) -> str:
    facts = ", ".join(record.machine.get(name, "") for name in OF_THE_RUN[:2])
    lines = [f"### {record.name}", "", f"{record.about[0].upper()}{record.about[1:]}.", ""]
    lines += ["```", record.command, "```", "", f"Run of {facts}.", ""]
    for row in record.outcome.rows:
        also = "; ".join(f"{label}: {text}" for label, text in row.also.items())
        lines.append(f"- {row.fault}. Has to be {row.goal}." + (f" {also[0].upper()}{also[1:]}." if also else ""))
    return "\n".join(lines)


def _machine(records: Sequence[Record]) -> list[str]:
    seen = {(label, text) for record in records for label, text in record.machine.items() if label not in OF_THE_RUN}
    return [f"- {label}: {text}" for label, text in sorted(seen)]


def _why(row: Row) -> str:
    facts = "; ".join(" ".join(problem.split()) for problem in row.problems) or "see what it has to be"
    return f"has to be {row.goal}; {facts}"


def _extra(table: Table) -> str:
    return f"## {table.title}\n\n" + _table(table.head, [list(cells) for cells in table.rows])


def _spread(spread: Spread | None) -> str:
    return NOTHING if spread is None else f"{spread.p50:,.0f} / {spread.p99:,.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
