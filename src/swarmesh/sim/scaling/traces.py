"""Loads by name: how what is asked for changes with time, and on what hosts it is met."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from swarmesh.core.scale_bounds import Bounds
from swarmesh.sim.scaling.arrivals import Arrivals, Rate, even
from swarmesh.sim.scaling.draw import MINUTE_MS, Draw
from swarmesh.sim.scaling.plan import Ask, Phase, Plan

HOUR_MS: Final = 60 * MINUTE_MS
REQUESTS_ABOUT: Final = 1_500
"""In one run: what is asked for is cut into so many pieces, or fewer."""
PEAK_SHARE: Final = 0.7
"""Of all slots that there may be, those in use at most: above 0.8 the controller wants more than there are."""
BURST_MAX: Final = 64
BURST_WORK_MS: Final = 3 * MINUTE_MS
"""How long the slots of a burst's hosts have to do with it at most."""
MODELS_IN_ZOO: Final = 10
GIANT_SHARE: Final = 0.2
"""Zoos with a model that no host can hold."""
SHARED_SHARE: Final = 0.3
"""Zoos in which no model has bounds of its own."""


def steady(draw: Draw) -> Plan:
    """One model, one rate, all the time."""
    level = draw.rng.choice((draw.rng.uniform(0.02, 0.6), draw.rng.uniform(0.6, 5.0)))
    return _one_model(draw, even(level), level, level, (0, HOUR_MS))


def step(draw: Draw) -> Plan:
    """Little, then much at once, then little again."""
    low, high = draw.rng.uniform(0.05, 1.0), draw.rng.uniform(1.5, 5.0)
    up_ms, down_ms = 15 * MINUTE_MS, 35 * MINUTE_MS

    def rate(at_ms: int) -> float:
        return high if up_ms <= at_ms < down_ms else low

    return _one_model(draw, rate, high, high / 2, (0, up_ms, down_ms, HOUR_MS))


def ramp(draw: Draw) -> Plan:
    """From nothing up, evenly, and down again."""
    high, top_ms = draw.rng.uniform(1.0, 5.0), draw.rng.randint(20, 40) * MINUTE_MS

    def rate(at_ms: int) -> float:
        return high * (at_ms / top_ms if at_ms < top_ms else (HOUR_MS - at_ms) / (HOUR_MS - top_ms))

    return _one_model(draw, rate, high, high / 2)


def sine(draw: Draw) -> Plan:
    """Up and down, two to four times an hour."""
    middle, share = draw.rng.uniform(0.5, 2.5), draw.rng.uniform(0.3, 1.0)
    period_ms, shift = draw.rng.randint(15, 30) * MINUTE_MS, draw.rng.uniform(0, math.tau)

    def rate(at_ms: int) -> float:
        return middle * (1 + share * math.sin(shift + math.tau * at_ms / period_ms))

    return _one_model(draw, rate, middle * (1 + share), middle)


def bursts(draw: Draw) -> Plan:
    """Nothing for minutes, then many at once."""
    model, workers, work_ms = draw.model("model", 0.5), draw.rng.randint(2, 8), draw.rng.uniform(2_000, 15_000)
    arrivals = Arrivals(draw.rng, model, work_ms)
    most = min(BURST_MAX, math.ceil(BURST_WORK_MS * workers * model.slots * draw.slowest / work_ms))
    asks: list[Ask] = []
    at_ms = draw.rng.randint(0, 5 * MINUTE_MS)
    while at_ms < HOUR_MS:
        asks += arrivals.at_once(draw.rng.randint(1, most), at_ms, 1_000)
        at_ms += round(draw.rng.uniform(1.0, 14.0) * MINUTE_MS)
    return draw.plan([model], draw.hosts(model, workers), asks, HOUR_MS)


def alternating(draw: Draw) -> Plan:
    """Two models and memory for one: now this one is asked for, now that one, now both."""
    models = [draw.model(name, 0.0, max_workers=1, load_ms=(2_000, 30_000)) for name in ("one", "two")]
    asks: list[Ask] = []
    at_ms, turn = 0, draw.rng.randrange(2)
    while at_ms < HOUR_MS:
        until_ms = min(HOUR_MS, at_ms + round(draw.rng.uniform(2.0, 12.0) * MINUTE_MS))
        both, turn = draw.rng.random() < 0.4, 1 - turn
        for model in models if both else [models[turn]]:
            arrivals = Arrivals(draw.rng, model, draw.rng.uniform(2_000, 10_000))
            level = draw.rng.uniform(0.02, 0.25)
            asks += arrivals.at_rate(even(level), level, at_ms, until_ms)
        at_ms = until_ms
    hosts = [draw.host(0, max(model.need_mib for model in models))]
    return draw.plan(models, hosts, asks, HOUR_MS, wait_ms_max=20 * MINUTE_MS)


def zoo(draw: Draw) -> Plan:
    """Ten models of which few are asked for often, on three hosts that hold half of them."""
    models = [draw.model(f"model-{n}", 0.0, max_workers=2, load_ms=(2_000, 40_000)) for n in range(MODELS_IN_ZOO)]
    all_mib = sum(model.need_mib for model in models)
    largest_mib = max(model.need_mib for model in models)
    hosts = [draw.host(number, max(all_mib // 6, largest_mib)) for number in range(3)]
    if draw.rng.random() < GIANT_SHARE:
        models.append(draw.giant(max(host.total_mib for host in hosts)))
    asks: list[Ask] = []
    total = draw.rng.uniform(0.3, 1.5)
    shared = Bounds(0, 2) if draw.rng.random() < SHARED_SHARE else None
    popularity = [1 / (rank + 1) for rank in range(len(models))]
    for model, share in zip(models, popularity, strict=True):
        level = min(0.6, total * share / sum(popularity))
        arrivals = Arrivals(draw.rng, model, draw.rng.uniform(2_000, 15_000))
        asks += arrivals.at_rate(even(level), level, 0, HOUR_MS)
    if shared is not None:
        models = [msgspec.structs.replace(model, bounds=None) for model in models]
    return draw.plan(models, hosts, asks, HOUR_MS, wait_ms_max=30 * MINUTE_MS, bounds_of_all=shared)


def kept(draw: Draw) -> Plan:
    """Small models that are kept, and now and then a large one: it fits on one host, if none of them is there."""
    rng = draw.rng
    small = [draw.model(f"small-{n}", 1.0, max_workers=rng.randint(1, 3), load_ms=(2_000, 40_000)) for n in range(2)]
    most = sum(model.bounds.max_workers for model in small if model.bounds is not None)
    hosts = [draw.host(number, max(model.need_mib for model in small)) for number in range(1, most + 1)]
    need_mib = math.ceil(max(host.usable_mib for host in hosts) * rng.uniform(1.01, 1.5))
    large = draw.model("large", 0.0, max_workers=1, load_ms=(2_000, 40_000))
    large = msgspec.structs.replace(large, need_mib=need_mib)
    asks: list[Ask] = []
    for model in small:
        level = rng.uniform(0.02, 0.4)
        asks += Arrivals(rng, model, rng.uniform(2_000, 15_000)).at_rate(even(level), level, 0, HOUR_MS)
    arrivals, at_ms = Arrivals(rng, large, rng.uniform(2_000, 15_000)), rng.randint(1, 5) * MINUTE_MS
    while at_ms < HOUR_MS:
        asks += arrivals.at_once(rng.randint(1, 4), at_ms, 5_000)
        at_ms += round(rng.uniform(1.0, 14.0) * MINUTE_MS)
    return draw.plan([*small, large], [draw.host(0, need_mib), *hosts], asks, HOUR_MS, wait_ms_max=20 * MINUTE_MS)


TRACES: Final[dict[str, Callable[[Draw], Plan]]] = {
    each.__name__: each for each in (steady, step, ramp, sine, bursts, alternating, zoo, kept)
}


def plan_of(trace: str, seed: int) -> Plan:
    """The plan of that trace and seed; equal ones are equal."""
    return TRACES[trace](Draw(trace, seed))


def _one_model(draw: Draw, rate: Rate, highest: float, mean: float, changes: Sequence[int] = ()) -> Plan:
    """One model at such a rate for an hour; between two ``changes`` the rate is even."""
    most = math.ceil(highest / PEAK_SHARE / draw.slowest) + 1
    model = draw.model("model", 0.5, max_workers=most + draw.rng.randint(0, 3))
    work_ms = max(draw.rng.uniform(3_000, 20_000), HOUR_MS * mean * model.slots / REQUESTS_ABOUT)
    asks = list(Arrivals(draw.rng, model, work_ms).at_rate(rate, highest, 0, HOUR_MS))
    phases = [Phase(model.name, from_ms, until_ms) for from_ms, until_ms in pairwise(changes)]
    hosts = draw.hosts(model, most + draw.rng.randint(0, 2))
    return draw.plan([model], hosts, asks, HOUR_MS, steady=phases)
