"""What a run gives back: counts, waits, and a hash of every decision."""

from __future__ import annotations

import hashlib
from collections import Counter

import msgspec

from swarmesh.core.commands import Command, PreemptStream
from swarmesh.core.events import Event
from swarmesh.core.task import TaskStatus
from swarmesh.sim.checkers import demand
from swarmesh.sim.client import Client
from swarmesh.sim.execution import Stream


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one run; equal for equal scenarios.

    Attributes:
        events: Facts told to the core, those of the calm end included.
        moves: Streams started beyond the first of their task.
        queue_depth_max: Most tasks that waited at once.
        queue_ms_p50: Median wait of tasks that ran, from submission to their first start.
        first_token_ms_mean: From submission to the first token, of tasks that were done.
        failed: Tasks that failed, by error code.
        vanished: Streams of plain clients that ended with a queen.
        lost: Tasks that a disk forgot which had lied.
        misjudged: Innocent tasks that were taken for poison because two engines crashed under them.
        tokens: Shown to clients or kept for them.
        preemptions: Slots taken by more urgent tasks.
        lives: Queens that reigned.
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
    vanished: int
    lost: int
    misjudged: int
    tokens: int
    preemptions: int
    lives: int
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
        self.vanished = 0
        self.lost = 0
        self.misjudged = 0
        self.tokens = 0
        self.preemptions = 0
        self.lives = 1
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
        self.preemptions += sum(isinstance(command, PreemptStream) for command in commands)
        self.queue_depth_max = max(self.queue_depth_max, queue_depth)
        self._trace.update(f"{now_ms} {event!r} {commands!r}\n".encode())

    def started(self, stream: Stream, queue_ms: int) -> None:
        """An attempt begins."""
        if stream.attempt == 1:
            self.queue_ms.append(queue_ms)
        self.starts += 1
        self.moves += stream.attempt > 1

    def ended(self, client: Client, status: TaskStatus, code: str) -> None:
        """A client knows how its task ended."""
        match status:
            case TaskStatus.DONE:
                self.done += 1
                self.tokens += len(client.request.answer)
                if client.first_ms is not None:
                    self.first_token_ms.append(client.first_ms - client.request.submitted_ms)
            case TaskStatus.CANCELLED:
                self.cancelled += 1
            case _:
                self.failed[code] += 1

    def check_ends(self) -> None:
        """Every request came to one end.

        Raises:
            InvariantBrokenError: The counts differ.
        """
        ends = self.done + self.cancelled + self.failed.total() + self.vanished + self.lost
        demand(ends == self.submitted, "{} tasks had {} ends", self.submitted, ends)

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
            vanished=self.vanished,
            lost=self.lost,
            misjudged=self.misjudged,
            tokens=self.tokens,
            preemptions=self.preemptions,
            lives=self.lives,
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
