"""``python -m swarmesh.sim``: run one world, or many seeds of a named setting, and print what became of it."""

from __future__ import annotations

import argparse
import sys
import time

import msgspec

from swarmesh.sim.checkers import InvariantBrokenError
from swarmesh.sim.result import Result
from swarmesh.sim.scenario import Scenario
from swarmesh.sim.seeds import Broken, run_seeds
from swarmesh.sim.setting import OPEN, SETTINGS
from swarmesh.sim.world import simulate


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when everything held, 1 when an invariant broke, 2 for wrong arguments."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.seeds is not None:
        return _run_seeds(parser, asked)
    try:
        scenario = Scenario(
            seed=asked.seed,
            name=asked.setting,
            workers=asked.workers,
            events=asked.events,
            models=asked.models,
            load_ratio=asked.load,
            faults=asked.faults,
        )
    except ValueError as error:
        parser.error(str(error))
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    try:
        result = simulate(scenario, check=asked.check)
    except InvariantBrokenError as error:
        sys.stderr.write(f"{error.code}: {error.message}\nreplay: {error.hint}\n")
        return 1
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    sys.stdout.write(_json(result) if asked.json else _words(result, wall_s, cpu_s))
    return 0


def _run_seeds(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> int:
    if asked.setting == OPEN:
        parser.error(f"--seeds needs a --setting: {', '.join(name for name in SETTINGS if name)}")
    outcome = run_seeds(asked.setting, asked.seeds, check=asked.check, processes=asked.processes)
    if isinstance(outcome, Broken):
        sys.stderr.write(f"{outcome.words}\nreplay: {outcome.replay}\n")
        return 1
    sys.stdout.write(outcome.in_words())
    return 0


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    if not seeds:
        raise ValueError(text)
    return seeds


def _parser() -> argparse.ArgumentParser:
    usual = Scenario()
    parser = argparse.ArgumentParser(prog="python -m swarmesh.sim", description="Run the core in a virtual world.")
    parser.add_argument("--workers", type=int, default=usual.workers)
    parser.add_argument("--events", type=int, default=usual.events)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--models", type=int, default=usual.models)
    parser.add_argument("--load", type=float, default=usual.load_ratio, help="work asked for, relative to capacity")
    parser.add_argument("--faults", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--setting", choices=list(SETTINGS), default=OPEN, help="a world by name, of which --seeds run")
    parser.add_argument("--seeds", type=_seeds, help="A-B: all these seeds, size and load as the setting has them")
    parser.add_argument("--processes", type=int, default=1, help="how many share the seeds")
    parser.add_argument("--check", action="store_true", help="look at the invariants after every event")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, without wall time")
    return parser


def _json(result: Result) -> str:
    return msgspec.json.encode(result).decode() + "\n"


def _words(result: Result, wall_s: float, cpu_s: float) -> str:
    fields = msgspec.structs.asdict(result)
    fields["wall_s"] = round(wall_s, 2)
    fields["cpu_s"] = round(cpu_s, 2)
    fields["events_per_wall_s"] = round(result.events / wall_s)
    fields["times_real_time"] = round(result.virtual_s / wall_s, 1)
    return "".join(f"{name:>20}  {value}\n" for name, value in fields.items())


if __name__ == "__main__":
    sys.exit(main())
