"""``python -m bench.hosts``: swarms of several machines, made of namespaces on this one. Takes root, and Linux."""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
import signal
import sys
from typing import Final

from bench.relay.installs import REPOSITORY
from bench.relay.machine import describe
from bench.relay.report import write_between_markers
from bench.reliability.hive import HiveError
from bench.reliability.plan import Plan
from bench.reliability.queen_http import NoAnswerError, RefusedError
from bench.reliability.result import Journal

from . import bed, report
from .adoption import Adoption
from .copying import Copying
from .fleet import Fleet
from .install import Install
from .link import Link
from .result import Record, Row, Scenario, keep

PAGE: Final = REPOSITORY / "docs" / "benchmarks.md"
SECTION: Final = "hosts"


def scenarios() -> list[Scenario]:
    """All of them, in the order of the table."""
    return [Install(), Fleet(), Link(), Adoption(), Copying()]


def _arguments() -> argparse.Namespace:
    names = [each.name for each in scenarios()]
    parser = argparse.ArgumentParser(prog="python -m bench.hosts", description=__doc__)
    parser.add_argument("--only", metavar="NAME,…", default="", help=f"some of {', '.join(names)}")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each, in place of its own number")
    parser.add_argument("--quick", action="store_true", help="few, small runs: a look, not a result")
    parser.add_argument("--write-docs", action="store_true", help=f"writes {PAGE.name} from these and older results")
    arguments = parser.parse_args()
    chosen = [name.strip() for name in arguments.only.split(",") if name.strip()]
    unknown = set(chosen) - set(names)
    if unknown:
        parser.error(f"--only knows {', '.join(names)}; not {', '.join(sorted(unknown))}")
    if arguments.runs is not None and arguments.runs < 1:
        parser.error("--runs is 1 or more")
    if arguments.quick and arguments.write_docs:
        parser.error("--quick measures less than the page says; it does not go with --write-docs")
    arguments.chosen = [each for each in scenarios() if not chosen or each.name in chosen]
    return arguments


def main() -> int:
    """Run what was chosen; the exit code is 1 when something did not hold."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that every swarm is taken down.
    if reason := bed.unavailable():
        print(f"no machines can be made here: {reason}")
        return 2
    plan = Plan(Journal(None), arguments.runs, arguments.quick)
    measured = [_record(scenario, plan) for scenario in arguments.chosen]
    print(report.markdown(measured))
    if arguments.write_docs:
        kept = keep(measured, [each.name for each in scenarios()])
        write_between_markers(PAGE, SECTION, report.markdown(kept))
    return 0 if all(row.held for record in measured for row in record.rows) else 1


def _record(scenario: Scenario, plan: Plan) -> Record:
    plan.say(f"{scenario.name}: {scenario.about}")
    how = [*(["--runs", str(plan.runs)] if plan.runs is not None else []), *(["--quick"] if plan.quick else [])]
    command = shlex.join(["python", "-m", "bench.hosts", "--only", scenario.name, *how])
    machine = describe(command, dt.datetime.now(tz=dt.UTC).date().isoformat(), 0)
    known = {label: text for label, text in machine.items() if label not in {"Command", "Niceness"}}
    return Record(name=scenario.name, about=scenario.about, command=command, machine=known, rows=_rows(scenario, plan))


def _rows(scenario: Scenario, plan: Plan) -> list[Row]:
    """What it brought; a scenario that could not be measured is a row too, and not one that held."""
    try:
        return scenario.run(plan)
    except (HiveError, NoAnswerError, RefusedError, AssertionError) as error:
        plan.say(f"{scenario.name}: not measured: {error}")
        return [Row(what=f"{scenario.name}: not measured", values=(), problems=(str(error),))]


if __name__ == "__main__":
    sys.exit(main())
