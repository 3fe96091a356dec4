"""From rounds to one figure: medians, ranges, and ratios that are taken within a round."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from .session import Outcome

YARDSTICK = "nginx"
QUEEN = "queen"
DIRECT = "direct"
MIB_PER_100_MB = 100e6 / 2**20


@dataclass(frozen=True)
class Spread:
    """The median of the rounds and the lowest and highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread | None:
        """None where nothing was measured."""
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class Goal:
    """A figure the queen has to hold."""

    name: str
    limit: float
    value: float | None

    @property
    def verdict(self) -> str:
        """Held, missed or not measured."""
        if self.value is None:
            return "not measured"
        return "held" if self.value <= self.limit else "missed"


class Summary:
    """The outcomes of one run, asked figure by figure."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes
        self._by_name = {outcome.name: outcome for outcome in outcomes}

    def has(self, measurement: str) -> bool:
        """Whether anyone was measured so."""
        return any(measurement in outcome.rounds for outcome in self.outcomes)

    def values(self, name: str, measurement: str, figure: str) -> list[float]:
        """One value per round; empty where the contender was not measured."""
        outcome = self._by_name.get(name)
        return [figures[figure] for figures in outcome.rounds.get(measurement, [])] if outcome else []

    def spread(self, name: str, measurement: str, figure: str) -> Spread | None:
        """The figure over all rounds."""
        return Spread.of(self.values(name, measurement, figure))

    def ratio(self, name: str, other: str, measurement: str, figure: str) -> Spread | None:
        """``name`` over ``other``, divided round by round."""
        pairs = zip(self.values(name, measurement, figure), self.values(other, measurement, figure), strict=False)
        return Spread.of([mine / theirs for mine, theirs in pairs])

    def added(self, name: str, measurement: str, figure: str) -> Spread | None:
        """``name`` less the direct way to the workers, round by round."""
        pairs = zip(self.values(name, measurement, figure), self.values(DIRECT, measurement, figure), strict=False)
        return Spread.of([mine - direct for mine, direct in pairs])

    def best_rust_router(self) -> str | None:
        """The Rust router with the lowest CPU time per request."""
        medians = {
            outcome.name: spread.median
            for outcome in self.outcomes
            if "-router" in outcome.name
            and (spread := self.spread(outcome.name, "requests", "cpu_us_per_request")) is not None
        }
        return min(medians, key=medians.__getitem__, default=None)

    def others_busy(self) -> Spread | None:
        """The share of the router's core that anything else took while a router was loaded to the full."""
        return Spread.of(
            [
                figures["others_busy"]
                for outcome in self.outcomes
                if outcome.name != DIRECT
                for measurement in ("requests", "chunks")
                for figures in outcome.rounds.get(measurement, [])
            ]
        )

    def goals(self) -> list[Goal]:
        """What the queen has to hold, with what she did in this run."""
        best = self.best_rust_router()
        request = ("requests", "cpu_us_per_request")
        chunk = ("chunks", "cpu_us_per_chunk")
        p50, p99 = ("first_token", "first_token_ms_p50"), ("first_token", "first_token_ms_p99")
        rust = self.ratio(QUEEN, best, *request) if best else None
        return [
            Goal("CPU per request, times nginx", 3.0, _median(self.ratio(QUEEN, YARDSTICK, *request))),
            Goal(f"CPU per request, times the best Rust router ({best or 'none here'})", 0.5, _median(rust)),
            Goal("CPU per request, µs", 90.0, _median(self.spread(QUEEN, *request))),
            Goal("CPU per streamed chunk, times nginx", 1.5, _median(self.ratio(QUEEN, YARDSTICK, *chunk))),
            Goal("CPU per streamed chunk, µs", 9.0, _median(self.spread(QUEEN, *chunk))),
            Goal("Added to the first token, p50, ms", 1.0, _median(self.added(QUEEN, *p50))),
            Goal("Added to the first token, p99, ms", 5.0, _median(self.added(QUEEN, *p99))),
            Goal(
                "Resident memory at 1,000 streams, MiB (100 MB)",
                MIB_PER_100_MB,
                _median(self.spread(QUEEN, "memory", "rss_mib")),
            ),
        ]


def _median(spread: Spread | None) -> float | None:
    return spread.median if spread else None
