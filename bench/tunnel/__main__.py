"""``python -m bench.tunnel``: the queen's relay through SSH beside the same without it, in turns, in one run.

What runs on the queen's machine (the queen, ``ssh``) has one core, what runs on the workers' machine (``sshd``, the
fake workers) and the load driver the other.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import json
import shlex
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Final

from bench.relay import measure as relay
from bench.relay.installs import REPOSITORY, UnavailableError
from bench.relay.machine import describe
from bench.relay.process_tree import LOAD_CORE, ROUTER_CORE, has_both_cores, set_niceness
from bench.relay.report import write_between_markers
from bench.relay.session import WORKERS, Outcome, fake_workers, prepare_driver, start, take
from bench.relay.summary import Summary

from . import report
from .measure import QUICK, STREAMS, Lengths, alone, full_speed, paced
from .ssh import Tunnel
from .ways import Direct, Tunnelled

PAGE: Final = REPOSITORY / "docs" / "benchmarks.md"
SECTION: Final = "tunnel"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.tunnel", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a look, not a result")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of everything, in place of its own number")
    parser.add_argument("--niceness", type=int, default=0, help="below 0 (root) keeps others off the two cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every round's figures")
    parser.add_argument("--write-docs", action="store_true", help=f"rewrites the tables in {PAGE.name}")
    return parser.parse_args()


def measured(lengths: Lengths) -> list[Outcome]:
    """Every measurement of every way, in turns; a way that fails is in its outcome with the reason."""
    prepare_driver()
    relay_plan = replace(relay.QUICK, warm_up_s=lengths.warm_up_s, first_token_s=lengths.paced_s)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tunnel-")))
        sockets = [place / f"{number}.sock" for number in range(WORKERS)]
        stack.enter_context(fake_workers(sockets))
        ways = [Direct(sockets), Tunnelled(sockets, session=True), Tunnelled(sockets, session=False)]
        outcomes = [Outcome(way.name) for way in ways]
        for way, outcome in zip(ways, outcomes, strict=True):
            start(way, outcome, [], stack)
        for turn in range(lengths.rounds):
            for way, outcome in zip(ways, outcomes, strict=True):
                take(outcome, "alone", turn, partial(alone, way, lengths))
            for way, outcome in zip(ways, outcomes, strict=True):
                take(outcome, "first_token", turn, partial(relay.first_token, way.target, way.tree, relay_plan))
            for streams in STREAMS:
                for way, outcome in zip(ways, outcomes, strict=True):
                    take(outcome, f"paced {streams}", turn, partial(paced, way, streams, lengths))
                for way, outcome in zip(ways, outcomes, strict=True):
                    take(outcome, f"full {streams}", turn, partial(full_speed, way, streams, lengths))
            gc.collect()
    return outcomes


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that what was started is stopped.
    if not has_both_cores():
        print(f"this benchmark needs Linux and the cores {ROUTER_CORE} and {LOAD_CORE}")
        return 2
    if arguments.niceness:
        set_niceness(arguments.niceness)
    lengths = QUICK if arguments.quick else Lengths()
    if arguments.rounds is not None:
        lengths = replace(lengths, rounds=arguments.rounds)
    command = shlex.join(["python", "-m", "bench.tunnel", *sys.argv[1:]])
    machine = describe(command, dt.datetime.now(tz=dt.UTC).date().isoformat(), arguments.niceness)
    try:
        machine["SSH"] = Tunnel.version()
    except UnavailableError as error:
        print(error)
        return 2
    outcomes = measured(lengths)
    text = report.markdown(Summary(outcomes), machine)
    print(text)
    if arguments.json:
        rounds = {"machine": machine, "outcomes": [asdict(outcome) for outcome in outcomes]}
        arguments.json.write_text(json.dumps(rounds, indent=1), encoding="utf-8")
    if arguments.write_docs:
        write_between_markers(PAGE, SECTION, text)
    return 1 if any(outcome.failure for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
