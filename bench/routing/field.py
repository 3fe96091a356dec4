"""All runs of the benchmark, and what they say: one cell for each router, workload and fleet, over several seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple

from swarmesh.core.policies import PolicyName
from swarmesh.sim.routing.outcome import Outcome
from swarmesh.sim.routing.peers import PEERS
from swarmesh.sim.routing.run import simulate
from swarmesh.sim.routing.workloads import generate

SWARM: Final = str(PolicyName.SWARM)
FLEETS: Final = {"unequal": (2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25), "equal": (1.0,) * 8}
CHUNK: Final = 4

Figure = Callable[[Outcome], float]


class Setting(NamedTuple):
    """Requests that every router is given alike."""

    workload: str
    fleet: str
    seed: int
    load_ratio: float
    requests: int
    keys: int = 1


class Spread(NamedTuple):
    """A figure over the seeds."""

    mean: float
    low: float
    high: float


def mean_ms(outcome: Outcome) -> float:
    """Mean time to the first token."""
    return outcome.waits.ttft_ms_mean


def p50_ms(outcome: Outcome) -> float:
    """Median time to the first token."""
    return outcome.waits.ttft_ms_p50


def p99_ms(outcome: Outcome) -> float:
    """99th percentile of the time to the first token."""
    return outcome.waits.ttft_ms_p99


def prompt_share(outcome: Outcome) -> float:
    """Share of all requests whose first token came within 2 s."""
    return outcome.waits.within_2s_share


def failures(outcome: Outcome) -> float:
    """Requests without an answer, shed ones among them."""
    return sum(outcome.failed.values())


@dataclass(frozen=True, slots=True)
class Field:
    """Outcomes by fleet, workload and router, one for each seed."""

    outcomes: dict[tuple[str, str, str], list[Outcome]]
    workloads: list[str]
    fleets: list[str]
    routers: list[str]

    def spread(self, fleet: str, workload: str, router: str, figure: Figure) -> Spread:
        """Mean over the seeds, and the range."""
        values = [figure(outcome) for outcome in self.outcomes[fleet, workload, router]]
        return Spread(sum(values) / len(values), min(values), max(values))

    def best(self, fleet: str, workload: str, figure: Figure, *, highest: bool = False) -> str:
        """The best router of the swarm's default policy and all formulas of others."""
        sign = -1 if highest else 1
        rivals = [router for router in self.routers if router in PEERS or router == SWARM]
        return min(rivals, key=lambda router: sign * self.spread(fleet, workload, router, figure).mean)

    def swarm_leads(self, fleet: str, workload: str) -> bool:
        """Whether nobody has a better mean, and nobody a better share within 2 s."""
        own = self.spread(fleet, workload, SWARM, mean_ms), self.spread(fleet, workload, SWARM, prompt_share)
        first = self.best(fleet, workload, mean_ms), self.best(fleet, workload, prompt_share, highest=True)
        return (
            own[0].mean <= self.spread(fleet, workload, first[0], mean_ms).mean
            and own[1].mean >= self.spread(fleet, workload, first[1], prompt_share).mean
        )


def run_all(settings: Sequence[Setting], routers: Sequence[str], processes: int) -> Field:
    """Every router on every setting; the settings are shared among processes."""
    outcomes: dict[tuple[str, str, str], list[Outcome]] = {}
    for setting, found in _found(settings, routers, processes):
        for router, outcome in zip(routers, found, strict=True):
            outcomes.setdefault((setting.fleet, setting.workload, router), []).append(outcome)
    workloads, fleets = ([*dict.fromkeys(names)] for names in zip(*[each[:2] for each in settings], strict=True))
    return Field(outcomes, workloads, fleets, list(routers))


def _found(
    settings: Sequence[Setting], routers: Sequence[str], processes: int
) -> Iterator[tuple[Setting, list[Outcome]]]:
    tasks = [(setting, tuple(routers)) for setting in settings]
    if processes == 1:
        yield from zip(settings, map(_run, tasks), strict=True)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from zip(settings, pool.map(_run, tasks, chunksize=CHUNK), strict=True)


def _run(task: tuple[Setting, tuple[str, ...]]) -> list[Outcome]:
    setting, routers = task
    speeds = FLEETS[setting.fleet]
    requests = generate(
        setting.workload,
        seed=setting.seed,
        speeds=speeds,
        load_ratio=setting.load_ratio,
        requests=setting.requests,
        keys=setting.keys,
    )
    return [simulate(requests, router, speeds, seed=setting.seed) for router in routers]
