"""The policy ``swarm``: which worker would have a task done soonest, by the queen's books and the speeds she learned.

The cost of a worker for a task, in seconds:

    read_wait + (BACKLOG_SHARE * backlog + DECODE_WORK * inflight + AFFINITY * prefill_weight * uncached) / speed

``read_wait`` is how long it still reads the prompts it was given before, by the same books: prompts are read one after
the other, so that is what a first token waits for. ``uncached`` are the tokens of the prompt it has not read before.
"""

from __future__ import annotations

from typing import Final

from swarmesh.core.candidates import Rank
from swarmesh.core.costs import Costs
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import Priority
from swarmesh.core.ledger import CHARS_PER_TOKEN
from swarmesh.core.speed import speed_class, speed_of_class
from swarmesh.core.task import Task

BACKLOG_SHARE: Final = 0.05
"""How much the work in a worker's books keeps it from a new task: all of it runs at once. More spreads more evenly."""
DECODE_WORK: Final = 4.0
"""What each running task counts besides, in token-equivalents. More keeps streams apart and fast."""
AFFINITY: Final = 1.0
"""What reading counts. More keeps tasks with a common beginning together, and lets others wait longer for it."""
RERANK_MS: Final = 30_000
"""How often the marks on a worker's trail are looked at while nothing happens to it."""


class LedgerRule:
    """The policy ``swarm``: the least cost by the formula above."""

    better = "lower"
    reads_prefix = True

    def __init__(self, costs: Costs) -> None:
        self._costs = costs

    def order_of(self, _priority: Priority) -> int:
        """One order for all."""
        return 0

    def rank(self, worker: Worker, _order: int, now_ms: int) -> Rank:
        """By speed and by whether it is reading: within one such lane the costs of all tasks differ by a constant."""
        pace, trail = worker.pace, worker.trail
        number = speed_class(pace.speed(self._costs.prior_speed) * trail.quality(now_ms))
        pace.rated = speed_of_class(number)
        key = self._load(worker) / pace.rated
        if worker.read_until_ms > now_ms:
            return Rank(2 * number + 1, key + worker.read_until_ms / 1_000, worker.read_until_ms)
        return Rank(2 * number, key, now_ms + RERANK_MS if trail.marks else 0)

    def score(self, worker: Worker, task: Task, cached_tokens: float, now_ms: int) -> float:
        """Seconds."""
        wait_ms, uncached = worker.read_until_ms - now_ms, task.prompt_chars / CHARS_PER_TOKEN - cached_tokens
        work = self._load(worker)
        if uncached > 0.0:
            work += AFFINITY * self._costs.prefill_weight * uncached
        return work / worker.pace.rated + (wait_ms / 1_000 if wait_ms > 0 else 0.0)

    def parts(self, worker: Worker, task: Task, cached_tokens: float, now_ms: int) -> tuple[tuple[str, float], ...]:
        """The terms of the sum, and what they are made of."""
        speed, wait_ms = worker.pace.rated, worker.read_until_ms - now_ms
        decode_s, load_s = DECODE_WORK * len(worker.running) / speed, self._load(worker) / speed
        uncached = task.prompt_chars / CHARS_PER_TOKEN - cached_tokens
        return (
            ("backlog_s", load_s - decode_s + (wait_ms / 1_000 if wait_ms > 0 else 0.0)),
            ("prefill_s", AFFINITY * self._costs.prefill_weight * uncached / speed if uncached > 0.0 else 0.0),
            ("decode_s", decode_s),
            ("speed", speed),
            ("cached_tokens", cached_tokens),
            ("trail", worker.trail.quality(now_ms)),
        )

    def _load(self, worker: Worker) -> float:
        # Who has not reported yet may have work that is in nobody's books: as if one task ran there.
        backlog = worker.backlog if worker.reported else worker.backlog + self._costs.output_tokens
        return BACKLOG_SHARE * backlog + DECODE_WORK * len(worker.running)
