"""``python -m bench.core``: what one decision of the core costs, by size of the swarm. Prints a table, writes nothing.

The whole swarm owns one model, which is the dearest case: every worker is a candidate of every choice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from swarmesh.core.events import StreamEnded, TaskSubmitted, Ticked, WorkerRegistered, WorkerWaggled
from swarmesh.core.ids import HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.swarm import Swarm

SIZES = (4, 200, 1_000)
SLOTS = 4
ROUNDS = 5
"""The best of so many is shown: the others tell of the machine's other work. Processor time, not wall time."""
WAITING = 100
MODEL = ModelName("qwen")


class Bench:
    """A swarm of healthy workers and a supply of tasks."""

    def __init__(self, workers: int) -> None:
        self.swarm = Swarm()
        self.names = [WorkerId(f"rustbee-{number}") for number in range(workers)]
        self.made = 0
        for name in self.names:
            known = WorkerRegistered(name, MODEL, "cpu", HostName("oak"), "unix:/w", SLOTS, ready=True)
            self.swarm.handle(known, 0)

    def submit(self) -> TaskId:
        """A new task, started or queued."""
        self.made += 1
        task_id = TaskId(f"task-{self.made}")
        key = KeyId(f"key-{self.made % 64}")
        self.swarm.handle(TaskSubmitted(task_id, MODEL, Priority.MEDIUM, key, 1_200, 128), 0)
        return task_id

    def end(self, task_id: TaskId) -> None:
        """The task's first stream ends."""
        self.swarm.handle(StreamEnded(task_id, 1), 0)

    def waggle(self, number: int) -> None:
        """A report of one worker after the other."""
        name = self.names[number % len(self.names)]
        self.swarm.handle(WorkerWaggled(name, True, 0.5, 2_048, 0.9, 7, SLOTS), 0)

    def tick(self) -> None:
        """A look at leases and patience."""
        self.swarm.handle(Ticked(), 0)


def best_us(count: int, work: Callable[[int], None]) -> float:
    """Microseconds per call, the best of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        started_ns = time.process_time_ns()
        for number in range(count):
            work(number)
        rounds.append((time.process_time_ns() - started_ns) / count / 1_000)
    return min(rounds)


def measure(workers: int) -> tuple[float, float, float, float]:
    """µs of a waggle, of submit + end while slots are free, of the same while all are taken, and of a tick."""
    count = max(200, 20_000 // workers)
    idle = Bench(workers)
    waggle_us = best_us(count * 4, idle.waggle)
    for _ in range(workers * SLOTS // 2):
        idle.submit()
    free_us = best_us(count, lambda _: idle.end(idle.submit()))
    full = Bench(workers)
    # First come, first served: whoever was submitted first and is still open, runs.
    open_tasks = deque(full.submit() for _ in range(workers * SLOTS + WAITING))

    def turn(_: int) -> None:
        open_tasks.append(full.submit())
        full.end(open_tasks.popleft())

    full_us = best_us(count, turn)
    tick_us = best_us(20, lambda _: full.tick())
    return waggle_us, free_us, full_us, tick_us


def main() -> None:
    print(f"µs of processor time, best of {ROUNDS}; all workers own one model, {SLOTS} slots each")
    print(f"{'workers':>8} {'waggle':>10} {'submit+end':>12} {'the same, all busy':>20} {'tick':>10}")
    for workers in SIZES:
        waggle_us, free_us, full_us, tick_us = measure(workers)
        print(f"{workers:>8} {waggle_us:>10.1f} {free_us:>12.1f} {full_us:>20.1f} {tick_us:>10.1f}")


if __name__ == "__main__":
    main()
