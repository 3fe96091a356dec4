"""Many worlds of one setting, seed by seed, on several processes; stops at the first that breaks a promise."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from swarmesh.sim.checkers import InvariantBrokenError
from swarmesh.sim.result import Result
from swarmesh.sim.scenario import scenario_of
from swarmesh.sim.world import simulate

CHUNK = 4
"""Seeds a process is given at a time."""
COUNTS = ("submitted", "done", "cancelled", "vanished", "lost", "misjudged", "tokens", "moves", "preemptions", "lives")


@dataclass(slots=True)
class Broken:
    """A seed that broke a promise: what, and the command that shows it again."""

    seed: int
    words: str
    replay: str


@dataclass(slots=True)
class Tally:
    """Sums over worlds.

    Attributes:
        cpu_s: Of the worlds alone, whatever number of processes shared them.
    """

    name: str
    seeds: int = 0
    events: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def times_real_time(self) -> float:
        """Virtual time over the processor time it took one process."""
        return self.virtual_s / self.cpu_s if self.cpu_s else 0.0

    def add(self, result: Result, cpu_s: float) -> None:
        """Take one world in."""
        self.seeds += 1
        self.events += result.events
        self.virtual_s += result.virtual_s
        self.cpu_s += cpu_s
        for name in COUNTS:
            self.counts[name] += getattr(result, name)
        self.failed.update(result.failed)
        self.faults.update(result.faults)

    def in_words(self) -> str:
        """A table of it."""
        rows: dict[str, object] = {
            "setting": self.name,
            "seeds": self.seeds,
            "events": self.events,
            "virtual_h": round(self.virtual_s / 3_600, 1),
            "cpu_s": round(self.cpu_s, 1),
            "times_real_time": round(self.times_real_time),
            **self.counts,
            "failed": dict(sorted(self.failed.items())),
            "faults": dict(sorted(self.faults.items())),
        }
        return "".join(f"{name:>16}  {value}\n" for name, value in rows.items())


def run_seed(name: str, seed: int, *, check: bool) -> tuple[Result, float] | Broken:
    """One world, and the seconds it took; or what it broke."""
    scenario = scenario_of(name, seed)
    started_s = time.process_time()
    try:
        result = simulate(scenario, check=check)
    except InvariantBrokenError as error:
        return Broken(seed, f"{error.code}: {error.message}", error.hint)
    except (AssertionError, ValueError, LookupError) as error:  # The core's own assertions replay in the same way.
        return Broken(seed, f"{type(error).__name__}: {error}", scenario.replay())
    return result, time.process_time() - started_s


def run_seeds(name: str, seeds: range, *, check: bool, processes: int) -> Tally | Broken:
    """All of them, in order; the first that breaks something ends it."""
    tally = Tally(name)
    run = partial(run_seed, name, check=check)
    if processes == 1 or len(seeds) == 1:
        return _add_up(tally, map(run, seeds))
    with ProcessPoolExecutor(processes) as pool:
        return _add_up(tally, _in_chunks(pool, run, seeds, processes * CHUNK))


def _add_up(tally: Tally, outcomes: Iterator[tuple[Result, float] | Broken]) -> Tally | Broken:
    for outcome in outcomes:
        if isinstance(outcome, Broken):
            return outcome
        tally.add(*outcome)
    return tally


def _in_chunks(
    pool: ProcessPoolExecutor, run: Callable[[int], tuple[Result, float] | Broken], seeds: range, size: int
) -> Iterator[tuple[Result, float] | Broken]:
    # In batches, so that not all of them have to run before the first that failed is seen.
    left = iter(seeds)
    while batch := list(islice(left, size)):
        yield from pool.map(run, batch)
