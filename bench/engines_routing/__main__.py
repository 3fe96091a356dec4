"""``python -m bench.engines_routing``: the demo model in three real engines, one of them slowed to a quarter."""

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
from swarmesh.core.policies import PolicyName

from . import report, throttle
from .trial import Setting, Trial, run
from .workload import Load

PAGE: Final = REPOSITORY / "docs" / "benchmarks.md"
SECTION: Final = "engines_routing"
RUNS: Final = 3
COMPARED: Final = (report.BASE, report.OURS)
SETTING: Final = Setting(
    load=Load(groups=14, chats=9, system_chars=3_500, answer_tokens=16, rate_per_s=4.0), slots=4, context=1_024
)


def _arguments() -> argparse.Namespace:
    others = [str(name) for name in PolicyName if name not in COMPARED]
    parser = argparse.ArgumentParser(prog="python -m bench.engines_routing", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help="of each policy, each with another load")
    parser.add_argument("--also", nargs="+", default=[], choices=others, metavar="POLICY", help=", ".join(others))
    parser.add_argument("--seed", type=int, default=1, help="of the first run's load")
    parser.add_argument("--write-docs", action="store_true", help=f"rewrites the tables in {PAGE.name}")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs is 1 or more")
    if arguments.write_docs and len(sys.argv) > 2:
        parser.error("--write-docs takes everything as it is by default")
    return arguments


def main() -> int:
    """Run everything and print it; the exit code is 1 when something was missed, 2 when nothing can be measured."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that every swarm is taken down.
    if reason := throttle.unavailable():
        print(f"no engine can be slowed down here: {reason}")
        return 2
    command = shlex.join(["python", "-m", "bench.engines_routing", *sys.argv[1:]])
    machine = describe(command, dt.datetime.now(tz=dt.UTC).date().isoformat(), 0)
    try:
        trials = _trials([*COMPARED, *asked.also], asked.runs, asked.seed)
    except HiveError as error:
        print(f"not measured: {error}")
        return 2
    del machine["Niceness"]
    text = report.markdown(trials, SETTING, machine)
    print(text)
    if asked.write_docs:
        write_between_markers(PAGE, SECTION, text)
    return 0 if all(goal.held for goal in report.goals(trials)) else 1


def _trials(policies: list[str], runs: int, first_seed: int) -> list[Trial]:
    trials = []
    for seed in range(first_seed, first_seed + runs):
        # The other way round each time: what changes on the machine meanwhile is nobody's advantage.
        for policy in policies if seed % 2 else reversed(policies):
            trial = run(policy, SETTING, seed)
            trials.append(trial)
            print(report.in_a_line(trial), file=sys.stderr, flush=True)
    return trials


if __name__ == "__main__":
    sys.exit(main())
