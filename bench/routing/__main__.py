"""``python -m bench.routing``: who gets a request, by the swarm's policies and by other projects' formulas."""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
import sys
from typing import Final

from bench.relay.installs import REPOSITORY
from bench.relay.machine import describe
from bench.relay.report import write_between_markers
from swarmesh.sim.routing.run import ROUTERS
from swarmesh.sim.routing.workloads import WORKLOADS

from . import report
from .field import FLEETS, SWARM, Setting, run_all

PAGE: Final = REPOSITORY / "docs" / "benchmarks.md"
SECTION: Final = "routing"
SEEDS: Final = (1, 2, 3)
LOAD: Final = 0.7
QUICK_REQUESTS: Final = 400


def _names(known: list[str], text: str) -> list[str]:
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    unknown = set(chosen) - set(known)
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: known are {', '.join(known)}")
    return chosen or known


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description=__doc__)
    parser.add_argument("--workloads", type=lambda text: _names(list(WORKLOADS), text), default=list(WORKLOADS))
    parser.add_argument("--fleets", type=lambda text: _names(list(FLEETS), text), default=list(FLEETS))
    parser.add_argument("--routers", type=lambda text: _names(list(ROUTERS), text), default=list(ROUTERS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), metavar="N")
    parser.add_argument("--load", type=float, default=LOAD, help="work asked for, relative to what the fleet can do")
    parser.add_argument("--requests", type=int, default=0, help="of each run; 0 for each workload's own number")
    parser.add_argument("--keys", type=int, default=1, help="clients to whom the swarm is fair; others are not")
    parser.add_argument("--processes", type=int, default=1, help="how many share the runs")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_REQUESTS} requests: a look, not a result")
    parser.add_argument("--losses", action="store_true", help="print only where another router is better")
    parser.add_argument("--write-docs", action="store_true", help=f"rewrites the tables in {PAGE.name}")
    return parser


def main() -> int:
    """Run everything and print it; the figures are what they are, so the exit status is 0."""
    parser = _parser()
    asked = parser.parse_args()
    if SWARM not in asked.routers:
        parser.error(f"--routers needs {SWARM}: all others are compared with it")
    if asked.write_docs and len(sys.argv) > 2 + ("--processes" in sys.argv) * 2:
        parser.error("--write-docs takes everything as it is by default; only --processes goes with it")
    requests = QUICK_REQUESTS if asked.quick else asked.requests
    settings = [
        Setting(workload, fleet, seed, asked.load, requests, asked.keys)
        for fleet in asked.fleets
        for workload in asked.workloads
        for seed in asked.seeds
    ]
    field = run_all(settings, asked.routers, asked.processes)
    if asked.losses:
        print("\n".join(report.losses(field)))
        return 0
    command = shlex.join(["python", "-m", "bench.routing", *sys.argv[1:]])
    machine = describe(command, dt.datetime.now(tz=dt.UTC).date().isoformat(), 0)
    text = report.markdown(field, {label: machine[label] for label in ("Date", "Command", "Commit", "Python")})
    print(text)
    if asked.write_docs:
        write_between_markers(PAGE, SECTION, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
