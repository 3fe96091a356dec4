"""Whatever keys ask for, in whatever order, they get equal shares while all of them wait."""

from __future__ import annotations

import random
from collections import Counter, deque

from hypothesis import given, note, settings
from hypothesis import strategies as st

from fair_shares import jain
from swarmesh.core.events import StreamEnded
from swarmesh.core.fairness import QUANTUM, expected_work, real_work
from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId
from swarmesh.core.queue import BroodQueue
from swarmesh.core.task import Task

QWEN = ModelName("qwen")
KEYS = [KeyId(name) for name in ("greedy", "ada", "bob", "eve")]
GREEDY, *MODEST = KEYS
OUTPUT_TOKENS_MAX = 1_024
ENDS_MIN = 200
"""Fewer ends say little about shares when one may cost a thousand tokens."""

sizes = st.integers(1, OUTPUT_TOKENS_MAX)


class Served:
    """A queue that is served on some slots by an engine that writes what it likes."""

    def __init__(self, slots: int) -> None:
        self.queue = BroodQueue()
        self.tokens: Counter[KeyId] = Counter()
        self.ends = 0
        self.order: list[Task] = []
        self._slots = slots
        self._running: deque[tuple[Task, int]] = deque()
        self._made = 0

    def push(self, key_id: KeyId, max_tokens: int = 0, band: Priority = Priority.MEDIUM, chars: int = 0) -> Task:
        self._made += 1
        task = Task(TaskId(f"{key_id}-{self._made}"), QWEN, band, key_id, False, chars, max_tokens, self._made, band)
        self.queue.push(task)
        return task

    def start(self) -> Task:
        task = next(self.queue.ready(QWEN))
        self.queue.take(task)
        self.order.append(task)
        return task

    def step(self, written: int, rng: random.Random) -> None:
        """A task starts, and one of those that run ends if there are enough of them."""
        self._running.append((self.start(), written))
        if len(self._running) < self._slots:
            return
        self._running.rotate(rng.randrange(self._slots))
        task, tokens = self._running.popleft()
        self.queue.settle(task, StreamEnded(task.task_id, 1, tokens))
        self.tokens[task.key_id] += tokens
        self.ends += 1


@settings(deadline=None, max_examples=60)
@given(
    means=st.lists(sizes, min_size=4, max_size=4),
    slots=st.integers(1, 8),
    rng=st.randoms(use_true_random=True),
    told=st.sampled_from(["what it will write", "nothing"]),
)
def test_a_greedy_key_gets_no_more_than_the_modest(means: list[int], slots: int, rng: random.Random, told: str) -> None:
    bounded = told != "nothing"
    served, mean_of = Served(slots), dict(zip(KEYS, means, strict=True))
    for key_id in [*[GREEDY] * 3_000, *MODEST * 3]:
        served.push(key_id, mean_of[key_id] if bounded else 0)
    longest = max(*means, int(QUANTUM))
    while served.ends < ENDS_MIN or min(served.tokens[key_id] for key_id in KEYS) < 12 * longest * slots:
        for key_id in KEYS:  # The modest ask again when they were served; the greedy one has asked for all at once.
            while served.queue.size_of_key(key_id) < 3:
                served.push(key_id, mean_of[key_id] if bounded else 0)
        first = next(served.queue.ready(QWEN))
        served.step(max(1, min(2 * mean_of[first.key_id], round(rng.gauss(mean_of[first.key_id], 9)))), rng)
    index = jain([served.tokens[key_id] for key_id in KEYS])
    note(f"{index:.4f} {served.tokens}")
    assert index >= 0.95


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(KEYS), sizes, st.sampled_from(list(Priority))), min_size=1, max_size=60))
def test_the_order_that_is_shown_is_the_order_that_comes(asked: list[tuple[KeyId, int, Priority]]) -> None:
    served = Served(1)
    for key_id, max_tokens, band in asked:
        served.push(key_id, max_tokens, band)
    shown = list(served.queue.waiting(QWEN))
    assert [served.start() for _ in asked] == shown
    bands = [list(Priority).index(task.band) for task in shown]
    assert bands == sorted(bands), "bands come strictly first"
    for line in {(task.key_id, task.band) for task in shown}:
        mine = [task.submitted_at_ms for task in shown if (task.key_id, task.band) == line]
        assert mine == sorted(mine), "a key's tasks keep their order"
    assert len(served.queue) == 0


@settings(deadline=None, max_examples=60)
@given(
    before=st.lists(st.tuples(st.sampled_from(KEYS), sizes), max_size=100),
    late=sizes,
    real=st.lists(st.integers(1, 4_000), min_size=1, max_size=20),
)
def test_nobody_starves(before: list[tuple[KeyId, int]], late: int, real: list[int]) -> None:
    served = Served(1)
    newcomer = KeyId("newcomer")
    for key_id, max_tokens in before:
        served.push(key_id, max_tokens)
    task = served.push(newcomer, late)
    had: Counter[KeyId] = Counter()
    largest = max((max_tokens for _, max_tokens in before), default=0)
    for number in range(len(before) + 1):
        started = served.start()
        if started is task:
            break
        had[started.key_id] += int(expected_work(started))
        cost = StreamEnded(started.task_id, 1, real[number % len(real)])
        served.queue.settle(started, cost)
        given_back = expected_work(started) - (real_work(started, cost) or 0)
        had[started.key_id] -= int(max(0, given_back))
        for key_id, work in had.items():
            assert work <= QUANTUM + largest, f"{key_id} had {work} while {newcomer} waited for its first turn"
    assert task in served.order


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.booleans(), st.integers(0, 5_000)), min_size=1, max_size=200))
def test_counts_hold_and_all_come_out_once(story: list[tuple[KeyId, bool, int]]) -> None:
    served = Served(1)
    started: list[Task] = []
    for key_id, pushes, work in story:
        if pushes or not len(served.queue):
            served.push(key_id, 1 + work % 300)
        elif work % 7 == 0 and started:
            back = started.pop()
            served.queue.push_front(back)
            assert next(served.queue.ready(QWEN)) is back
        else:
            started.append(served.start())
            if work % 2:
                served.queue.settle(started[-1], StreamEnded(started[-1].task_id, 1, work))
        waiting = list(served.queue.waiting(QWEN))
        assert len(waiting) == len(served.queue) == sum(served.queue.size_of_key(key_id) for key_id in KEYS)
        assert len({task.task_id for task in waiting}) == len(waiting)
