"""Whole runs: the same for a seed, nothing lost, and what clients and engines count agrees."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from swarmesh.core.ids import Priority
from swarmesh.sim.routing import run
from swarmesh.sim.routing.engine import Engine, EngineModel, Job
from swarmesh.sim.routing.outcome import jain, percentile
from swarmesh.sim.routing.request import Request
from swarmesh.sim.routing.router import Order, Refuse, Start, Stop
from swarmesh.sim.routing.run import ROUTERS, UNSERVED, Run, simulate
from swarmesh.sim.routing.workloads import WORKLOADS, generate

UNEQUAL = (2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25)


def load(name: str, *, seed: int = 1, requests: int = 300, load_ratio: float = 0.7) -> list[Request]:
    return generate(name, seed=seed, speeds=UNEQUAL, load_ratio=load_ratio, requests=requests)


class Scripted:
    """A router that does what it is told at the ticks, and gives everything to the first worker."""

    def __init__(self, at_ticks: Sequence[list[Order]] = ()) -> None:
        self.at_ticks = list(at_ticks)
        self.order: list[int] = []

    def arrived(self, request: Request, now_ms: float) -> list[Order]:
        self.order.append(request.number)
        return [Start(request.number, 0)]

    def first_token(self, job: Job, worker: int, now_ms: float) -> list[Order]:
        return []

    def ended(self, job: Job, worker: int, now_ms: float) -> list[Order]:
        return []

    def passed(self, now_ms: float) -> list[Order]:
        return self.at_ticks.pop(0) if self.at_ticks else []


@pytest.mark.parametrize("policy", ROUTERS)
def test_a_run_can_be_had_again(policy: str) -> None:
    requests = load("conversation")
    assert simulate(requests, policy, UNEQUAL, seed=7) == simulate(requests, policy, UNEQUAL, seed=7)


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("policy", ROUTERS)
def test_every_request_is_answered_and_counted_once(policy: str, workload: str) -> None:
    requests = load(workload, requests=200)
    outcome = simulate(requests, policy, UNEQUAL, seed=1)
    assert outcome.failed == {}
    assert sum(worker.requests for worker in outcome.workers) == len(requests)
    assert outcome.waits.requests == len(requests)
    assert 0 < outcome.waits.ttft_ms_p50 <= outcome.waits.ttft_ms_p99
    assert outcome.waits.ttft_ms_mean < outcome.end_ms_mean
    assert 0 <= outcome.cached_share < 1
    assert 1 / len(UNEQUAL) <= outcome.jain_busy <= 1
    assert all(0 <= worker.busy_share <= 1 for worker in outcome.workers)


def test_more_load_makes_clients_wait_longer() -> None:
    calm, busy = (simulate(load("chat-poisson", load_ratio=ratio), "swarm", UNEQUAL, seed=1) for ratio in (0.3, 1.5))
    assert calm.waits.ttft_ms_mean < busy.waits.ttft_ms_mean
    assert calm.waits.within_2s_share > busy.waits.within_2s_share


def test_interactive_requests_do_not_wait_behind_batches() -> None:
    outcome = simulate(load("mixed-priority", load_ratio=1.5, requests=800), "swarm", UNEQUAL, seed=1)
    assert outcome.stops > 0, "batches gave way"
    assert outcome.by_priority["high"].ttft_ms_mean < outcome.by_priority["low"].ttft_ms_mean / 4
    assert outcome.failed == {}


def test_what_is_stopped_goes_on_from_where_it_stood() -> None:
    engines = [Engine(EngineModel()), Engine(EngineModel())]
    router = Scripted([[Stop(0, 0), Start(0, 1)]])
    played = Run([Request(0, 0.0, 400, 200)], engines, router)
    played.go()
    (answer,) = played.answers
    # 100 ms of reading, then 20 ms for each token: 45 steps until the tick, and the first token before them.
    assert (answer.stops, answer.written_tokens, answer.worker) == (1, 46, 1)
    assert answer.first_token_ms == pytest.approx(100)
    assert engines[1].written_tokens == 200 - 46
    assert engines[1].read_tokens == 400 + 46
    assert answer.ended_ms == pytest.approx(1_000 + 446 / 4 + 153 * 20)


def test_a_refused_request_is_a_failure_and_not_prompt() -> None:
    requests = [Request(number, 10.0 * number, 100, 10) for number in range(4)]

    class Refusing(Scripted):
        def arrived(self, request: Request, now_ms: float) -> list[Order]:
            return [Refuse(request.number, "queue_full")] if request.number == 2 else super().arrived(request, now_ms)

    played = Run(requests, [Engine(EngineModel())], Refusing())
    played.go()
    assert played.failed == {"queue_full": 1}
    assert [answer.ended_ms >= 0 for answer in played.answers] == [True, True, False, True]


def test_nobody_quotes_an_answer_that_is_not_there_yet() -> None:
    requests = [Request(0, 0.0, 400, 100), Request(1, 50.0, 100, 10, follows=0), Request(2, 60.0, 100, 10)]
    router = Scripted()
    played = Run(requests, [Engine(EngineModel())], router)
    played.go()
    assert router.order == [0, 2, 1]
    assert played.answers[1].arrived_ms == pytest.approx(played.answers[0].ended_ms + run.CLIENT_MS)


def test_a_router_that_forgets_a_request_is_found_out() -> None:
    class Forgetful(Scripted):
        def arrived(self, request: Request, now_ms: float) -> list[Order]:
            return []

    played = Run([Request(0, 0.0, 100, 10)], [Engine(EngineModel())], Forgetful())
    played.go()
    assert played.failed == {UNSERVED: 1}


def test_bands_are_counted_apart_where_there_are_several() -> None:
    assert set(simulate(load("mixed-priority"), "swarm", UNEQUAL, seed=1).by_priority) == {
        str(Priority.HIGH),
        str(Priority.LOW),
    }
    assert simulate(load("chat-poisson"), "swarm", UNEQUAL, seed=1).by_priority == {}


def test_jain_and_percentiles() -> None:
    assert jain([3, 3, 3]) == 1
    assert jain([5, 0, 0, 0]) == 0.25
    assert jain([0, 0]) == 1
    assert percentile([1, 2, 3, 4], 0.5) == 2
    assert percentile([1, 2, 3, 4], 0.99) == 4
    assert percentile([], 0.99) == 0
