"""What the scaler keeps of one model: its bounds, what was seen, cool-downs, what is under way, what was done."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec

from swarmesh.core.breaker import Breaker
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.peak import Peak
from swarmesh.core.placement import Placement
from swarmesh.core.scale_action import Action
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scale_census import Census
from swarmesh.core.scale_rule import FULL_SHARE, LOAD_DOWN, Signals
from swarmesh.core.scale_view import ScaleDecision, ScaleStats

LOAD_HALF_LIFE_MS: Final = 30_000
"""Of the mean load: less follows bursts, more reacts later."""
UP_COOL_DOWN_MS: Final = 30_000
"""After any change before more workers are started for load; not for the first, nor for the minimum."""
DOWN_COOL_DOWN_MS: Final = 300_000
"""After any change before a worker is stopped for lack of load."""
REGRET_MS: Final = 600_000
"""A stop that is followed by a start for load within this time was a mistake, and none follows for as long."""
HISTORY_MAX: Final = 20

ON_LOAD: Final = frozenset({"load", "full", "queue", "latency"})
ON_COMFORT: Final = frozenset({"load", "full"})
"""Of those the ones by which more are started before anybody has to wait."""
ON_CALM: Final = frozenset({"idle", "low_load"})


@dataclass(slots=True)
class Scaled:
    """One model.

    Attributes:
        bounds: None: nothing new is done, and the book is closed once nothing is under way.
        load: Decayed mean share of the slots in use.
        tasks: The same of the number of running and waiting tasks.
        waiting_since_ms: Since when tasks wait and nobody serves; None while that is not so.
        used_at_ms: When it last had a task.
        got_ms: When a worker of it last became ready; its turn on a contended host starts there.
        changed_ms: When the number of its workers was last changed by the scaler.
        stopped_ms: When one was last stopped for lack of load.
        calm_until_ms: Until then none is stopped for lack of load, because the last time was a mistake.
        not_before_ms: Nothing more is started before: no host had room.
        blocked: Why nothing is done although the rule wants it.
        doubted_ms: Since when it has looked as if nobody who may be let go had the memory for it; None while not.
        stays_until_ms: Until then no worker of it moves for another model: no host had room for it, or it failed there.
        unwanted: The policy script wants no worker although tasks wait.
        fresh: Workers that have become ready a short while ago, and when: whether their start was a success is open.
    """

    model: ModelName
    bounds: Bounds | None = None
    own_bounds: bool = False
    breaker: Breaker = field(default_factory=Breaker)
    action: Action | None = None
    census: Census = field(default_factory=Census)
    waiting: int = 0
    wait_ms: int = 0
    load: float = 0.0
    tasks: float = 0.0
    looked_at_ms: int | None = None
    full_since_ms: int | None = None
    low_since_ms: int | None = None
    waiting_since_ms: int | None = None
    used_at_ms: int = 0
    got_ms: int | None = None
    changed_ms: int | None = None
    stopped_ms: int | None = None
    calm_until_ms: int = 0
    not_before_ms: int = 0
    blocked: str = ""
    doubted_ms: int | None = None
    stays_until_ms: int = 0
    unwanted: bool = False
    slots_each: float = 0.0
    last_host: HostName | None = None
    placement: Placement | None = None
    history: deque[ScaleDecision] = field(default_factory=lambda: deque(maxlen=HISTORY_MAX))
    fresh: dict[WorkerId, int] = field(default_factory=dict)
    peak: Peak = field(default_factory=Peak)

    def see(self, census: Census, waiting: int, wait_ms: int, now_ms: int) -> None:
        """Take in how things stand."""
        if census.serving and not self.census.serving:
            self.load = self.tasks = 0.0  # What tasks waited for is there; whether it is enough is told from now on.
        self.census, self.waiting, self.wait_ms = census, waiting, wait_ms
        before_ms, self.looked_at_ms = self.looked_at_ms, now_ms
        busy = bool(waiting or census.busy)
        self.used_at_ms = max(self.used_at_ms, now_ms if busy else census.used_at_ms)
        self.waiting_since_ms = _since(self.waiting_since_ms, now_ms, holds=bool(waiting) and not census.serving)
        if census.serving:
            self.slots_each = census.slots / census.serving
        self._smooth(now_ms - before_ms if before_ms is not None else 0)
        full = bool(census.known_slots) and census.least_share >= FULL_SHARE
        self.full_since_ms = _since(self.full_since_ms, now_ms, holds=full)
        low = bool(census.serving) and self.load < LOAD_DOWN
        self.low_since_ms = _since(self.low_since_ms, now_ms, holds=low)

    def count(self, now_ms: int) -> None:
        """Take in how many tasks there are, as last seen; at even intervals."""
        if self.census.serving:  # How many waited for a worker that was being started says little.
            self.peak.see(self.census.busy + self.waiting, now_ms)

    def signals(self, latency_ms: int, now_ms: int) -> Signals:
        """What the rule looks at, as last seen."""
        seen = self.census
        idle = not (self.waiting or seen.busy)
        stats = ScaleStats(
            serving=seen.serving,
            starting=seen.starting,
            slots=seen.slots,
            busy=seen.busy,
            load=self.load,
            waiting=self.waiting,
            wait_ms=self._wait_since_change(now_ms),
            latency_ms=latency_ms,
            idle_ms=now_ms - self.used_at_ms if idle and self.used_at_ms else 0,
        )
        left = seen.slots - seen.idle_slots
        return Signals(
            stats,
            full_ms=_age(self.full_since_ms, now_ms),
            low_ms=_age(self.low_since_ms, now_ms),
            spare_ms=now_ms - seen.idle_since_ms if seen.idle_since_ms >= 0 else -1,
            load_without=self.peak.slots / left if left > 0 else float(bool(self.peak.slots)),
            slots_each=self.slots_each,
            tasks_mean=self.tasks,
        )

    def changed(self, now_ms: int) -> None:
        """The scaler has changed the number of workers: cool-downs start, and what was seen before says little."""
        self.changed_ms = now_ms
        self.full_since_ms = self.low_since_ms = None

    def up_in_ms(self, now_ms: int) -> int:
        """How long until more may be started for load."""
        return max(0, self.changed_ms + UP_COOL_DOWN_MS - now_ms) if self.changed_ms is not None else 0

    def comfort_in_ms(self, now_ms: int) -> int:
        """How long more are only started for tasks that wait, because one was stopped for lack of load."""
        return max(0, self.stopped_ms + REGRET_MS - now_ms) if self.stopped_ms is not None else 0

    def down_in_ms(self, now_ms: int) -> int:
        """How long until one may be stopped for lack of load."""
        cool_ms = self.changed_ms + DOWN_COOL_DOWN_MS - now_ms if self.changed_ms is not None else 0
        return max(0, cool_ms, self.calm_until_ms - now_ms)

    def note(self, decision: ScaleDecision) -> None:
        """Something was done."""
        self.history.appendleft(decision)

    def renote(self, before: ScaleDecision, after: ScaleDecision) -> None:
        """More is known of something that was done."""
        for index, known in enumerate(self.history):
            if known is before:
                self.history[index] = after
                return

    def named(self, decision: ScaleDecision, worker_id: WorkerId) -> ScaleDecision:
        """The decision with one more worker in it, here and in the history."""
        after = msgspec.structs.replace(decision, workers=(*decision.workers, worker_id))
        self.renote(decision, after)
        return after

    def _smooth(self, step_ms: int) -> None:
        seen = self.census
        if not seen.serving:
            self.load = float(bool(self.waiting))
        elif seen.known_slots:
            keep = 2.0 ** (-step_ms / LOAD_HALF_LIFE_MS)
            self.load = keep * self.load + (1.0 - keep) * min(1.0, seen.known_busy / seen.known_slots)
            self.tasks = keep * self.tasks + (1.0 - keep) * (seen.busy + self.waiting)

    def _wait_since_change(self, now_ms: int) -> int:
        # Who waited for a worker that was being started says nothing about the load of those that serve.
        if not self.census.serving or self.changed_ms is None:
            return self.wait_ms
        return min(self.wait_ms, now_ms - self.changed_ms)


def _since(before_ms: int | None, now_ms: int, *, holds: bool) -> int | None:
    return (before_ms if before_ms is not None else now_ms) if holds else None


def _age(since_ms: int | None, now_ms: int) -> int:
    return now_ms - since_ms if since_ms is not None else 0
