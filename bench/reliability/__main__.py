"""``python -m bench.reliability``: breaks swarms in every way the project answers for, and counts what was lost."""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
import signal
import sys
import tempfile
from pathlib import Path

from bench.relay.machine import describe

from . import records, report
from .detached import Detached
from .fake import Fake
from .hive import HiveError
from .plan import Plan, Scenario
from .poison import Poison
from .preemption import Preemption
from .queen import Queen
from .queen_http import NoAnswerError, RefusedError
from .recital import Recital
from .records import Record
from .result import Journal, Outcome, Row
from .stopped import Stopped
from .story import Story

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def scenarios() -> list[Scenario]:
    """All of them, in the order of the table."""
    return [Recital(), Story(), Fake(), Queen(), Detached(), Stopped(), Preemption(), Poison()]


def _arguments() -> argparse.Namespace:
    names = [each.name for each in scenarios()]
    parser = argparse.ArgumentParser(prog="python -m bench.reliability", description=__doc__)
    parser.add_argument("--only", metavar="NAME,…", default="", help=f"some of {', '.join(names)}")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each row, in place of its own number")
    parser.add_argument("--quick", action="store_true", help="about a tenth of the runs: a look, not a result")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every run as a line of JSON (default: a new file)")
    parser.add_argument("--write-docs", action="store_true", help=f"writes {PAGE.name} from these and older results")
    arguments = parser.parse_args()
    chosen = [name.strip() for name in arguments.only.split(",") if name.strip()]
    unknown = set(chosen) - set(names)
    if unknown:
        parser.error(f"--only knows {', '.join(names)}; not {', '.join(sorted(unknown))}")
    arguments.chosen = [each for each in scenarios() if not chosen or each.name in chosen]
    return arguments


def main() -> int:
    """Run what was chosen; the exit code is 1 when something did not hold."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that every swarm is taken down.
    path = arguments.json or Path(tempfile.mkdtemp(prefix="reliability-")) / "runs.jsonl"
    plan = Plan(Journal(path), arguments.runs, arguments.quick)
    measured = [_record(scenario, plan) for scenario in arguments.chosen]
    print(report.markdown(measured))
    print(f"\nevery run: {path}", file=sys.stderr)
    if arguments.write_docs:
        order = [each.name for each in scenarios()]
        PAGE.write_text(report.page(records.keep(measured, order)), encoding="utf-8")
    return 0 if all(row.held for record in measured for row in record.outcome.rows) else 1


def _record(scenario: Scenario, plan: Plan) -> Record:
    plan.say(f"{scenario.name}: {scenario.about}")
    how = [*(["--runs", str(plan.runs)] if plan.runs is not None else []), *(["--quick"] if plan.quick else [])]
    command = shlex.join(["python", "-m", "bench.reliability", "--only", scenario.name, *how])
    machine = describe(command, dt.datetime.now(tz=dt.UTC).date().isoformat(), 0)
    facts = {label: text for label, text in machine.items() if label not in {"Command", "Niceness"}}
    return Record(scenario.name, scenario.about, command, facts, _outcome(scenario, plan))


def _outcome(scenario: Scenario, plan: Plan) -> Outcome:
    """What it brought; a scenario that could not be measured is a row too, and not one that held."""
    try:
        return scenario.run(plan)
    except (HiveError, NoAnswerError, RefusedError, AssertionError) as error:
        row = Row(scenario.name, "not measured", 0, "measured", held=False, problems=(str(error),))
        return Outcome([plan.saw(row)])


if __name__ == "__main__":
    sys.exit(main())
