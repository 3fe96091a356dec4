"""One run: the fake workers, every contender up at once, and the measurements in turns.

The contenders take turns within each round, a second or two each, so that a machine that is faster in one minute
than in the next favours nobody; ratios are taken within a round. Those whose turn it is not are idle.
"""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from .contenders import Router, free_ports
from .driver import CONNECT_TIMEOUT_S
from .installs import REPOSITORY, UnavailableError
from .measure import MEASUREMENTS, Figures, Plan, rounds_of
from .process_tree import LOAD_CORE, ProcessTree, pinned
from .responses import WrongAnswerError

WORKERS = 4
OPEN_FILES = 16_384


@dataclass
class Outcome:
    """What one contender did: its figures by measurement and round, or why there are none."""

    name: str
    version: str = ""
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    failure: str = ""
    failed_under_load: bool = False


def run(routers: list[Router], plan: Plan, measurements: list[str]) -> list[Outcome]:
    """Runs every measurement on every router; a router that fails is in the outcome with its reason."""
    outcomes = {router.name: Outcome(router.name) for router in routers}
    prepare_driver()
    with ExitStack() as stack:
        worker_ports = free_ports(WORKERS)
        stack.enter_context(fake_workers(worker_ports))
        for router in routers:
            start(router, outcomes[router.name], worker_ports, stack)
        for measurement in measurements:
            for turn in range(rounds_of(plan, measurement)):
                for router in routers:
                    _measure(router, outcomes[router.name], measurement, turn, plan)
                gc.collect()
    return list(outcomes.values())


def prepare_driver() -> None:
    """Puts this process on the load's core, without collections that would show up as first-token time."""
    _allow_open_files()
    os.sched_setaffinity(0, {LOAD_CORE})
    gc.disable()


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def fake_workers(places: Sequence[int | Path]) -> Iterator[None]:
    """Fake workers on these ports or sockets, for as long as the context lasts."""
    command = [sys.executable, "-m", "bench.relay.fake_worker", *map(str, places)]
    with pinned(LOAD_CORE):
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise UnavailableError(f"the fake workers did not start: {process.wait(CONNECT_TIMEOUT_S)}")
        yield
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def start(router: Router, outcome: Outcome, worker_ports: list[int], stack: ExitStack) -> None:
    """Brings a router up until the stack is left; one that cannot be started is in its outcome."""
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-")))
    try:
        outcome.version = router.prepare()
        (router.port,) = free_ports(1)
        stack.callback(router.stop)
        router.start(worker_ports, home)
    except UnavailableError as error:
        outcome.failure = f"not started: {error}"
        router.stop()
    print(f"{router.name}: {outcome.failure or 'ready ' + outcome.version}", file=sys.stderr, flush=True)


def _measure(router: Router, outcome: Outcome, measurement: str, turn: int, plan: Plan) -> None:
    if outcome.failure or (measurement == "memory" and router.tree is None):
        return
    tree: ProcessTree | None = router.tree
    take(outcome, measurement, turn, lambda: MEASUREMENTS[measurement](router.target, tree, plan))


def take(outcome: Outcome, measurement: str, turn: int, measured: Callable[[], Coroutine[None, None, Figures]]) -> None:
    """Takes one round's figures, or the reason why there are none."""
    if outcome.failure:
        return
    try:
        figures = uvloop.run(measured())
    except (WrongAnswerError, AssertionError, OSError, TimeoutError) as error:
        outcome.failure = f"failed in {measurement}: {str(error) or type(error).__name__}"
        outcome.failed_under_load = True
        print(f"{outcome.name}: {outcome.failure}", file=sys.stderr, flush=True)
        return
    outcome.rounds.setdefault(measurement, []).append(figures)
    shown = ", ".join(f"{name} {value:,.2f}" for name, value in figures.items())
    print(f"{measurement} {turn + 1}, {outcome.name}: {shown}", file=sys.stderr, flush=True)
