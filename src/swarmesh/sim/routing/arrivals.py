"""When requests come: each function spreads them over a time so that the gaps between them vary as they should."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import Final

TICK_REQUESTS: Final = 10
"""Requests per tick when a source sends in ticks: so many on average give a coefficient of variation of 3.

With ``m`` Poisson arrivals per tick, and nearly no tick without any, the gaps have ``cv**2 + 1 = m``.
"""
BURST_PACE: Final = 5.0
"""Rate within a burst over the mean rate."""


def poisson(rng: Random, count: int, span_ms: float) -> list[float]:
    """Arrivals that know nothing of each other."""
    return sorted(rng.uniform(0, span_ms) for _ in range(count))


def gamma(rng: Random, count: int, span_ms: float, cv: float) -> list[float]:
    """Gaps from a gamma distribution with this coefficient of variation."""
    shape = 1 / cv**2
    return _spread([rng.gammavariate(shape, 1 / shape) for _ in range(count + 1)], span_ms)


def on_off(rng: Random, count: int, span_ms: float, cv: float) -> list[float]:
    """Bursts of Poisson arrivals with silences between, so long that the gaps have this coefficient of variation."""
    short = 1 / BURST_PACE
    # For a share p of long gaps of mean b: (1 - p) short + p b = 1 and (1 - p) short^2 + p b^2 = (cv^2 + 1) / 2.
    long = ((cv**2 + 1) / 2 - short) / (1 - short)
    share = (1 - short) / (long - short)
    gaps = [rng.expovariate(1 / (long if rng.random() < share else short)) for _ in range(count + 1)]
    return _spread(gaps, span_ms)


def sessions(rng: Random, follows: Sequence[int | None], span_ms: float, pause_ms: float) -> list[float]:
    """Poisson starts where ``follows`` has None; who follows another, by its index, does so after a pause."""
    at_ms: list[float] = []
    for previous in follows:
        start_ms = rng.uniform(0, span_ms) if previous is None else at_ms[previous] + rng.expovariate(1 / pause_ms)
        at_ms.append(start_ms)
    return at_ms


def in_ticks(at_ms: Sequence[float], span_ms: float) -> list[float]:
    """Arrivals put off to the next tick, `TICK_REQUESTS` of them at once on average."""
    tick_ms = TICK_REQUESTS * span_ms / len(at_ms)
    return [tick_ms * (at // tick_ms + 1) for at in at_ms]


def _spread(gaps: list[float], span_ms: float) -> list[float]:
    # The last gap is the silence after the last arrival.
    scale = span_ms / sum(gaps)
    return [at * scale for at in accumulate(gaps[:-1])]
