"""One model as an onlooker sees it, who knows only what the core was told and what it ordered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from swarmesh.core.ids import TaskId, WorkerId
from swarmesh.core.scale_bounds import Bounds
from swarmesh.sim.scaling.moves import Move, MoveKind
from swarmesh.sim.scaling.plan import BREAKER_MS_MAX, COOL_DOWN_MS, ModelPlan

FAILURES_MAX: Final = 3
"""Starts that fail one after another until nothing is tried for a while."""
ROOM_MS: Final = 60_000
"""How long after a search in vain room may be made for it."""
FRESH_MS: Final = 60_000
SLACK_MS: Final = 10_000
"""Until a tick, a report and an answer have come."""


@dataclass(slots=True, eq=False)
class ModelWatch:
    """What is known of it.

    Attributes:
        bounds: None while it is not scaled.
        bounded_ms: Since when these are its bounds.
        starting: Workers that were ordered and are not ready, by the time of the order.
        ready: Workers that serve, by the time at which they began to.
        draining: Workers that are to end, and why.
        seeking: Number of the search for a place that is not answered yet.
        sought_ms: When the last search began; -1 before the first.
        searches: When each began.
        spawned_ms: When a worker was last ordered.
        goes_on: The search under way is for one more worker of an action that has begun.
        lacks_room: The last search was in vain so far.
        failures: Starts that failed, one after another; one that ends by itself within a minute of being
            ready has failed, unless it was stopped or has ended a task.
        unproved: Workers of which it is open whether their start has failed.
        hopeless_until_ms: Until then it may be that nothing is tried because too much failed.
        short_since_ms: Since when fewer are ready than the owner wants, and could have been made ready.
        above_since_ms: Since when there are more than the owner allows.
        asked_ms: When somebody last had a request for it open.
        open: Requests without an end, with the time of their coming.
        first: The oldest request that waited when a worker was ordered from zero.
        wakes: For each start from zero: how long the first request waited, and how long the worker took.
    """

    plan: ModelPlan
    bounds: Bounds | None = None
    bounded_ms: int = 0
    starting: dict[WorkerId, int] = field(default_factory=dict)
    ready: dict[WorkerId, int] = field(default_factory=dict)
    draining: dict[WorkerId, MoveKind] = field(default_factory=dict)
    seeking: int | None = None
    sought_ms: int = -1
    searches: list[int] = field(default_factory=list)
    spawned_ms: int = -1
    goes_on: bool = False
    lacks_room: bool = False
    failures: int = 0
    unproved: set[WorkerId] = field(default_factory=set)
    hopeless_until_ms: int = -1
    short_since_ms: int = 0
    above_since_ms: int | None = None
    asked_ms: int = 0
    open: dict[TaskId, int] = field(default_factory=dict)
    first: tuple[WorkerId, TaskId] | None = None
    moves: list[Move] = field(default_factory=list)
    wakes: list[tuple[int, int]] = field(default_factory=list)
    replica_ms: int = 0

    @property
    def live(self) -> int:
        """Workers that serve or will."""
        return sum(1 for each in (self.starting, self.ready) for worker_id in each if worker_id not in self.draining)

    @property
    def serving(self) -> int:
        """Workers that are ready and stay."""
        return sum(1 for worker_id in self.ready if worker_id not in self.draining)

    @property
    def goes_down(self) -> bool:
        """Workers end for its own sake."""
        return any(kind in (MoveKind.DOWN, MoveKind.SLEEP) for kind in self.draining.values())

    @property
    def most(self) -> int:
        """How many there may be."""
        return self.bounds.max_workers if self.bounds else 0

    @property
    def least(self) -> int:
        """How many there ought to be at least."""
        return self.bounds.min_workers if self.bounds else 0

    def wants_room(self, now_ms: int) -> bool:
        """No place was found for it a while ago, and it still needs one."""
        still = bool(self.open) or self.live < self.least
        return self.lacks_room and still and now_ms - self.sought_ms <= ROOM_MS

    def short_ms_max(self, now_ms: int) -> int:
        """How long it may have fewer ready than the owner wants."""
        # One action at a time: what was begun before something went wrong comes to its end first.
        missing = max(0, self.least - self.serving) + bool(self.starting)
        broken_ms = BREAKER_MS_MAX if now_ms < self.hopeless_until_ms else 0
        return missing * (self.plan.ready_ms_max + COOL_DOWN_MS) + SLACK_MS + broken_ms

    def begin_anew(self, now_ms: int) -> None:
        """Something that nobody could foresee: what should have been done until now is not counted."""
        self.short_since_ms = now_ms
        self.above_since_ms = None

    def look_at_starts(self, now_ms: int) -> None:
        """A worker that has served for a while ends the row of failures."""
        for worker_id in [each for each in self.unproved if now_ms - self.ready[each] >= FRESH_MS]:
            self.proved(worker_id)

    def proved(self, worker_id: WorkerId) -> None:
        """A worker has ended a task, was stopped, or has stayed: its start was a success."""
        if worker_id in self.unproved:
            self.unproved.discard(worker_id)
            self.failures = 0

    def failed(self, now_ms: int) -> None:
        """A start came to nothing."""
        self.failures += 1
        if self.failures >= FAILURES_MAX:
            self.hopeless_until_ms = now_ms + BREAKER_MS_MAX + self.plan.ready_ms_max
        self.begin_anew(now_ms)

    def gone(self, worker_id: WorkerId, now_ms: int) -> None:
        """A worker is no more."""
        if worker_id not in self.draining:
            if worker_id in self.starting or worker_id in self.unproved:
                self.failed(now_ms)
            self.begin_anew(now_ms)
        self.unproved.discard(worker_id)
        self.starting.pop(worker_id, None)
        self.ready.pop(worker_id, None)
        self.draining.pop(worker_id, None)
