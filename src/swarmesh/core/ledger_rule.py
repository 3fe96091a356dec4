"""The policy ``swarm``: which worker would have a task done soonest, by the queen's books and the speeds she learned.

The cost of a worker for a task, in seconds:

    read_wait + (BACKLOG_SHARE * backlog + DECODE_WORK * inflight + AFFINITY * prefill_weight * uncached) / speed

``read_wait`` is how long it still reads the prompts it was given before, by the same books: prompts are read one after
the other, so that is what a first token waits for. ``uncached`` are the tokens of the prompt it has not read before.
Of equals the one up longest has tasks of high priority; all others go in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from swarmesh.core.candidates import Rank
from swarmesh.core.costs import Costs
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import Priority
from swarmesh.core.ledger import CHARS_PER_TOKEN
from swarmesh.core.task import Task

BACKLOG_SHARE: Final = 0.04
"""How much the work in a worker's books keeps it from a new task: all of it runs at once. More spreads more evenly."""
DECODE_WORK: Final = 4.0
"""What each running task counts besides, in token-equivalents. More keeps streams apart and fast."""
AFFINITY: Final = 1.0
"""What reading counts. More keeps tasks with a common beginning together, and lets others wait longer for it."""
RERATE_MS: Final = 30_000
"""How often the marks on a worker's trail are looked at while nothing happens to it."""

Facts = tuple[float, ...]
"""What a cost was taken from: load and reading in token-equivalents, running tasks, speed, wait in ms, cached tokens,
trail; see `parts_of`."""
Weighed = tuple[float, int, int, int, Worker, Facts]
"""Cost, tie, last turn, place in the question, who it is, and `Facts`: in the order in which workers are asked."""

_BY_TURN: Final = 0
_BY_AGE: Final = 1


class LedgerRule:
    """The policy ``swarm``: the least cost by the formula above."""

    better = "lower"
    reads_prefix = True

    def __init__(self, costs: Costs) -> None:
        self._costs = costs

    def order_of(self, priority: Priority) -> int:
        """One order for tasks of high priority, one for all others."""
        return _BY_AGE if priority is Priority.HIGH else _BY_TURN

    def rate(self, worker: Worker, now_ms: int) -> None:
        """By the speed that was learned, less for bad marks."""
        speed, trail = worker.pace.speed(self._costs.prior_speed), worker.trail
        if trail.marks:
            worker.pace.rate(speed * trail.quality(now_ms), now_ms + RERATE_MS)
        else:
            worker.pace.rate(speed, 0)

    def rank(self, worker: Worker, order: int, now_ms: int) -> Rank:
        """By speed, and by whether it is reading and has reported: in one such lane all costs differ by a constant."""
        pace = worker.pace
        if pace.is_stale or worker.trail.marks:
            self.rate(worker, now_ms)
        is_reading, tie = worker.read_until_ms > now_ms, worker.registered_at_ms if order == _BY_AGE else 0
        lane = 4 * pace.number + 2 * (not worker.reported) + is_reading
        key = (BACKLOG_SHARE * worker.backlog + DECODE_WORK * len(worker.running)) / pace.rated
        if not is_reading:
            return Rank(lane, key, pace.rated_until_ms, tie)
        until_ms = min(worker.read_until_ms, pace.rated_until_ms or worker.read_until_ms)
        return Rank(lane, key + worker.read_until_ms / 1_000, until_ms, tie)

    def weigh(
        self, workers: Sequence[Worker], task: Task, cached_tokens: Sequence[float], now_ms: int
    ) -> list[Weighed]:
        """Seconds. All in one loop: this is asked for every task."""
        weighed: list[Weighed] = []
        costs, tokens = self._costs, task.prompt_chars / CHARS_PER_TOKEN
        per_token, unknown, by_age = (
            AFFINITY * costs.prefill_weight,
            costs.output_tokens,
            task.priority is Priority.HIGH,
        )
        cached, trail, tie = 0.0, 1.0, 0
        for index, worker in enumerate(workers):
            pace = worker.pace
            if pace.rated_until_ms:  # It has bad marks.
                if pace.rated_until_ms <= now_ms:
                    self.rate(worker, now_ms)
                trail = worker.trail.quality(now_ms)
            # Who has not reported yet may have work that is in nobody's books: as if one task ran there.
            backlog = worker.backlog if worker.reported else worker.backlog + unknown
            speed, running, wait_ms = pace.rated, len(worker.running), worker.read_until_ms - now_ms
            if cached_tokens:
                cached = cached_tokens[index]
            load = BACKLOG_SHARE * backlog + DECODE_WORK * running
            reading = per_token * (tokens - cached)
            cost = (load + reading if reading > 0.0 else load) / speed
            if wait_ms > 0:
                cost += wait_ms / 1_000
            if by_age:
                tie = worker.registered_at_ms
            facts = (load, reading, running, speed, wait_ms, cached, trail)
            weighed.append((cost, tie, worker.last_chosen, index, worker, facts))
            trail = 1.0
        return weighed


def parts_of(facts: Facts) -> tuple[tuple[str, float], ...]:
    """The terms of the sum, and what they are made of, by name."""
    load, reading, running, speed, wait_ms, cached_tokens, trail = facts
    decode_s = DECODE_WORK * running / speed
    return (
        ("backlog_s", load / speed - decode_s + (wait_ms / 1_000 if wait_ms > 0 else 0.0)),
        ("prefill_s", reading / speed if reading > 0.0 else 0.0),
        ("decode_s", decode_s),
        ("speed", speed),
        ("cached_tokens", cached_tokens),
        ("trail", trail),
    )
