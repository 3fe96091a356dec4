"""What a run gives back: counts, waits, and a hash of every decision."""

from __future__ import annotations

import hashlib
from collections import Counter

import msgspec

from swarmesh.core.commands import Command
from swarmesh.core.events import Event


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one run; equal for equal scenarios.

    Attributes:
        events: Facts told to the core, those of the calm end included.
        moves: Streams started beyond the first of their task.
        queue_depth_max: Most tasks that waited at once.
        queue_ms_p50: Median wait of tasks that ran, from submission to their first start.
        first_token_ms_mean: From submission to the first token, of tasks that were done.
        failed: Tasks that failed, by error code.
        faults: What befell the world, by kind.
        trace: Hash of every event and command in order.
    """

    seed: int
    workers: int
    events: int
    virtual_s: float
    submitted: int
    done: int
    cancelled: int
    failed: dict[str, int]
    starts: int
    moves: int
    queue_depth_max: int
    queue_ms_p50: float
    queue_ms_p99: float
    first_token_ms_mean: float
    first_token_ms_p99: float
    faults: dict[str, int]
    trace: str


def percentile(values: list[int], share: float) -> float:
    """The nearest-rank percentile; 0.0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


class Record:
    """Gathers what becomes the result while a world runs."""

    def __init__(self) -> None:
        self.events = 0
        self.submitted = 0
        self.done = 0
        self.cancelled = 0
        self.starts = 0
        self.moves = 0
        self.queue_depth_max = 0
        self.failed: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.queue_ms: list[int] = []
        self.first_token_ms: list[int] = []
        self._trace = hashlib.blake2b(digest_size=16)

    def told(self, event: Event, commands: list[Command], now_ms: int, queue_depth: int) -> None:
        """Take one decision of the core down."""
        self.events += 1
        self.queue_depth_max = max(self.queue_depth_max, queue_depth)
        self._trace.update(f"{now_ms} {event!r} {commands!r}\n".encode())

    def result(self, seed: int, workers: int, virtual_ms: int) -> Result:
        """Everything gathered so far."""
        first_ms = self.first_token_ms
        return Result(
            seed=seed,
            workers=workers,
            events=self.events,
            virtual_s=virtual_ms / 1_000,
            submitted=self.submitted,
            done=self.done,
            cancelled=self.cancelled,
            failed=dict(sorted(self.failed.items())),
            starts=self.starts,
            moves=self.moves,
            queue_depth_max=self.queue_depth_max,
            queue_ms_p50=percentile(self.queue_ms, 0.5),
            queue_ms_p99=percentile(self.queue_ms, 0.99),
            first_token_ms_mean=sum(first_ms) / len(first_ms) if first_ms else 0.0,
            first_token_ms_p99=percentile(first_ms, 0.99),
            faults=dict(sorted(self.faults.items())),
            trace=self._trace.hexdigest(),
        )
