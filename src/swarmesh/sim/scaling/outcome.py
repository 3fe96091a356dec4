"""What became of a run, in figures; and the sum of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

import msgspec

from swarmesh.sim.scaling.moves import MoveKind, most_within, reversals
from swarmesh.sim.scaling.plan import Plan, least_workers
from swarmesh.sim.scaling.world import ScalingWorld


class Outcome(msgspec.Struct, frozen=True):
    """A run in figures.

    Attributes:
        failed: Requests without an answer, by the code of their error.
        wait_ms_p50: From a request's coming until a worker was given it.
        wakes: Starts of a model's first worker because somebody asked.
        wake_wait_ms_p50: How long those who asked then waited until that worker was ready.
        wake_start_ms_p50: How long it took from the order to start it until it was ready.
        ups: Workers started for another reason.
        downs: Workers stopped because there were too many.
        sleeps: Workers stopped because nobody asked for their model any more.
        given_up: Workers stopped because they were not ready in time.
        swaps: Workers stopped so that another model finds room.
        reversals: Ups after downs and downs after ups.
        reversals_10_min_max: The most of these for one model in any ten minutes.
        replicas_mean: Workers there were, until the last request had come.
        replicas_least: What would have done, had they come and gone in no time.
        broken: Promises that were not kept, with how often.
        broken_first: How it looked for the first time.
    """

    trace: str
    seed: int
    requests: int
    failed: dict[str, int]
    wait_ms_p50: int
    wait_ms_p99: int
    wakes: int
    wake_wait_ms_p50: int
    wake_start_ms_p50: int
    ups: int
    downs: int
    sleeps: int
    given_up: int
    swaps: int
    reversals: int
    reversals_10_min_max: int
    replicas_mean: float
    replicas_least: float
    broken: dict[str, int]
    broken_first: dict[str, str]


@dataclass(slots=True)
class Lived:
    """A run, with what many runs are summed up from.

    Attributes:
        waits_ms: Of every request that was given to a worker.
        wakes: Of every start from zero: how long the first request waited, and how long the start took.
    """

    outcome: Outcome
    waits_ms: list[int] = field(default_factory=list)
    wakes: list[tuple[int, int]] = field(default_factory=list)


def live(plan: Plan) -> Lived:
    """Run a plan; the same one, the same outcome."""
    world = ScalingWorld(plan)
    world.run()
    models = world.watch.models.values()
    moves = Counter(move.kind for model in models for move in model.moves)
    turns = [reversals(model.moves) for model in models]
    wakes = [wake for model in models for wake in model.wakes]
    waits_ms, verdicts = world.requests.waits_ms, world.watch.verdicts
    outcome = Outcome(
        trace=plan.trace,
        seed=plan.seed,
        requests=world.requests.count,
        failed=dict(sorted(world.requests.codes.items())),
        wait_ms_p50=percentile(waits_ms, 0.5),
        wait_ms_p99=percentile(waits_ms, 0.99),
        wakes=moves[MoveKind.WAKE],
        wake_wait_ms_p50=percentile([wait_ms for wait_ms, _ in wakes], 0.5),
        wake_start_ms_p50=percentile([start_ms for _, start_ms in wakes], 0.5),
        ups=moves[MoveKind.UP],
        downs=moves[MoveKind.DOWN],
        sleeps=moves[MoveKind.SLEEP],
        given_up=moves[MoveKind.GIVE_UP],
        swaps=moves[MoveKind.EVICT],
        reversals=sum(map(len, turns)),
        reversals_10_min_max=max(map(most_within, turns)),
        replicas_mean=sum(model.replica_ms for model in models) / plan.until_ms,
        replicas_least=sum(least_workers(plan, model) for model in plan.models if plan.fits_somewhere(model)),
        broken={str(check): count for check, count in sorted(verdicts.counts.items())},
        broken_first={str(check): words for check, words in sorted(verdicts.first.items())},
    )
    return Lived(outcome, waits_ms, wakes)


def percentile(values: Sequence[int], share: float) -> int:
    """The smallest value that ``share`` of all do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else 0
