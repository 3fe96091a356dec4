"""``python -m bench.relay``: measures the queen beside her peers and prints the tables."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shlex
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from . import report
from .contenders import Router, contenders
from .installs import REPOSITORY
from .machine import describe
from .measure import MEASUREMENTS, QUICK, Plan
from .process_tree import LOAD_CORE, ROUTER_CORE, has_both_cores, set_niceness
from .session import run
from .summary import Summary

PAGE = REPOSITORY / "docs" / "benchmarks.md"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description=__doc__)
    parser.add_argument("--only", type=_names, metavar="NAME,…", help="those whose name begins so, e.g. queen,nginx")
    parser.add_argument("--measure", type=_names, metavar="WHAT,…", help=f"some of {', '.join(MEASUREMENTS)}")
    parser.add_argument("--quick", action="store_true", help="a second or two for each item: a look, not a result")
    parser.add_argument("--extras", action="store_true", help="also the Rust routers' cache_aware policy")
    parser.add_argument("--niceness", type=int, default=0, help="below 0 (root) keeps others off the two cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every round's figures")
    parser.add_argument("--write-docs", action="store_true", help=f"rewrites the tables in {PAGE.name}")
    parser.add_argument("--date", default="", help="the date the page shows (default: today)")
    arguments = parser.parse_args()
    unknown = set(arguments.measure or []) - set(MEASUREMENTS)
    if unknown:
        parser.error(f"--measure knows {', '.join(MEASUREMENTS)}; not {', '.join(sorted(unknown))}")
    return arguments


def _chosen(only: list[str] | None, *, extras: bool) -> list[Router]:
    everyone = contenders()
    usual = [router for router in everyone if extras or not router.extra]
    return usual if only is None else [router for router in usual if router.name.startswith(tuple(only))]


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    if not has_both_cores():
        print(f"this benchmark needs Linux and the cores {ROUTER_CORE} and {LOAD_CORE}")
        return 2
    if arguments.niceness:
        set_niceness(arguments.niceness)
    routers = _chosen(arguments.only, extras=arguments.extras)
    if not routers:
        print(f"no contender is called {arguments.only}: {', '.join(each.name for each in contenders())}")
        return 2
    command = shlex.join(["python", "-m", "bench.relay", *sys.argv[1:]])
    date = arguments.date or dt.datetime.now(tz=dt.UTC).date().isoformat()
    machine = describe(command, date, arguments.niceness)
    outcomes = run(routers, QUICK if arguments.quick else Plan(), arguments.measure or list(MEASUREMENTS))
    text = report.markdown(Summary(outcomes), machine)
    print(text)
    if arguments.json:
        rounds = {"machine": machine, "outcomes": [asdict(outcome) for outcome in outcomes]}
        arguments.json.write_text(json.dumps(rounds, indent=1), encoding="utf-8")
    if arguments.write_docs:
        report.write_between_markers(PAGE, "relay", text)
    return 1 if any(outcome.failed_under_load for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
