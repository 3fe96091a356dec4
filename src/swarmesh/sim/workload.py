"""Who asks for what, and when: Poisson arrivals with bursts, lognormal sizes, clients that leave."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Final

from swarmesh.core.events import TaskSubmitted
from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId
from swarmesh.core.ledger import CHARS_PER_TOKEN

PROMPT_TOKENS_MEDIAN: Final = 300
PROMPT_SIGMA: Final = 1.0
OUTPUT_TOKENS_MEDIAN: Final = 300
OUTPUT_SIGMA: Final = 0.8
TOKENS_MAX: Final = 16_384
BURST_EVERY: Final = 400
"""One in so many arrivals is a burst."""
BURST_SIZE_MAX: Final = 64
KEYS: Final = 20
LEAVING_SHARE: Final = 0.05
LEAVING_MEAN_MS: Final = 8_000
REFUSED_SHARE: Final = 0.005
DURABLE_SHARE: Final = 0.3
UNBOUNDED_SHARE: Final = 0.4
PRIORITY_SHARES: Final = {Priority.HIGH: 0.2, Priority.MEDIUM: 0.6, Priority.LOW: 0.2}


@dataclass(slots=True)
class Request:
    """What one client wants, and what only the world knows of it.

    Attributes:
        leaves_after_ms: When the client hangs up; None for one that stays.
        refused: The engine will not take it, wherever it goes.
    """

    task: TaskSubmitted
    prompt_tokens: int
    output_tokens: int
    submitted_ms: int
    leaves_after_ms: int | None
    refused: bool


def mean_tokens(median: int, sigma: float) -> float:
    """Mean of a lognormal with this median, bounds left out."""
    return median * math.exp(sigma * sigma / 2)


class Workload:
    """Draws requests; its own generator, so that faults do not change what is asked."""

    def __init__(self, rng: Random, models: list[ModelName], requests_per_ms: float, *, faults: bool) -> None:
        self._rng = rng
        self._models = models
        # A burst counts for its mean size, so that the asked load is kept.
        mean_size = 1 + (BURST_SIZE_MAX / 2) / BURST_EVERY
        self._arrivals_per_ms = requests_per_ms / mean_size
        self._faults = faults
        self._made = 0

    def gap_ms(self) -> float:
        """Time until the next arrival."""
        return self._rng.expovariate(self._arrivals_per_ms)

    def arrival(self, now_ms: int) -> list[Request]:
        """The requests of one arrival: mostly one, sometimes a burst for one model."""
        model = self._rng.choice(self._models)
        burst = self._rng.random() < 1 / BURST_EVERY
        count = self._rng.randint(2, BURST_SIZE_MAX) if burst else 1
        return [self._request(model, now_ms) for _ in range(count)]

    def _request(self, model: ModelName, now_ms: int) -> Request:
        rng = self._rng
        self._made += 1
        prompt_tokens = self._tokens(PROMPT_TOKENS_MEDIAN, PROMPT_SIGMA)
        output_tokens = self._tokens(OUTPUT_TOKENS_MEDIAN, OUTPUT_SIGMA)
        leaves = self._faults and rng.random() < LEAVING_SHARE
        bounded = rng.random() >= UNBOUNDED_SHARE
        task = TaskSubmitted(
            task_id=TaskId(f"task-{self._made}"),
            model=model,
            priority=rng.choices(list(PRIORITY_SHARES), list(PRIORITY_SHARES.values()))[0],
            key_id=KeyId(f"key-{rng.randrange(KEYS)}"),
            prompt_chars=prompt_tokens * CHARS_PER_TOKEN,
            max_tokens=output_tokens + rng.randrange(64) if bounded else 0,
            durable=rng.random() < DURABLE_SHARE,
            model_known=True,
        )
        return Request(
            task=task,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            submitted_ms=now_ms,
            leaves_after_ms=round(rng.expovariate(1 / LEAVING_MEAN_MS)) if leaves else None,
            refused=self._faults and rng.random() < REFUSED_SHARE,
        )

    def _tokens(self, median: int, sigma: float) -> int:
        drawn = self._rng.lognormvariate(math.log(median), sigma)
        return max(1, min(TOKENS_MAX, round(drawn)))
