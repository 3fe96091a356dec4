"""How many workers a model ought to have: a pure function of what was measured and of the owner's bounds (R-17, R-18).

Up: a mean load above 0.8 wants two more; all workers at 0.9, a queue above 100 or a latency above 5 s want one more, or
as many as the demand needs. Down: one less where the load stays below 0.2. To the minimum when nobody asks for minutes.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scale_view import ScaleStats

LOAD_UP: Final = 0.8
LOAD_UP_STEP: Final = 2
LOAD_DOWN: Final = 0.2
FULL_SHARE: Final = 0.9
FULL_MS: Final = 20_000
"""All workers have to be full for so long: one glance at a moment says little about workers with one slot."""
QUEUE_UP: Final = 100
QUEUE_DOWN: Final = 10
LATENCY_UP_MS: Final = 5_000
LATENCY_LOAD_MIN: Final = 0.5
"""Below this load nobody waits for a slot: what takes long is the reading, and more workers would not read faster."""
IDLE_MS: Final = 300_000
IDLE_KEPT_MS: Final = 600_000
"""The same where some are kept: those beyond the minimum may be wanted again, and going one by one is as good."""
HEADROOM: Final = 0.75
"""A worker only goes when the others would have been less full than this in the busiest minute of `PEAK_MS`."""
PEAK_MS: Final = 900_000
"""Less lets workers go sooner between two bursts, and has to start them again for the second."""
STEP_MIN: Final = 2
"""One decision at most doubles what serves, or adds so many."""


class Signals(msgspec.Struct, frozen=True):
    """What the rule looks at.

    Attributes:
        full_ms: How long all workers have been nearly full.
        low_ms: How long the load has been low.
        spare_ms: How long the one that is idle longest has been so; -1 when none is idle that may be stopped.
        load_without: The highest load the others would have had of late if that one had been gone.
        slots_each: Of a worker of this model, as last seen; 0 when none has ever been.
        tasks_mean: Running and waiting tasks, meant over the same time as the load.
    """

    stats: ScaleStats
    full_ms: int = 0
    low_ms: int = 0
    spare_ms: int = -1
    load_without: float = 0.0
    slots_each: float = 0.0
    tasks_mean: float = 0.0

    @property
    def present(self) -> int:
        """Workers that serve or will."""
        return self.stats.serving + self.stats.starting

    @property
    def demand(self) -> int:
        """Workers that would have a slot for every task at this moment."""
        return self._workers_for(self.stats.busy + self.stats.waiting, 1.0)

    @property
    def demand_mean(self) -> int:
        """Workers that would hold the mean number of tasks at the load from which on more are wanted."""
        return self._workers_for(self.tasks_mean, LOAD_UP)

    def _workers_for(self, tasks: float, share: float) -> int:
        return math.ceil(tasks / (share * self.slots_each)) if self.slots_each else math.ceil(min(1, tasks))


class Wish(msgspec.Struct, frozen=True):
    """What the rule wants, and which part of it; see `ScaleDecision.rule`."""

    target: int
    rule: str


def wish(signals: Signals, bounds: Bounds) -> Wish:
    """The number of workers, within the bounds except that nothing is stopped but what is too many or idle."""
    stats, present = signals.stats, signals.present
    if present > bounds.max_workers:
        return Wish(bounds.max_workers, "max")
    if not present and stats.waiting:
        return _first(signals, bounds)
    if present < bounds.min_workers:
        return Wish(bounds.min_workers, "min")
    up = _up(signals, bounds)
    if up is not None:
        return up
    return _down(signals, bounds) or Wish(present, "hold")


def reason(found: Wish, signals: Signals, bounds: Bounds) -> str:
    """The same in a sentence, with the numbers."""
    stats, present = signals.stats, signals.present
    delay_ms = max(stats.latency_ms, stats.wait_ms)
    words = {
        "first_request": f"{_tasks(stats.waiting)} and no rustbee serves the modelcell",
        "min": f"{present} of at least {rustbees(bounds.min_workers)} {_is(present)} there",
        "max": f"{rustbees(present)} {_is(present)} there and {bounds.max_workers} {_is(bounds.max_workers)} allowed",
        "load": f"the mean load is {stats.load:.2f}, above {LOAD_UP}, on {rustbees(stats.serving)}",
        "full": f"{all_of(stats.serving)} {'has' if stats.serving == 1 else 'have'} been {FULL_SHARE} full or more for "
        f"{signals.full_ms / 1000:.0f} s",
        "queue": f"{_tasks(stats.waiting)}, more than {QUEUE_UP}",
        "latency": f"the first token takes {delay_ms / 1000:.1f} s, more than {LATENCY_UP_MS / 1000:.0f} s",
        "idle": f"nobody has asked for it for {stats.idle_ms / 1000:.0f} s, at least {IDLE_MS / 1000:.0f} s",
        "low_load": f"the mean load is {stats.load:.2f}, below {LOAD_DOWN}, {_tasks(stats.waiting)}, "
        f"and without one the others would have been at most {signals.load_without:.2f} full of late",
        "script": f"the policy script wants {rustbees(found.target)}, and {present} {_is(present)} there",
    }
    return words.get(found.rule) or _steady(signals, bounds)


def _first(signals: Signals, bounds: Bounds) -> Wish:
    wanted = max(1, bounds.min_workers, min(STEP_MIN, signals.demand))
    return Wish(min(bounds.max_workers, wanted), "first_request")


def _up(signals: Signals, bounds: Bounds) -> Wish | None:
    stats = signals.stats
    if not stats.serving or signals.present >= bounds.max_workers:
        return None
    rule = _up_rule(signals)
    if not rule:
        return None
    if rule == "load":
        wanted = min(stats.serving + LOAD_UP_STEP, max(stats.serving + 1, signals.demand_mean))
    else:
        wanted = max(stats.serving + 1, signals.demand)
    most = min(bounds.max_workers, signals.present + max(STEP_MIN, stats.serving))
    target = min(most, wanted)
    return Wish(target, rule) if target > signals.present else None


def _up_rule(signals: Signals) -> str:
    stats = signals.stats
    if stats.load > LOAD_UP:
        return "load"
    if signals.full_ms >= FULL_MS:
        return "full"
    if signals.spare_ms >= 0:
        return ""  # What waits although somebody is idle waits for something else: a script has its reasons.
    if stats.waiting > QUEUE_UP:
        return "queue"
    if max(stats.latency_ms, stats.wait_ms) > LATENCY_UP_MS and (stats.waiting or stats.load > LATENCY_LOAD_MIN):
        return "latency"
    return ""


def _down(signals: Signals, bounds: Bounds) -> Wish | None:
    stats, present = signals.stats, signals.present
    if present <= bounds.min_workers or stats.starting or signals.spare_ms < 0:
        return None
    if stats.idle_ms >= (IDLE_KEPT_MS if bounds.min_workers else IDLE_MS):
        return Wish(bounds.min_workers, "idle")
    # The router gives equals their turn, so with little to do hardly anybody is idle for minutes: low for as long is
    # as good a sign.
    long = max(signals.spare_ms, signals.low_ms) >= IDLE_MS
    low = stats.load < LOAD_DOWN and stats.waiting < QUEUE_DOWN and signals.load_without < HEADROOM
    return Wish(present - 1, "low_load") if long and low and stats.serving > 1 else None


def _steady(signals: Signals, bounds: Bounds) -> str:
    stats = signals.stats
    if not signals.present:
        return "nobody asks for it"
    if not stats.serving:
        return f"{rustbees(stats.starting)} {_is(stats.starting)} starting"
    words = f"the mean load is {stats.load:.2f} on {rustbees(stats.serving)}, {_tasks(stats.waiting)}"
    if signals.present >= bounds.max_workers and _up_rule(signals):
        return f"{words}; no more than {bounds.max_workers} {_is(bounds.max_workers)} allowed"
    return words


def rustbees(count: int) -> str:
    """So many of them, in words."""
    return "1 rustbee" if count == 1 else f"{count} rustbees"


def all_of(count: int) -> str:
    """Every one of them, in words."""
    return "the one rustbee" if count == 1 else f"all {count} rustbees"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _tasks(count: int) -> str:
    return "1 task waits" if count == 1 else f"{count} tasks wait"
