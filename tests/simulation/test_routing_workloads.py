"""The six workloads: sizes and gaps near what they are said to be, the load asked for, the same for a seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

import pytest

from swarmesh.core.ids import Priority
from swarmesh.sim.routing.engine import EngineModel
from swarmesh.sim.routing.request import BLOCK_TOKENS, CONTEXT_TOKENS, Request
from swarmesh.sim.routing.workloads import AGENT_KINDS, WORKLOADS, generate

SPEEDS = (1.0,) * 8
BOUNDLESS = 1 << 50
MANY = 20_000


def drawn(name: str, *, seed: int = 1, requests: int = 0, context_tokens: int = CONTEXT_TOKENS) -> list[Request]:
    return generate(name, seed=seed, speeds=SPEEDS, load_ratio=0.7, requests=requests, context_tokens=context_tokens)


def log_moments(sizes: Sequence[int]) -> tuple[float, float]:
    logs = [math.log(size) for size in sizes]
    return statistics.mean(logs), statistics.pstdev(logs)


def gap_cv(requests: Sequence[Request]) -> float:
    gaps = [after.at_ms - before.at_ms for before, after in pairwise(requests)]
    return statistics.pstdev(gaps) / statistics.mean(gaps)


@pytest.mark.parametrize(
    ("name", "prompt", "output"),
    [
        ("conversation", (8.74, 1.20), (5.34, 1.36)),
        ("agent", (7.98, 2.70), (3.92, 1.77)),
        ("code-bursts", (7.0, 1.36), (2.79, 0.85)),
        ("chat-poisson", (6.63, 0.99), (5.02, 0.86)),
    ],
)
def test_sizes_are_lognormal_as_said(name: str, prompt: tuple[float, float], output: tuple[float, float]) -> None:
    requests = drawn(name, requests=MANY, context_tokens=BOUNDLESS)
    assert log_moments([request.prompt_tokens for request in requests]) == pytest.approx(prompt, abs=0.12)
    assert log_moments([request.output_tokens for request in requests]) == pytest.approx(output, abs=0.06)


@pytest.mark.parametrize(("name", "cv", "off"), [("conversation", 3, 0.3), ("chat-poisson", 1.1, 0.1)])
def test_gaps_vary_as_said(name: str, cv: float, off: float) -> None:
    assert gap_cv(drawn(name, requests=MANY)) == pytest.approx(cv, abs=off)


def test_gaps_of_bursts_vary_as_said_over_many_bursts() -> None:
    found = [gap_cv(drawn("code-bursts", seed=seed, requests=MANY)) for seed in range(4)]
    assert statistics.mean(found) == pytest.approx(13, rel=0.15)


def test_groups_share_their_system_prompt_and_nothing_else() -> None:
    requests = drawn("shared-prefix")
    assert len(requests) == 64 * 16
    assert {(request.prompt_tokens, request.output_tokens) for request in requests} == {(2_048 + 128, 256)}
    groups: dict[tuple[int, ...], list[Request]] = {}
    for request in requests:
        groups.setdefault(request.blocks[: 2_048 // BLOCK_TOKENS], []).append(request)
    assert len(groups) == 64
    assert {len(group) for group in groups.values()} == {16}
    assert len({request.blocks for request in requests}) == len(requests)


def test_a_turn_continues_its_history_with_the_answer() -> None:
    requests = drawn("conversation", requests=4_000)
    turns = [request for request in requests if request.follows is not None]
    assert len({request.blocks[0] for request in requests}) == 1, "one root block for all"
    for turn in turns:
        before = requests[turn.follows or 0]
        assert turn.blocks[: len(before.answered)] == before.answered
        assert turn.prompt_tokens > before.prompt_tokens + before.output_tokens
        assert turn.at_ms >= before.at_ms
    starts = len(requests) - len(turns)
    assert 1.8 < len(requests) / starts < 2.6, "2 to 4 turns, less those that would not fit"


def test_agents_see_most_of_each_prompt_again() -> None:
    requests = drawn("agent", requests=4_000)
    for step in requests:
        if step.follows is not None:
            share = requests[step.follows].prompt_tokens / step.prompt_tokens
            assert 0.64 - 0.01 < share < 0.86 + 0.01 or step.prompt_tokens < 20, "whole tokens of a short prompt"
    openings = {request.blocks[0] for request in requests if request.follows is None and len(request.blocks) > 3}
    assert len(openings) == AGENT_KINDS


@pytest.mark.parametrize("name", ["code-bursts", "chat-poisson", "mixed-priority"])
def test_plain_prompts_have_nothing_in_common(name: str) -> None:
    blocks = [block for request in drawn(name) for block in request.blocks]
    assert len(set(blocks)) == len(blocks)


def test_one_request_in_ten_is_interactive() -> None:
    bands = [request.priority for request in drawn("mixed-priority", requests=5_000)]
    assert bands.count(Priority.HIGH) / len(bands) == pytest.approx(0.1, abs=0.02)
    assert set(bands) == {Priority.HIGH, Priority.LOW}


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_load_is_what_was_asked_for(name: str) -> None:
    requests, model = drawn(name), EngineModel()
    work_ms = sum(model.work_ms(request.prompt_tokens, request.output_tokens) for request in requests)
    assert work_ms / (requests[-1].at_ms * sum(SPEEDS)) == pytest.approx(0.7, rel=0.15)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_seed_is_a_workload(name: str) -> None:
    assert drawn(name, requests=200) == drawn(name, requests=200)
    assert drawn(name, requests=200) != drawn(name, seed=2, requests=200)


@pytest.mark.parametrize("name", WORKLOADS)
def test_everything_fits_into_the_context_and_stands_in_order(name: str) -> None:
    requests = drawn(name, requests=3_000)
    assert [request.number for request in requests] == list(range(3_000))
    assert all(before.at_ms <= after.at_ms for before, after in pairwise(requests))
    for request in requests:
        assert request.prompt_tokens >= 1
        assert request.output_tokens >= 1
        assert request.prompt_tokens + request.output_tokens <= CONTEXT_TOKENS
        assert len(request.blocks) == request.prompt_tokens // BLOCK_TOKENS
        assert request.answered[: len(request.blocks)] == request.blocks
