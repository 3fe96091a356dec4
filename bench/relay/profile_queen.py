"""``python -m bench.relay.profile_queen``: where the queen's CPU time goes under one of the loads.

Samples her event loop's thread with py-spy while the load runs and prints the functions with the most time of their
own. Time spent in C (the JSON decoder, system calls) counts for the Python function that called it, waiting and the
event loop itself for ``Runner.run``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import uvloop

from . import installs
from .contenders import Queen, free_ports
from .measure import MEASUREMENTS, Plan
from .process_tree import set_niceness
from .session import WORKERS, fake_workers, prepare_driver

SAMPLES_PER_S = 400
SHOWN = 30
EVENT_LOOP = "Runner.run "


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.relay.profile_queen", description=__doc__)
    parser.add_argument("--measure", choices=[name for name in MEASUREMENTS if name != "memory"], default="requests")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--niceness", type=int, default=0)
    parser.add_argument("--raw", type=Path, help="keeps the sampled stacks, one per line, for a flame graph")
    return parser.parse_args()


def _plan(seconds: float) -> Plan:
    return replace(
        Plan(), requests_s=seconds, chunks_s=seconds, stepped_s=seconds, starts_s=seconds, first_token_s=seconds
    )


def _print_hottest(stacks: Path) -> None:
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for line in stacks.read_text(encoding="utf-8").splitlines():
        stack, _, samples = line.rpartition(" ")
        frames = stack.split(";")
        if not any(frame.startswith(EVENT_LOOP) for frame in frames):
            continue  # threads that wait for work would look busy
        own[frames[-1]] += int(samples)
        for frame in set(frames):
            below[frame] += int(samples)
    total = max(1, own.total())
    print(f"{total} samples; own time, time with everything called, function")
    for frame, count in own.most_common(SHOWN):
        print(f"{count / total:7.1%} {below[frame] / total:7.1%}  {frame}")


def main() -> int:
    arguments = _arguments()
    if arguments.niceness:
        set_niceness(arguments.niceness)
    profiler = installs.from_pypi("py-spy")
    prepare_driver()
    queen = Queen()
    queen.prepare()
    (queen.port,) = free_ports(1)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-profile-")))
        worker_ports = free_ports(WORKERS)
        stack.enter_context(fake_workers(worker_ports))
        stack.callback(queen.stop)
        queen.start(worker_ports, home)
        assert queen.tree is not None
        stacks = arguments.raw or home / "stacks.txt"
        record = [profiler, "record", "--pid", str(queen.tree.root.pid), "--format", "raw", "--output", stacks]
        limits = ["--duration", str(arguments.seconds), "--rate", str(SAMPLES_PER_S), "--function"]
        with (home / "profiler.log").open("wb") as log:
            sampling = subprocess.Popen([*record, *limits], stdout=log, stderr=log)
            stack.callback(sampling.wait)
            figures = uvloop.run(MEASUREMENTS[arguments.measure](queen.target, queen.tree, _plan(arguments.seconds)))
            sampling.wait()
        if not stacks.exists():
            print((home / "profiler.log").read_text(encoding="utf-8"), file=sys.stderr)
            return 1
        print(", ".join(f"{name} {value:,.2f}" for name, value in figures.items()), "(slowed by the sampling)")
        _print_hottest(stacks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
