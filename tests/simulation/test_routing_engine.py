"""The engine model: nothing is lost, nothing is done twice, and what is known is not read again."""

from __future__ import annotations

import math
from random import Random

import pytest

from swarmesh.sim.routing.cache import PrefixCache
from swarmesh.sim.routing.engine import Engine, EngineModel, Job
from swarmesh.sim.routing.request import BLOCK_TOKENS, Text

MODEL = EngineModel(prefill_tokens_per_s=1_000, step_ms=10, stream_ms=5, chunk_tokens=100, slots=2)


def chance(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - it draws cases, no secrets


def job(number: int, prompt: int, output: int, blocks: tuple[int, ...] = (), at_ms: float = 0) -> Job:
    return Job(number, prompt, output, blocks, blocks, at_ms)


def drain(engine: Engine) -> dict[tuple[int, bool], float]:
    """Run to the end; when each job had its first token (False) and its last (True)."""
    times: dict[tuple[int, bool], float] = {}
    while (now_ms := engine.next_ms()) < math.inf:
        for done, ended in engine.advance(now_ms):
            assert (done.number, ended) not in times
            times[done.number, ended] = now_ms
    return times


def test_a_lone_job_takes_its_reading_and_its_steps() -> None:
    engine = Engine(MODEL)
    engine.submit(job(0, 500, 11), 0)
    assert drain(engine) == pytest.approx({(0, False): 500, (0, True): 500 + 10 * 15})
    assert engine.busy_ms == pytest.approx(650)


def test_a_worker_twice_as_fast_takes_half_the_time() -> None:
    times = []
    for speed in (1.0, 2.0):
        engine = Engine(MODEL, speed)
        engine.submit(job(0, 500, 11), 0)
        engine.submit(job(1, 300, 7), 0)
        times.append(drain(engine))
    assert {fact: at_ms / 2 for fact, at_ms in times[0].items()} == pytest.approx(times[1])


def test_prompts_are_read_in_turn_and_slow_those_who_write() -> None:
    engine = Engine(MODEL)
    engine.submit(job(0, 100, 3), 0)
    engine.submit(job(1, 100, 1), 0)
    times = drain(engine)
    # The first is read after 100 ms; the step that reads the second's chunk takes 100 + 10 + 5 and writes one token.
    assert times == pytest.approx({(0, False): 100, (1, False): 215, (1, True): 215, (0, True): 230})


def test_streams_share_a_step() -> None:
    engine = Engine(MODEL)
    for number in range(2):
        engine.submit(job(number, 100, 101), 0)
    times = drain(engine)
    alone_ms = 100 * 15
    assert alone_ms < times[0, True] - times[0, False] < 2 * alone_ms
    assert times[1, True] > times[0, True]


def test_who_finds_no_slot_waits_for_one() -> None:
    engine = Engine(MODEL)
    for number in range(3):
        engine.submit(job(number, 100, 2), 0)
    assert (engine.running, engine.waiting) == (2, 1)
    times = drain(engine)
    assert times[2, False] > min(times[0, True], times[1, True])
    assert (engine.running, engine.waiting) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_every_token_is_read_or_known_once_and_written_once(seed: int) -> None:
    rng = chance(seed)
    engine = Engine(EngineModel(cache_blocks=40), speed=0.5)
    roots = [Text(rng).blocks(10 * BLOCK_TOKENS) for _ in range(3)]
    now_ms, jobs = 0.0, []
    for number in range(200):
        now_ms += rng.expovariate(1 / 400)
        while engine.next_ms() <= now_ms:
            engine.advance(engine.next_ms())
        prompt = rng.randrange(1, 2_000)
        jobs.append(job(number, prompt, rng.randrange(1, 50), Text(rng, rng.choice(roots)).blocks(prompt), now_ms))
        engine.submit(jobs[-1], now_ms)
    drain(engine)
    assert engine.read_tokens + engine.cached_tokens == sum(each.prompt_tokens for each in jobs)
    assert engine.written_tokens == sum(each.output_tokens for each in jobs)
    assert engine.cached_tokens > 0
    assert all(each.first_token_ms > each.sent_ms for each in jobs)
    assert engine.busy_ms >= engine.read_tokens / engine.model.prefill_tokens_per_s * 1_000 / 0.5


def test_a_known_prefix_is_not_read_and_saves_its_time() -> None:
    rng = chance(1)
    root = Text(rng).blocks(8 * BLOCK_TOKENS)
    prompts = [Text(rng, root).blocks(10 * BLOCK_TOKENS) for _ in range(2)]
    engine = Engine(MODEL)
    engine.submit(job(0, 1_280, 1, prompts[0]), 0)
    cold_ms = drain(engine)[0, True]
    engine.submit(job(1, 1_280, 1, prompts[1], cold_ms), cold_ms)
    warm_ms = drain(engine)[1, True] - cold_ms
    assert engine.cached_tokens == 8 * BLOCK_TOKENS
    assert cold_ms - warm_ms == pytest.approx(8 * BLOCK_TOKENS / MODEL.prefill_tokens_per_s * 1_000)


def test_of_a_prompt_that_is_known_whole_one_token_is_read() -> None:
    blocks = Text(chance(1)).blocks(4 * BLOCK_TOKENS)
    engine = Engine(MODEL)
    for number in range(2):
        engine.submit(job(number, 4 * BLOCK_TOKENS, 1, blocks, number * 10_000), number * 10_000)
        drain(engine)
    assert engine.cached_tokens == 4 * BLOCK_TOKENS - 1


def test_a_stopped_job_tells_how_far_it_came() -> None:
    engine = Engine(MODEL)
    engine.submit(job(0, 100, 50), 0)
    engine.submit(job(1, 100, 50), 0)
    engine.advance(100)
    assert engine.stop(1, 110) == 0, "it was being read"
    written = engine.stop(0, 110 + 15 * 10)
    assert 10 <= written <= 12, "ten steps of 15 ms, the first token, and a part of a step while the other was read"
    assert engine.next_ms() == math.inf
    assert engine.running == 0


def test_the_cache_forgets_what_was_used_longest_ago_ends_first() -> None:
    rng = chance(1)
    one, other = Text(rng).blocks(6 * BLOCK_TOKENS), Text(rng).blocks(6 * BLOCK_TOKENS)
    cache = PrefixCache(8)
    cache.insert(one)
    cache.insert(other)
    assert (len(cache), cache.match(one), cache.match(other)) == (8, 2, 6)
    cache.insert(one)
    assert (cache.match(one), cache.match(other)) == (6, 2)


def test_the_cache_keeps_the_beginning_of_what_does_not_fit() -> None:
    blocks = Text(chance(1)).blocks(20 * BLOCK_TOKENS)
    cache = PrefixCache(8)
    cache.insert(blocks)
    assert cache.match(blocks) == 8
