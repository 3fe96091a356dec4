"""Who asks for what, and when: Poisson arrivals with bursts, lognormal sizes, clients that leave."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Final

from swarmesh.core.events import TaskSubmitted
from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.core.ledger import CHARS_PER_TOKEN
from swarmesh.sim.answer import whole_answer
from swarmesh.sim.setting import Setting

PROMPT_TOKENS_MEDIAN: Final = 300
PROMPT_SIGMA: Final = 1.0
OUTPUT_TOKENS_MEDIAN: Final = 300
OUTPUT_SIGMA: Final = 0.8
TOKENS_MAX: Final = 16_384
BURST_EVERY: Final = 400
"""One in so many arrivals is a burst."""
BURST_SIZE_MAX: Final = 64
KEYS: Final = 20
"""Some ask far more often than others: a quarter of all requests is of the first."""
LEAVING_SHARE: Final = 0.05
LEAVING_MEAN_MS: Final = 8_000
REFUSED_SHARE: Final = 0.005
UNBOUNDED_SHARE: Final = 0.4
DETACHED_SHARE: Final = 0.3
"""Clients of durable tasks that do not follow them."""
TWIN_SHARE: Final = 0.5
"""Poisonous requests that repeat an earlier one."""


@dataclass(slots=True)
class Request:
    """What one client wants, and what only the world knows of it.

    Attributes:
        answer: Its final text, a byte for each token.
        leaves_after_ms: When the client hangs up; None for one that stays.
        refused: The engine will not take it, wherever it goes.
        crashes_at: Tokens after which it crashes the engine; None for an innocent one.
        followed: The client reads while it runs.
    """

    task: TaskSubmitted
    prompt_tokens: int
    answer: bytes
    submitted_ms: int
    leaves_after_ms: int | None
    refused: bool
    crashes_at: int | None
    followed: bool


def mean_request() -> tuple[float, float]:
    """Mean numbers of tokens read and written, bounds left out."""
    return _mean(PROMPT_TOKENS_MEDIAN, PROMPT_SIGMA), _mean(OUTPUT_TOKENS_MEDIAN, OUTPUT_SIGMA)


class Workload:
    """Draws requests; its own generator, so that faults do not change what is asked."""

    def __init__(
        self, rng: Random, models: list[ModelName], requests_per_ms: float, setting: Setting, *, faults: bool
    ) -> None:
        self._rng = rng
        self._models = models
        # A burst counts for its mean size, so that the asked load is kept.
        mean_size = 1 + (BURST_SIZE_MAX / 2) / BURST_EVERY
        self._arrivals_per_ms = requests_per_ms / mean_size
        self._setting = setting
        self._bands, self._shares = list(setting.priorities), list(setting.priorities.values())
        self._poison: dict[int, int] = {}
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
        fingerprint, crashes_at = self._content(output_tokens)
        task = TaskSubmitted(
            task_id=TaskId(f"task-{self._made}"),
            model=model,
            priority=rng.choices(self._bands, self._shares)[0],
            key_id=KeyId(f"key-{rng.randrange(KEYS) ** 2 // KEYS}"),
            prompt_chars=prompt_tokens * CHARS_PER_TOKEN,
            max_tokens=output_tokens + rng.randrange(64) if bounded else 0,
            durable=rng.random() < self._setting.durable_share,
            model_known=True,
            resumable=not self._faults or rng.random() < self._setting.resumable_share,
            fingerprint=fingerprint,
        )
        return Request(
            task=task,
            prompt_tokens=prompt_tokens,
            answer=whole_answer(task.task_id, output_tokens),
            submitted_ms=now_ms,
            leaves_after_ms=round(rng.expovariate(1 / LEAVING_MEAN_MS)) if leaves else None,
            refused=self._faults and rng.random() < REFUSED_SHARE,
            crashes_at=crashes_at,
            followed=not task.durable or rng.random() >= DETACHED_SHARE,
        )

    def _content(self, output_tokens: int) -> tuple[int, int | None]:
        """The fingerprint, and after how many tokens the engine crashes."""
        rng = self._rng
        if not self._faults or rng.random() >= self._setting.poison_share:
            return self._made, None
        if self._poison and rng.random() < TWIN_SHARE:
            return rng.choice(list(self._poison.items()))
        self._poison[self._made] = rng.choice((0, 0, rng.randrange(output_tokens)))
        return self._made, self._poison[self._made]

    def _tokens(self, median: int, sigma: float) -> int:
        drawn = self._rng.lognormvariate(math.log(median), sigma)
        return max(1, min(TOKENS_MAX, round(drawn)))


def _mean(median: int, sigma: float) -> float:
    # Of a lognormal with this median.
    return median * math.exp(sigma * sigma / 2)
