"""What a virtual swarm is made of before it lives: hosts, models, who asks when, and what its owner does meanwhile."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from swarmesh.core.events import ModelScaled, ScalingPaused
from swarmesh.core.ids import HostName, ModelName
from swarmesh.core.memory_pool import USABLE_SHARE
from swarmesh.core.scale_bounds import Bounds

COOL_DOWN_MS: Final = 30_000
"""Between two starts for one model."""
BREAKER_MS_MAX: Final = 600_000
"""The longest time in which nothing is tried for a model that could not be started."""
SEEK_MS: Final = (50, 3_000)
"""Until all hosts have said what they have."""
SPAWN_MS: Final = (300, 1_500)
"""Until an agent has introduced itself, its file being there."""
SLOWEST: Final = 0.5
"""No host is slower, in shares of a usual one."""


class HostPlan(msgspec.Struct, frozen=True):
    """A host: its memory, how fast it computes and loads relative to a usual one, and how near it is."""

    name: HostName
    total_mib: int
    speed: float
    proximity: float

    @property
    def usable_mib(self) -> int:
        """What all its workers together may hold."""
        return int(self.total_mib * USABLE_SHARE)


class ModelPlan(msgspec.Struct, frozen=True):
    """A model: what a worker of it takes, and how many there may be.

    Attributes:
        load_ms: On a usual host, from the agent's first word until it is ready.
        copy_ms: To bring the file to a host that lacks it.
        bounds: None if only the bounds for all models hold.
    """

    name: ModelName
    need_mib: int
    slots: int
    load_ms: int
    copy_ms: int
    bounds: Bounds | None

    @property
    def ready_ms_max(self) -> int:
        """Longest time from the wish for a worker until it serves, if nothing fails."""
        return SEEK_MS[1] + SPAWN_MS[1] + self.copy_ms + math.ceil(self.load_ms / SLOWEST) + 5_000


class Ask(msgspec.Struct, frozen=True, gc=False):
    """One request: when it comes, for what, and how long a usual host works on it."""

    at_ms: int
    model: ModelName
    work_ms: int


class Phase(msgspec.Struct, frozen=True):
    """A time in which a model is asked for at one even rate."""

    model: ModelName
    from_ms: int
    until_ms: int


Act = ModelScaled | ScalingPaused
"""What an owner can do about scaling."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is drawn from a seed before time begins.

    Attributes:
        bounds_of_all: For models that have none of their own.
        acts: What the owner does, and when.
        steady: Phases in which nothing but chance changes.
        until_ms: Nobody comes after this.
        wait_ms_max: No request of a model that can be placed waits longer.
        start_fails_share: Starts that come to nothing.
        dies_every_ms: Mean life of a worker that nobody stops; 0 for as long as it is wanted.
        stop_lost_share: Orders to stop that do not arrive.
    """

    trace: str
    seed: int
    hosts: tuple[HostPlan, ...]
    models: tuple[ModelPlan, ...]
    asks: tuple[Ask, ...]
    until_ms: int
    wait_ms_max: int
    bounds_of_all: Bounds | None = None
    acts: tuple[tuple[int, Act], ...] = ()
    steady: tuple[Phase, ...] = ()
    start_fails_share: float = 0.0
    dies_every_ms: int = 0
    stop_lost_share: float = 0.0

    @property
    def is_troubled(self) -> bool:
        """Whether anything fails, dies or gets lost."""
        return bool(self.start_fails_share or self.dies_every_ms or self.stop_lost_share)

    def fits_somewhere(self, model: ModelPlan) -> bool:
        """Whether a host that is empty could hold it."""
        return any(model.need_mib <= host.usable_mib for host in self.hosts)


def least_workers(plan: Plan, model: ModelPlan) -> float:
    """Mean number of workers with which nobody would wait, if they came and went in no time, on hosts of mean speed.

    Over the time from the start until `Plan.until_ms`; what runs longer is left out.
    """
    speed = sum(host.speed for host in plan.hosts) / len(plan.hosts)
    changes: list[tuple[int, int]] = []
    for ask in plan.asks:
        if ask.model == model.name:
            changes += [(ask.at_ms, 1), (ask.at_ms + round(ask.work_ms / speed), -1)]
    area_ms, running, at_ms = 0, 0, 0
    for change_ms, change in sorted(changes):
        until_ms = min(change_ms, plan.until_ms)
        area_ms += math.ceil(running / model.slots) * (until_ms - at_ms)
        running, at_ms = running + change, until_ms
    return area_ms / plan.until_ms
