"""The formulas by which other projects choose a worker, to compare with. They live here and nowhere else.

All of them send a request on at once; where no slot is free it waits in the engine, as it does with them. Ties are
broken by chance. Each is given the best case: counts that are never stale and, where it asks for it, the engines' own
view of their caches without delay.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from math import ceil
from random import Random
from typing import Final

from swarmesh.sim.routing.cache import PrefixCache
from swarmesh.sim.routing.engine import Engine, Job
from swarmesh.sim.routing.request import Request
from swarmesh.sim.routing.router import Order, Start

CACHE_THRESHOLD: Final = 0.5
BALANCE_ABS_THRESHOLD: Final = 32
BALANCE_REL_THRESHOLD: Final = 1.0001
TREE_BLOCKS_MAX: Final = (1 << 24) // 512
"""SGLang bounds its tree to 2^24 characters for each worker."""
OVERLAP_WEIGHT: Final = 1.0
LOAD_BOUND: Final = 1.25
RING_POINTS: Final = 256
"""Places of each worker on KubeAI's ring."""


class Peer(ABC):
    """Sends on at once and counts what it has sent."""

    def __init__(self, engines: Sequence[Engine], rng: Random) -> None:
        self.engines = engines
        self.in_flight = [0] * len(engines)
        self._rng = rng

    def arrived(self, request: Request, now_ms: float) -> list[Order]:  # noqa: ARG002 - others may look at the time
        """Choose and count."""
        worker = self.pick(request)
        self.in_flight[worker] += 1
        return [Start(request.number, worker)]

    def first_token(self, job: Job, worker: int, now_ms: float) -> list[Order]:  # noqa: ARG002 - as a router must
        """Nothing, for most."""
        return []

    def ended(self, job: Job, worker: int, now_ms: float) -> list[Order]:  # noqa: ARG002 - as a router must
        """Count down."""
        self.in_flight[worker] -= 1
        return []

    def passed(self, now_ms: float) -> list[Order]:  # noqa: ARG002 - as a router must
        """Nothing waits here."""
        return []

    @abstractmethod
    def pick(self, request: Request) -> int:
        """The worker for a request."""

    def _least(self, cost: Sequence[float]) -> int:
        least = min(cost)
        return self._rng.choice([worker for worker, each in enumerate(cost) if each == least])


class RoundRobin(Peer):
    """Each worker in turn: ``i = (i + 1) mod n``, as in nginx and in most routers."""

    def __init__(self, engines: Sequence[Engine], rng: Random) -> None:
        super().__init__(engines, rng)
        self._turn = count()

    def pick(self, request: Request) -> int:  # noqa: ARG002 - it does not look
        """The next."""
        return next(self._turn) % len(self.engines)


class LeastInFlight(Peer):
    """The fewest requests sent and not ended: ``min in_flight(w)``, as KubeAI's LeastLoad and Envoy's least request."""

    def pick(self, request: Request) -> int:  # noqa: ARG002 - it does not look
        """The least busy."""
        return self._least(self.in_flight)


class PowerOfTwo(Peer):
    """Of two workers drawn by chance the one with fewer requests in flight, as sglang-router's and vllm-router's."""

    def pick(self, request: Request) -> int:  # noqa: ARG002 - it does not look
        """The less busy of two."""
        workers = range(len(self.engines))
        one, other = self._rng.sample(workers, 2) if len(workers) > 1 else (0, 0)
        return one if self.in_flight[one] <= self.in_flight[other] else other


class CacheAware(Peer):
    """sglang-router's ``cache_aware``: the longest match in a tree of what each worker was sent, unless unbalanced.

    If ``max - min > 32`` and ``max > 1.0001 * min`` of requests in flight, the fewest in flight. Else, if more than
    0.5 of the prompt matches what a worker was sent, the worker with the longest match. Else the fewest in flight, as
    in its later versions, whose defaults are 0.3, 64 and 1.5. The tree counts characters there, and blocks here.
    """

    def __init__(self, engines: Sequence[Engine], rng: Random) -> None:
        super().__init__(engines, rng)
        self._sent = [PrefixCache(TREE_BLOCKS_MAX) for _ in engines]

    def pick(self, request: Request) -> int:
        """By match, or by load."""
        worker = self._choose(request)
        self._sent[worker].insert(request.blocks)
        return worker

    def _choose(self, request: Request) -> int:
        most, fewest = max(self.in_flight), min(self.in_flight)
        if most - fewest > BALANCE_ABS_THRESHOLD and most > BALANCE_REL_THRESHOLD * fewest:
            return self._least(self.in_flight)
        matches = [tree.match(request.blocks) for tree in self._sent]
        if max(matches) > CACHE_THRESHOLD * max(1, len(request.blocks)):
            return self._least([-match for match in matches])
        return self._least(self.in_flight)


class LinearCost(Peer):
    """Dynamo's KV router at temperature 0: ``min overlap_weight * prefill_blocks(w) + decode_blocks(w)``.

    ``prefill_blocks`` are those a worker has been sent and not read, with what this prompt would add to them: its
    blocks less those the worker holds (by KV events, so here: what its cache holds now). ``decode_blocks`` are the
    different prompt blocks of all its requests, this one's among them. ``overlap_weight`` is 1.
    """

    def __init__(self, engines: Sequence[Engine], rng: Random) -> None:
        super().__init__(engines, rng)
        self.unread: list[Counter[int]] = [Counter() for _ in engines]
        self.active: list[Counter[int]] = [Counter() for _ in engines]

    def pick(self, request: Request) -> int:
        """The least cost."""
        blocks = request.blocks
        new = [len(blocks) - engine.cache.match(blocks) for engine in self.engines]
        worker = self._least([self._cost(each, blocks, new[each]) for each in range(len(new))])
        self.unread[worker][request.number] = new[worker]
        self.active[worker].update(blocks)
        return worker

    def first_token(self, job: Job, worker: int, now_ms: float) -> list[Order]:
        """It is read."""
        del self.unread[worker][job.number]
        return super().first_token(job, worker, now_ms)

    def ended(self, job: Job, worker: int, now_ms: float) -> list[Order]:
        """It holds no blocks any more."""
        active = self.active[worker]
        for block in job.blocks:
            active[block] -= 1
            if not active[block]:
                del active[block]
        return super().ended(job, worker, now_ms)

    def _cost(self, worker: int, blocks: tuple[int, ...], new: int) -> float:
        active = self.active[worker]
        decode_blocks = len(active) + sum(1 for block in blocks if block not in active)
        return OVERLAP_WEIGHT * (self.unread[worker].total() + new) + decode_blocks


class BoundedHashing(Peer):
    """KubeAI's PrefixHash: consistent hashing with bounded load (Mirrokni, Thorup, Zadimoghaddam 2018), c = 1.25.

    The prompt's first block names a point on a ring with 256 places for each worker; from there on, the first worker
    with ``in_flight(w) + 1 <= ceil(c * (in_flight + 1) / n)``. A prompt shorter than a block has a point of its own.
    """

    def __init__(self, engines: Sequence[Engine], rng: Random) -> None:
        super().__init__(engines, rng)
        places = (
            (_point(f"{worker}/{place}"), worker) for worker in range(len(engines)) for place in range(RING_POINTS)
        )
        self._ring = sorted(places)
        self._points = [point for point, _ in self._ring]

    def pick(self, request: Request) -> int:
        """The first on the ring with room."""
        key = f"block {request.blocks[0]}" if request.blocks else f"request {request.number}"
        bound = ceil(LOAD_BOUND * (sum(self.in_flight) + 1) / len(self.engines))
        start = bisect_right(self._points, _point(key))
        places = (self._ring[(start + step) % len(self._ring)][1] for step in range(len(self._ring)))
        return next(worker for worker in places if self.in_flight[worker] + 1 <= bound)


def _point(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


PEERS: Final[Mapping[str, Callable[[Sequence[Engine], Random], Peer]]] = {
    "peer:least-in-flight": LeastInFlight,
    "peer:power-of-two": PowerOfTwo,
    "peer:sglang-cache-aware": CacheAware,
    "peer:dynamo-linear-cost": LinearCost,
    "peer:bounded-hashing": BoundedHashing,
    "peer:round-robin": RoundRobin,
}
