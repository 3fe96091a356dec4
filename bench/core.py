"""``python -m bench.core``: what one decision of the core costs, by size of the swarm. Prints a table, writes nothing.

The whole swarm owns one model, which is the dearest case: every worker is a candidate of every choice. Workers have
learned speeds and read prompts, and every prompt has a beginning that many of them have read. Exits with 1 when a limit
is missed.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from swarmesh.core.commands import StartStream
from swarmesh.core.events import StreamEnded, TaskSubmitted, Ticked, WorkerRegistered, WorkerWaggled
from swarmesh.core.ids import HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.swarm import Swarm
from swarmesh.core.task import Task

SIZES = (1, 8, 200, 5_000)
SLOTS = 4
ROUNDS = 5
"""The best of so many is shown: the others tell of the machine's other work. Processor time, not wall time."""
WAITING = 100
MODEL = ModelName("qwen")
BLOCKS = 16
GROUPS = 64
"""Prompts have one block in common with all others, and half of the rest with those of their group."""
PROMPT_CHARS = BLOCKS * 512 + 100
SPEEDS = (2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25)
DECISION_US_MAX = {200: 150.0, 5_000: 1_000.0}
WAGGLE_US_MAX = 20.0


class Costs(NamedTuple):
    """Microseconds.

    Attributes:
        waggle: A report of a worker.
        choice: A decision while half of the slots are free.
        short: A task with a prompt of less than a block submitted and ended, so.
        turn: A task submitted and ended, so.
        full: The same while all slots are taken and tasks wait.
        urgent: A task of high priority that looks for somebody to give way, and finds nobody.
        tick: A look at leases and patience.
    """

    waggle: float
    choice: float
    short: float
    turn: float
    full: float
    urgent: float
    tick: float


class Bench:
    """A swarm of healthy workers of unequal speeds and a supply of tasks."""

    def __init__(self, workers: int) -> None:
        self.swarm = Swarm()
        self.names = [WorkerId(f"rustbee-{number}") for number in range(workers)]
        self.running: deque[tuple[TaskId, int]] = deque()
        self.made = 0
        self.now_ms = 0
        for number, name in enumerate(self.names):
            known = WorkerRegistered(name, MODEL, "cpu", HostName("oak"), "unix:/w", SLOTS, ready=True)
            self.swarm.handle(known, 0)
            self.waggle(number)
        self._learn(workers)

    def short_event(self) -> TaskSubmitted:
        """The next task, of which nobody can have read anything."""
        self.made += 1
        key = KeyId(f"key-{self.made % 64}")
        return TaskSubmitted(TaskId(f"task-{self.made}"), MODEL, Priority.MEDIUM, key, 100, 128)

    def event(self, priority: Priority = Priority.MEDIUM) -> TaskSubmitted:
        """The next task."""
        self.made += 1
        group = self.made % GROUPS
        prefix = (-1, *(group * 1_000 + block for block in range(BLOCKS // 2)))
        prefix += tuple(1_000_000 + self.made * 100 + block for block in range(BLOCKS - len(prefix)))
        key = KeyId(f"key-{self.made % 64}")
        return TaskSubmitted(TaskId(f"task-{self.made}"), MODEL, priority, key, PROMPT_CHARS, 128, prefix=prefix)

    def submit(self, event: TaskSubmitted | None = None) -> None:
        """A new task, started or queued."""
        self._tell(event if event is not None else self.event())

    def end(self) -> None:
        """The stream that has run longest ends."""
        task_id, attempt = self.running.popleft()
        self._tell(StreamEnded(task_id, attempt, 128, PROMPT_CHARS // 4, 100, 300))

    def waggle(self, number: int) -> None:
        """A report of one worker after the other."""
        name = self.names[number % len(self.names)]
        self.swarm.handle(WorkerWaggled(name, True, 0.5, 2_048, 0.9, 7, SLOTS), self.now_ms)

    def tick(self) -> None:
        """A look at leases and patience."""
        self.swarm.handle(Ticked(), self.now_ms)

    def choose(self, priority: Priority = Priority.MEDIUM) -> None:
        """A decision that nobody follows."""
        event = self.event(priority)
        task = Task(
            event.task_id, MODEL, priority, event.key_id, False, PROMPT_CHARS, 128, 0, priority, prefix=event.prefix
        )
        self.swarm.router.choose(task, self.now_ms)

    def _learn(self, workers: int) -> None:
        """Let every worker do some work at a speed of its own."""
        for number, worker in enumerate(self.swarm.fleet):
            # A little off the round numbers, as what is learned would be.
            worker.pace.work = 5_000.0 + number % 7
            worker.pace.is_stale = True
            worker.pace.time_s = worker.pace.work / (50.0 * SPEEDS[number % len(SPEEDS)] * (1 + number % 11 / 100))
            self.swarm.fleet.note(worker)
        for _ in range(workers * 2):
            self.submit()

    def _tell(self, event: TaskSubmitted | StreamEnded) -> None:
        self.now_ms += 1
        for command in self.swarm.handle(event, self.now_ms):
            if isinstance(command, StartStream):
                self.running.append((command.task_id, command.attempt))


def best_us(count: int, work: Callable[[int], object]) -> float:
    """Microseconds per call, the best of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        started_ns = time.process_time_ns()
        for number in range(count):
            work(number)
        rounds.append((time.process_time_ns() - started_ns) / count / 1_000)
    return min(rounds)


def turn(bench: Bench) -> None:
    """One task comes and one ends."""
    bench.submit()
    bench.end()


def short_turn(bench: Bench) -> None:
    """The same with a short prompt."""
    bench.submit(bench.short_event())
    bench.end()


def measure(workers: int) -> Costs:
    """Everything at one size."""
    count = max(400, min(4_000, 20_000 // workers))
    half = Bench(workers)
    waggle_us = best_us(count * 4, half.waggle)
    choice_us = best_us(count, lambda _: half.choose())
    turn_us = best_us(count, lambda _: turn(half))
    short_us = best_us(count, lambda _: short_turn(half))
    full = Bench(workers)
    for _ in range(workers * SLOTS - workers * 2 + WAITING):
        full.submit()
    full_us = best_us(count, lambda _: turn(full))
    urgent = [full.event(Priority.HIGH) for _ in range(count * ROUNDS)]
    urgent_us = best_us(count, lambda number: full.swarm.dispatcher.refusal(urgent[number], full.now_ms))
    return Costs(waggle_us, choice_us, short_us, turn_us, full_us, urgent_us, best_us(20, lambda _: full.tick()))


def missed(workers: int, costs: Costs) -> list[str]:
    """Limits that were not held at this size, in words."""
    words = []
    if costs.waggle > WAGGLE_US_MAX:
        words.append(f"a waggle took {costs.waggle:.1f} us of {WAGGLE_US_MAX:.0f} at {workers} workers")
    limit_us = DECISION_US_MAX.get(workers)
    if limit_us is not None and costs.choice > limit_us:
        words.append(f"a decision took {costs.choice:.1f} us of {limit_us:.0f} at {workers} workers")
    return words


def main() -> None:
    print(f"µs of processor time, best of {ROUNDS}; all workers own one model, {SLOTS} slots each")
    print("choice: half of the slots free; turn: a task comes and one ends (short: a short one); full: all slots taken")
    print(f"{'workers':>8}" + "".join(f"{name:>10}" for name in Costs._fields))
    wrong = []
    for workers in SIZES:
        costs = measure(workers)
        print(f"{workers:>8}" + "".join(f"{cost:>10.1f}" for cost in costs))
        wrong += missed(workers, costs)
    limits = ", ".join(f"{limit_us:.0f} at {workers}" for workers, limit_us in DECISION_US_MAX.items())
    print(f"limits: choice {limits}; waggle {WAGGLE_US_MAX:.0f}")
    for words in wrong:
        print(f"MISSED: {words}")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
