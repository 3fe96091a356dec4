"""Hosts, models, troubles and the owner's whims, drawn from one seeded generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Final

from swarmesh.core.events import ModelScaled, ScalingPaused
from swarmesh.core.ids import HostName, ModelName
from swarmesh.core.memory_pool import USABLE_SHARE
from swarmesh.core.scale_bounds import Bounds
from swarmesh.sim.scaling.plan import SLOWEST, Act, Ask, HostPlan, ModelPlan, Phase, Plan

MINUTE_MS: Final = 60_000
NEED_MIB: Final = (1_000, 24_000)
LOAD_MS: Final = (3_000, 120_000)
COPY_MS: Final = (1_000, 90_000)
SLOTS: Final = (1, 2, 4)
TROUBLED_SHARE: Final = 0.4
"""Runs in which starts fail, workers die or orders get lost."""
WHIM_SHARE: Final = 0.3
"""Runs in which the owner pauses scaling or changes bounds."""
WAIT_MS_MAX: Final = 15 * MINUTE_MS


class Draw:
    """One run's chance.

    Attributes:
        slowest: Speed of the slowest host of the run, relative to a usual one.
    """

    def __init__(self, trace: str, seed: int) -> None:
        self.rng = Random(f"{trace}/{seed}")
        self.slowest = self.rng.choice((1.0, 0.8, SLOWEST))
        self._trace = trace
        self._seed = seed

    def model(
        self, name: str, min_share: float, *, max_workers: int = 8, load_ms: tuple[int, int] = LOAD_MS
    ) -> ModelPlan:
        """A model; ``min_share`` is how likely some of its workers are to be kept when nobody asks."""
        rng = self.rng
        min_workers = rng.randint(1, min(2, max_workers)) if rng.random() < min_share else 0
        return ModelPlan(
            name=ModelName(name),
            need_mib=rng.randint(*NEED_MIB),
            slots=rng.choice(SLOTS),
            load_ms=rng.randint(*load_ms),
            copy_ms=rng.choice((0, rng.randint(*COPY_MS))),
            bounds=Bounds(min_workers, max_workers),
        )

    def giant(self, most_mib: int) -> ModelPlan:
        """A model that no host can hold."""
        return ModelPlan(ModelName("giant"), 2 * most_mib, 1, LOAD_MS[0], 0, Bounds(0, 1))

    def host(self, number: int, need_mib: int) -> HostPlan:
        """A host on which that much, and not twice as much, can be held."""
        total_mib = math.ceil(need_mib * self.rng.uniform(1.0, 1.3) / USABLE_SHARE) + 1
        speed = self.slowest if number == 0 else self.rng.uniform(self.slowest, 2.0)
        return HostPlan(HostName(f"host-{number}"), total_mib, speed, self.rng.choice((0.2, 0.5, 1.0)))

    def hosts(self, model: ModelPlan, workers: int) -> tuple[HostPlan, ...]:
        """Hosts that can hold so many workers together."""
        hosts: list[HostPlan] = []
        while workers > 0:
            here = min(workers, self.rng.randint(1, 4))
            hosts.append(self.host(len(hosts), here * model.need_mib))
            workers -= here
        return tuple(hosts)

    def plan(
        self,
        models: Sequence[ModelPlan],
        hosts: Sequence[HostPlan],
        asks: Sequence[Ask],
        until_ms: int,
        *,
        steady: Sequence[Phase] = (),
        wait_ms_max: int = WAIT_MS_MAX,
        bounds_of_all: Bounds | None = None,
    ) -> Plan:
        """All of it together, and now and then some trouble; no phase is steady in which there is any."""
        rng = self.rng
        troubled, whims = rng.random() < TROUBLED_SHARE, rng.random() < WHIM_SHARE
        acts: tuple[tuple[int, Act], ...] = ()
        if whims:
            # Where models share memory nobody keeps any: what one keeps, the others can never have.
            model = rng.choice(models)
            places = sum(host.usable_mib // model.need_mib for host in hosts)
            acts = self._acts(model, bounds_of_all or Bounds(), until_ms, places, alone=len(models) == 1)
        return Plan(
            trace=self._trace,
            seed=self._seed,
            hosts=tuple(hosts),
            models=tuple(models),
            asks=tuple(sorted(asks, key=lambda ask: ask.at_ms)),
            until_ms=until_ms,
            wait_ms_max=wait_ms_max,
            bounds_of_all=bounds_of_all,
            acts=acts,
            steady=() if troubled or acts else tuple(steady),
            start_fails_share=rng.choice((0.0, 0.1, 0.3)) if troubled else 0.0,
            dies_every_ms=rng.choice((0, 30 * MINUTE_MS)) if troubled else 0,
            stop_lost_share=rng.choice((0.0, 0.2)) if troubled else 0.0,
        )

    def _acts(
        self, model: ModelPlan, of_all: Bounds, until_ms: int, places: int, *, alone: bool
    ) -> tuple[tuple[int, Act], ...]:
        from_ms = self.rng.randint(MINUTE_MS, until_ms - 10 * MINUTE_MS)
        until_ms = from_ms + self.rng.randint(MINUTE_MS, 8 * MINUTE_MS)
        usual = model.bounds or of_all
        match self.rng.randrange(4) if alone else self.rng.randrange(2):
            case 0:
                return (from_ms, ScalingPaused(True)), (until_ms, ScalingPaused(False))
            case 1:
                paused = Bounds(usual.min_workers, usual.max_workers, paused=True)
                return (from_ms, ModelScaled(model.name, paused)), (until_ms, ModelScaled(model.name, usual))
            case 2:
                least = Bounds(min(usual.max_workers, usual.min_workers + 1, places), usual.max_workers)
                return ((from_ms, ModelScaled(model.name, least)),)
            case _:
                fewer = Bounds(min(1, usual.min_workers), max(1, usual.max_workers // 2))
                return (from_ms, ModelScaled(model.name, fewer)), (until_ms, ModelScaled(model.name, usual))
