"""Many runs, seed by seed over the traces, on several processes; and what they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from swarmesh.sim.scaling.outcome import Lived, live, percentile
from swarmesh.sim.scaling.traces import plan_of

CHUNK = 5
"""Runs that a process is given at a time."""
COUNTS = ("requests", "wakes", "ups", "downs", "sleeps", "swaps", "reversals")
Job = tuple[str, int]
"""Name of a trace and a seed."""


@dataclass(slots=True)
class Tally:
    """Runs of one trace, summed up.

    Attributes:
        broken: Promises that were not kept, by name, with the seeds of those runs.
        words: How each looked for the first time, in the lowest of these seeds.
    """

    trace: str
    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    reversals_10_min_max: int = 0
    replicas: float = 0.0
    replicas_least: float = 0.0
    waits_ms: list[int] = field(default_factory=list)
    wakes: list[tuple[int, int]] = field(default_factory=list)
    broken: dict[str, list[int]] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)

    def add(self, lived: Lived) -> None:
        """Take one run in."""
        outcome = lived.outcome
        self.runs += 1
        self.counts.update({name: getattr(outcome, name) for name in COUNTS})
        self.failed.update(outcome.failed)
        self.reversals_10_min_max = max(self.reversals_10_min_max, outcome.reversals_10_min_max)
        self.replicas += outcome.replicas_mean
        self.replicas_least += outcome.replicas_least
        self.waits_ms += lived.waits_ms
        self.wakes += lived.wakes
        for check, words in outcome.broken_first.items():
            self.broken.setdefault(check, []).append(outcome.seed)
            self.words.setdefault(check, words)

    def wait_ms(self, share: float) -> int:
        """Percentile of the waits of all requests."""
        return percentile(self.waits_ms, share)

    def over_start_ms(self, share: float) -> int:
        """Percentile of what the first request from zero waited beyond the time that the start took."""
        return percentile([wait_ms - start_ms for wait_ms, start_ms in self.wakes], share)

    def start_ms(self, share: float) -> int:
        """Percentile of the time that starts from zero took."""
        return percentile([start_ms for _, start_ms in self.wakes], share)


def run_seeds(
    traces: Sequence[str],
    seeds: Sequence[int],
    *,
    processes: int = 1,
    progress: Callable[[int], None] = lambda _number: None,
) -> dict[str, Tally]:
    """One run for each seed, the traces in turn; ``progress`` hears how many are done.

    A seed belongs to one trace: that of its place among ``traces``.
    """
    tallies = {trace: Tally(trace) for trace in traces}
    jobs = [(traces[seed % len(traces)], seed) for seed in seeds]
    for number, lived in enumerate(_all(jobs, processes), 1):
        tallies[lived.outcome.trace].add(lived)
        progress(number)
    return tallies


def run_seed(job: Job) -> Lived:
    """One run."""
    trace, seed = job
    return live(plan_of(trace, seed))


def _all(jobs: Sequence[Job], processes: int) -> Iterator[Lived]:
    if processes == 1:
        yield from map(run_seed, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(run_seed, jobs, chunksize=CHUNK)
