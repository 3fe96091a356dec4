"""Each formula of another project on a case small enough to work out by hand."""

from __future__ import annotations

from random import Random

import pytest

from swarmesh.sim.routing.engine import Engine, EngineModel, Job
from swarmesh.sim.routing.peers import (
    BALANCE_ABS_THRESHOLD,
    PEERS,
    BoundedHashing,
    CacheAware,
    LeastInFlight,
    LinearCost,
    Peer,
    PowerOfTwo,
    RoundRobin,
)
from swarmesh.sim.routing.request import BLOCK_TOKENS, Request
from swarmesh.sim.routing.router import Start


def chance(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - it draws cases, no secrets


def engines(count: int) -> list[Engine]:
    return [Engine(EngineModel()) for _ in range(count)]


def request(number: int, *blocks: int) -> Request:
    return Request(number, 0.0, max(1, len(blocks) * BLOCK_TOKENS), 10, tuple(blocks), tuple(blocks))


def job(of: Request) -> Job:
    return Job(of.number, of.prompt_tokens, of.output_tokens, of.blocks, of.answered, 0.0)


def sent_to(router: Peer, of: Request) -> int:
    (order,) = router.arrived(of, 0.0)
    assert isinstance(order, Start)
    assert order.number == of.number
    return order.worker


def test_round_robin_takes_turns() -> None:
    router = RoundRobin(engines(3), chance(1))
    assert [sent_to(router, request(number)) for number in range(5)] == [0, 1, 2, 0, 1]


def test_least_in_flight_counts_what_has_not_ended() -> None:
    router = LeastInFlight(engines(3), chance(1))
    first = [request(number) for number in range(3)]
    places = [sent_to(router, each) for each in first]
    assert sorted(places) == [0, 1, 2]
    router.ended(job(first[1]), places[1], 0.0)
    assert sent_to(router, request(3)) == places[1]


def test_power_of_two_never_takes_the_worse_of_its_two() -> None:
    router = PowerOfTwo(engines(3), chance(1))
    router.in_flight = [9, 5, 0]
    chosen = [router.pick(request(number)) for number in range(200)]
    assert chosen.count(0) == 0, "whoever it is drawn with is less busy"
    assert chosen.count(1) == pytest.approx(200 / 3, abs=25), "only with the busiest"
    assert PowerOfTwo(engines(1), chance(1)).pick(request(0)) == 0


def test_cache_aware_follows_a_match_of_more_than_half() -> None:
    router = CacheAware(engines(3), chance(1))
    home = sent_to(router, request(0, 1, 2, 3, 4))
    router.in_flight[home] = BALANCE_ABS_THRESHOLD
    assert sent_to(router, request(1, 1, 2, 3, 9)) == home
    router.in_flight[home] = BALANCE_ABS_THRESHOLD
    assert sent_to(router, request(2, 1, 2, 8, 9)) != home, "half is not more than half"


def test_cache_aware_leaves_the_match_when_the_load_is_unbalanced() -> None:
    router = CacheAware(engines(3), chance(1))
    home = sent_to(router, request(0, 1, 2, 3, 4))
    router.in_flight[home] = BALANCE_ABS_THRESHOLD + 1
    assert sent_to(router, request(1, 1, 2, 3, 4)) != home


def test_linear_cost_is_prefill_and_decode_blocks() -> None:
    fleet = engines(2)
    fleet[0].cache.insert((1, 2, 3))
    router = LinearCost(fleet, chance(1))
    # Worker 0: 1 block to read + 4 active; worker 1: 4 to read + 4 active.
    one = request(0, 1, 2, 3, 4)
    assert sent_to(router, one) == 0
    # Worker 0: 1 unread + 2 to read (4 is not read yet) + 5 active (4 of them shared); worker 1: 5 to read + 5 active.
    two = request(1, 1, 2, 3, 4, 5)
    assert sent_to(router, two) == 0
    assert router.unread[0] == {0: 1, 1: 2}
    # Worker 0: 3 unread + 2 to read + 7 active = 12; worker 1: 2 + 2 = 4.
    assert sent_to(router, request(2, 7, 8)) == 1
    router.first_token(job(one), 0, 0.0)
    router.ended(job(one), 0, 0.0)
    assert router.unread[0] == {1: 2}
    assert set(router.active[0]) == {1, 2, 3, 4, 5}, "the other one still holds them"


def test_bounded_hashing_keeps_a_prefix_until_its_worker_is_full() -> None:
    router = BoundedHashing(engines(4), chance(1))
    places = [sent_to(router, request(number, 77)) for number in range(8)]
    assert places[3] == places[0], "with 3 in flight the bound is ceil(1.25 * 4 / 4) = 2"
    assert places[1] != places[0], "with 1 it is ceil(1.25 * 2 / 4) = 1"
    assert max(router.in_flight) <= 3, "ceil(1.25 * 8 / 4)"
    idle = BoundedHashing(engines(4), chance(2))
    assert sent_to(idle, request(0, 77)) == places[0], "the ring does not depend on chance"
    assert len({sent_to(BoundedHashing(engines(4), chance(1)), request(each)) for each in range(40)}) == 4


@pytest.mark.parametrize("name", PEERS)
def test_every_formula_counts_down_what_ended(name: str) -> None:
    router = PEERS[name](engines(2), chance(1))
    for number in range(10):
        of = request(number, 1, 2, number + 10)
        worker = sent_to(router, of)
        assert router.first_token(job(of), worker, 0.0) == []
        assert router.ended(job(of), worker, 0.0) == []
        assert router.passed(0.0) == []
    assert sum(router.in_flight) == 0
