"""What became of a run, as its clients and its engines see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import msgspec

from swarmesh.core.ids import Priority
from swarmesh.sim.routing.engine import Engine
from swarmesh.sim.routing.request import Request

PROMPT_MS: Final = 2_000
"""A first token within this time counts as prompt."""


@dataclass(slots=True)
class Answer:
    """What one client sees; times are -1 until they come.

    Attributes:
        read_tokens: Of its prompt, computed; more than its length when it moved.
        written_tokens: Of its answer, by workers it was taken from.
        held: Its time has come, but not the answer that it quotes.
        over: It ended, or was refused.
    """

    arrived_ms: float = -1.0
    first_token_ms: float = -1.0
    ended_ms: float = -1.0
    worker: int = -1
    read_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    stops: int = 0
    held: bool = False
    over: bool = False


class Waits(msgspec.Struct, frozen=True):
    """Times to the first token, in ms, and what share of requests, failed ones included, had it within 2 s."""

    requests: int
    ttft_ms_mean: float
    ttft_ms_p50: float
    ttft_ms_p99: float
    within_2s_share: float


class WorkerShare(msgspec.Struct, frozen=True):
    """What one worker did: requests it ended, how much of the time it was busy, what it knew of prompts."""

    speed: float
    requests: int
    busy_share: float
    cached_share: float
    ttft_ms_mean: float


class Outcome(msgspec.Struct, frozen=True):
    """A run in figures.

    Attributes:
        waits: Of all requests.
        by_priority: The same for each band, where there is more than one.
        failed: Requests without an answer, by the code of their error.
        cached_share: Of all prompt tokens, those that were not computed because an engine knew them.
        jain_busy: Jain's index of the time each engine was busy: 1 when all were for equally long.
        stops: How often a request was taken from a worker.
    """

    policy: str
    seed: int
    requests: int
    waits: Waits
    end_ms_mean: float
    end_ms_p99: float
    failed: dict[str, int]
    cached_share: float
    jain_busy: float
    stops: int
    virtual_s: float
    by_priority: dict[str, Waits]
    workers: list[WorkerShare]


def summary(
    policy: str,
    seed: int,
    requests: Sequence[Request],
    answers: Sequence[Answer],
    failed: Counter[str],
    engines: Sequence[Engine],
    now_ms: float,
) -> Outcome:
    """Count everything."""
    bands = [band for band in Priority if any(request.priority is band for request in requests)]
    ends = sorted(answer.ended_ms - answer.arrived_ms for answer in answers if answer.ended_ms >= 0)
    cached, read = sum(answer.cached_tokens for answer in answers), sum(answer.read_tokens for answer in answers)
    return Outcome(
        policy=policy,
        seed=seed,
        requests=len(requests),
        waits=_waits(answers),
        end_ms_mean=_mean(ends),
        end_ms_p99=percentile(ends, 0.99),
        failed=dict(sorted(failed.items())),
        cached_share=cached / max(1, cached + read),
        jain_busy=jain([engine.busy_ms for engine in engines]),
        stops=sum(answer.stops for answer in answers),
        virtual_s=now_ms / 1_000,
        by_priority={
            str(band): _waits([answers[each.number] for each in requests if each.priority is band])
            for band in bands
            if len(bands) > 1
        },
        workers=[_share(worker, engine, answers, now_ms) for worker, engine in enumerate(engines)],
    )


def jain(values: Sequence[float]) -> float:
    """Jain's fairness index, ``(sum x) ** 2 / (n * sum x ** 2)``: 1 when all are equal, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all do not exceed; 0 of none."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else 0.0


def _waits(answers: Sequence[Answer]) -> Waits:
    waits = sorted(answer.first_token_ms - answer.arrived_ms for answer in answers if answer.first_token_ms >= 0)
    return Waits(
        requests=len(answers),
        ttft_ms_mean=_mean(waits),
        ttft_ms_p50=percentile(waits, 0.5),
        ttft_ms_p99=percentile(waits, 0.99),
        within_2s_share=sum(1 for wait in waits if wait <= PROMPT_MS) / max(1, len(answers)),
    )


def _share(worker: int, engine: Engine, answers: Sequence[Answer], now_ms: float) -> WorkerShare:
    own = [answer for answer in answers if answer.worker == worker and answer.first_token_ms >= 0]
    return WorkerShare(
        speed=engine.speed,
        requests=len(own),
        busy_share=engine.busy_ms / now_ms if now_ms else 0.0,
        cached_share=engine.cached_tokens / max(1, engine.cached_tokens + engine.read_tokens),
        ttft_ms_mean=_mean([answer.first_token_ms - answer.arrived_ms for answer in own]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
