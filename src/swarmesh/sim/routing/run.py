"""One run: requests come, a router gives them to engines, and clients count the time until they see something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Final, assert_never

from swarmesh.core.policies import PolicyName
from swarmesh.sim.routing.engine import Engine, EngineModel, Job
from swarmesh.sim.routing.outcome import Answer, Outcome, summary
from swarmesh.sim.routing.peers import PEERS
from swarmesh.sim.routing.request import Request
from swarmesh.sim.routing.router import Order, Refuse, Router, Start, Stop
from swarmesh.sim.routing.swarm_router import SwarmRouter

Action = Callable[[], None]
MakeRouter = Callable[[Sequence[Engine], int], Router]

TICK_MS: Final = 1_000
UNSERVED: Final = "unserved"
"""Code of requests that still wait when the run is given up."""
LINGER_MS: Final = 86_400_000
"""How long after the last arrival that is."""
CLIENT_MS: Final = 1.0
"""Between the end of an answer and a request that quotes it and is late already."""


def _peer(name: str) -> MakeRouter:
    return lambda engines, seed: PEERS[name](engines, Random(f"{name}/{seed}"))


def _swarm(policy: PolicyName) -> MakeRouter:
    return lambda engines, seed: SwarmRouter(engines, policy, seed)


ROUTERS: Final[Mapping[str, MakeRouter]] = {
    **{str(policy): _swarm(policy) for policy in PolicyName},
    **{name: _peer(name) for name in PEERS},
}
"""By name: the policies of the swarm, then the formulas of others."""


class Run:
    """The events of one run, in order of their time; those of one moment in the order in which they were made."""

    def __init__(self, requests: Sequence[Request], engines: Sequence[Engine], router: Router) -> None:
        self.engines = engines
        self.answers = [Answer() for _ in requests]
        self.failed: Counter[str] = Counter()
        self.now_ms = 0.0
        self._requests = requests
        self._router = router
        self._jobs: dict[int, Job] = {}
        self._planned_ms = [inf] * len(engines)
        self._followers: dict[int, list[int]] = {}
        self._open = len(requests)
        self._heap: list[tuple[float, int, Action]] = []
        self._serial = 0

    def go(self) -> None:
        """Run until every request has its end, or `LINGER_MS` after the last arrival."""
        until_ms = LINGER_MS + max((request.at_ms for request in self._requests), default=0.0)
        for request in self._requests:
            if request.follows is not None:
                self._followers.setdefault(request.follows, []).append(request.number)
            self._at(request.at_ms, partial(self._arrive, request))
        self._at(TICK_MS, self._tick)
        while self._open and self._heap:
            self.now_ms, _, action = heappop(self._heap)
            if self.now_ms > until_ms:
                break
            action()
        self.failed.update({UNSERVED: self._open} if self._open else {})

    def _at(self, at_ms: float, action: Action) -> None:
        self._serial += 1
        heappush(self._heap, (at_ms, self._serial, action))

    def _arrive(self, request: Request) -> None:
        answer = self.answers[request.number]
        if request.follows is not None and not self.answers[request.follows].over:
            answer.held = True  # Nobody can quote an answer before it is there.
            return
        answer.arrived_ms = self.now_ms
        self._obey(self._router.arrived(request, self.now_ms))

    def _tick(self) -> None:
        self._obey(self._router.passed(self.now_ms))
        self._at(self.now_ms + TICK_MS, self._tick)

    def _look_at(self, worker: int, planned_ms: float) -> None:
        if self._planned_ms[worker] != planned_ms:
            return  # Something was submitted or stopped since.
        orders: list[Order] = []
        for job, ended in self.engines[worker].advance(self.now_ms):
            orders += self._ended(job, worker) if ended else self._first_token(job, worker)
        self._plan(worker)
        self._obey(orders)

    def _plan(self, worker: int) -> None:
        planned_ms = self._planned_ms[worker] = self.engines[worker].next_ms()
        if planned_ms < inf:
            self._at(planned_ms, partial(self._look_at, worker, planned_ms))

    def _first_token(self, job: Job, worker: int) -> list[Order]:
        answer = self.answers[job.number]
        answer.cached_tokens += job.cached_tokens
        answer.read_tokens += job.prompt_tokens - job.cached_tokens
        if answer.first_token_ms < 0:
            answer.first_token_ms = self.now_ms
        return self._router.first_token(job, worker, self.now_ms)

    def _ended(self, job: Job, worker: int) -> list[Order]:
        del self._jobs[job.number]
        self.answers[job.number].ended_ms = self.now_ms
        self._over(job.number)
        return self._router.ended(job, worker, self.now_ms)

    def _over(self, number: int) -> None:
        self._open -= 1
        self.answers[number].over = True
        for follower in self._followers.get(number, ()):
            if self.answers[follower].held:
                self._at(self.now_ms + CLIENT_MS, partial(self._arrive, self._requests[follower]))

    def _obey(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case Start(number, worker):
                    self._start(number, worker)
                case Stop(number, worker):
                    self.answers[number].written_tokens += self.engines[worker].stop(number, self.now_ms)
                    self.answers[number].stops += 1
                    del self._jobs[number]
                    self._plan(worker)
                case Refuse(number, code):
                    self.failed[code] += 1
                    self._over(number)
                case _:
                    assert_never(order)

    def _start(self, number: int, worker: int) -> None:
        request, answer = self._requests[number], self.answers[number]
        answer.worker = worker
        job = self._jobs[number] = Job(
            number=number,
            prompt_tokens=request.prompt_tokens + answer.written_tokens,
            output_tokens=request.output_tokens - answer.written_tokens,
            blocks=request.blocks,
            answered=request.answered,
            sent_ms=self.now_ms,
        )
        self.engines[worker].submit(job, self.now_ms)
        self._plan(worker)


def simulate(
    requests: Sequence[Request], policy: str, speeds: Sequence[float], *, seed: int, model: EngineModel | None = None
) -> Outcome:
    """Run requests on engines of these speeds under a router of `ROUTERS`; the same arguments, the same outcome."""
    engines = [Engine(model or EngineModel(), speed) for speed in speeds]
    run = Run(requests, engines, ROUTERS[policy](engines, seed))
    run.go()
    return summary(policy, seed, requests, run.answers, run.failed, engines, run.now_ms)
