"""The default policy at work: bursts, prefixes, unequal machines, and workers that come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from swarmesh.core.commands import StartStream
from swarmesh.core.decision import MEASURED
from swarmesh.core.events import (
    StreamBroke,
    StreamEnded,
    TaskSubmitted,
    WorkerAlarmed,
    WorkerRegistered,
    WorkerWaggled,
)
from swarmesh.core.ids import Blame, HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.swarm import Swarm

QWEN = ModelName("qwen")
SYSTEM = tuple(range(1, 17))
"""A prefix of 2,048 tokens."""


class World:
    """Workers of unequal speeds that read 40 times as fast as they write, and remember what they have read."""

    def __init__(self, *speeds: float, slots: int = 8) -> None:
        self.swarm = Swarm()
        self.now_ms = 1_000_000
        self.slots = slots
        self.speeds = {WorkerId(f"w{number}"): speed for number, speed in enumerate(speeds)}
        self.running: list[tuple[int, StreamEnded]] = []
        self.read: set[tuple[WorkerId, tuple[int, ...]]] = set()
        self.starts: list[StartStream] = []
        self.made = 0
        for worker_id in self.speeds:
            self.register(worker_id)
        for worker_id in self.speeds:
            self.waggle(worker_id)

    def register(self, worker_id: WorkerId) -> None:
        known = WorkerRegistered(worker_id, QWEN, "cpu", HostName("oak"), "unix:/w", self.slots, ready=True)
        self.swarm.handle(known, self.now_ms)

    def waggle(self, worker_id: WorkerId) -> None:
        self.swarm.handle(WorkerWaggled(worker_id, True, 0.0, 0, 1.0, 7, self.slots), self.now_ms)

    def submit(self, prefix: tuple[int, ...] = (), chars: int = 400) -> StartStream:
        self.made += 1
        task_id = TaskId(f"t{self.made}")
        size = chars + 512 * len(prefix)
        event = TaskSubmitted(
            task_id, QWEN, Priority.MEDIUM, KeyId("k"), size, 0, prefix=prefix, resumable=True, durable=True
        )
        start = next(c for c in self.swarm.handle(event, self.now_ms) if isinstance(c, StartStream))
        self.starts.append(start)
        cached = 128 * len(prefix) if (start.worker_id, prefix) in self.read else 0
        self.read.add((start.worker_id, prefix))
        read_ms, write_ms = (size // 4 - cached) / 2, 2_000
        speed = self.speeds[start.worker_id]
        end = StreamEnded(task_id, start.attempt, 100, size // 4, cached, round(read_ms / speed))
        self.running.append((self.now_ms + round((read_ms + write_ms) / speed), end))
        return start

    def passes(self, ms: int) -> None:
        self.now_ms += ms
        over = sorted((item for item in self.running if item[0] <= self.now_ms), key=lambda item: item[0])
        for item in over:
            self.running.remove(item)
            self.swarm.handle(item[1], item[0])

    def traffic(self, seconds: int, per_s: int = 4, until: Callable[[StartStream], bool] = lambda _: False) -> bool:
        for _ in range(seconds * per_s):
            self.passes(1_000 // per_s)
            if until(self.submit()):
                return True
        return False

    def counts(self) -> Counter[WorkerId]:
        counts = Counter(start.worker_id for start in self.starts)
        print(sorted(counts.values()), "tasks by worker")  # Shown with pytest -s.
        return counts


def test_a_burst_of_64_at_equal_load_spreads_evenly() -> None:
    world = World(*[1.0] * 8, slots=16)
    for _ in range(64):
        world.submit()
    assert set(world.counts().values()) == {8}


def test_a_burst_of_64_spreads_evenly_when_all_speeds_were_learned() -> None:
    world = World(*[1.0] * 8, slots=16)
    world.traffic(120)
    world.passes(60_000)
    world.starts.clear()
    for _ in range(64):
        world.submit()
    assert max(world.counts().values()) - min(world.counts().values()) <= 2


def test_a_prefix_that_everybody_shares_does_not_funnel() -> None:
    world = World(*[1.0] * 8, slots=16)
    for _ in range(64):
        world.submit(SYSTEM)
    assert set(world.counts()) == set(world.speeds)
    assert max(world.counts().values()) <= 12


def test_a_prefix_that_everybody_shares_does_not_funnel_steady_traffic() -> None:
    world = World(*[1.0] * 4)
    for _ in range(200):
        world.passes(250)
        world.submit(SYSTEM)
    assert min(world.counts().values()) >= 25


def test_tasks_with_a_beginning_of_their_own_go_where_it_was_read() -> None:
    world = World(*[1.0] * 4)
    groups = [tuple(1_000 * group + block for block in range(16)) for group in range(1, 9)]
    homes: list[set[WorkerId]] = [set() for _ in groups]
    for number in range(64):
        world.passes(1_500)
        start = world.submit(groups[number % 8])
        homes[number % 8].add(start.worker_id)
        if number >= 8:
            chosen = next(item for item in start.decision.candidates if item.worker_id == start.worker_id)
            assert dict(chosen.parts)["cached_tokens"] > 0
    assert [len(home) for home in homes] == [1] * 8


def test_fast_workers_get_more_and_slow_ones_are_not_forgotten() -> None:
    world = World(2.0, 1.0, 0.25)
    world.traffic(300, per_s=1)
    counts = world.counts()
    assert counts[WorkerId("w0")] > 2 * counts[WorkerId("w2")]
    assert counts[WorkerId("w2")] > 0
    rated = [world.swarm.fleet.get(worker_id) for worker_id in world.speeds]
    speeds = [worker.pace.rated for worker in rated if worker is not None]
    assert speeds[0] > 1.5 * speeds[1] > 3 * speeds[2]


@pytest.mark.parametrize("speed", [1.0, 0.1])
def test_a_worker_that_dies_and_returns_gets_a_task_within_30_s(speed: float) -> None:
    world = World(1.0, 1.0, 1.0, speed)
    lost = WorkerId("w3")
    world.traffic(120, per_s=1)
    world.passes(100_000)
    world.swarm.handle(WorkerAlarmed(lost, "engine_died", "signal 9"), world.now_ms)
    assert not world.traffic(60, per_s=1, until=lambda start: start.worker_id == lost)
    world.waggle(lost)
    back_ms = world.now_ms
    assert world.traffic(30, per_s=1, until=lambda start: start.worker_id == lost)
    print(f"used again after {(world.now_ms - back_ms) / 1000:.0f} s, {speed:g} times as fast as the others")


def test_a_worker_that_was_slow_long_ago_is_measured_again_within_30_s_of_traffic() -> None:
    world = World(1.0, 1.0, 0.02)
    world.traffic(100)
    for worker_id in world.speeds:
        world.waggle(worker_id)
    world.passes(200_000)
    for worker_id in world.speeds:
        world.waggle(worker_id)
    slow = WorkerId("w2")
    assert world.traffic(30, until=lambda start: start.worker_id == slow)
    assert world.starts[-1].decision.reason == MEASURED
    world.speeds[slow] = 4.0
    world.passes(300_000)
    world.traffic(300)
    worker = world.swarm.fleet.get(slow)
    assert worker is not None
    assert worker.pace.rated > 50.0


def test_a_worker_that_broke_a_stream_is_avoided_until_that_is_forgotten() -> None:
    world = World(1.0, 1.0)
    first = world.submit()
    broken = StreamBroke(first.task_id, first.attempt, Blame.WORKER, "stream_cut", "cut")
    world.swarm.handle(broken, world.now_ms)
    world.waggle(first.worker_id)
    decision = world.submit().decision
    trails = {item.worker_id: dict(item.parts)["trail"] for item in decision.candidates}
    assert trails[first.worker_id] == pytest.approx(0.5)
    world.now_ms += 600_000
    for worker_id in world.speeds:
        world.waggle(worker_id)
    decision = world.submit().decision
    assert {round(dict(item.parts)["trail"], 2) for item in decision.candidates} == {1.0}


def test_equal_histories_give_equal_choices() -> None:
    first, second = World(2.0, 1.0, 0.5), World(2.0, 1.0, 0.5)
    for world in (first, second):
        world.traffic(200)
    assert [start.decision for start in first.starts] == [start.decision for start in second.starts]
