"""Writes the state machines of the core into docs/architecture.md; ``--check`` says whether they are there already."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from swarmesh.core.liveness import LIVENESS_TABLE
from swarmesh.core.task import TASK_TABLE

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
TABLES = {"core.task.TASK_TABLE": TASK_TABLE, "core.liveness.LIVENESS_TABLE": LIVENESS_TABLE}


def rendered(table: object) -> str:
    """One row per state, one column per fact; an empty cell cannot happen."""
    assert isinstance(table, dict)
    states = list(dict.fromkeys([state for state, _ in table] + list(table.values())))
    facts = list(dict.fromkeys(fact for _, fact in table))
    lines = ["| | " + " | ".join(str(fact) for fact in facts) + " |", "|---|" + "---|" * len(facts)]
    for state in states:
        cells = [str(table.get((state, fact), "")) for fact in facts]
        lines.append(f"| **{state}** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Exit status 1 when ``--check`` finds a difference."""
    text = page = PAGE.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        mark = f"<!-- table: {name} -->\n"
        assert mark in page, f"{PAGE.name} has no place for {name}"
        before, after = page.split(mark)
        page = before + mark + rendered(table) + "\n" + re.sub(r"\A(\|.*\n)*", "", after)
    if "--check" in sys.argv[1:]:
        return int(page != text)
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
