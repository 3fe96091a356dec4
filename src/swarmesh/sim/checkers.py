"""What must hold between any two events, whatever happened before; the simulator and the property tests share it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Final

from swarmesh.core.commands import StartStream
from swarmesh.core.dispatch import LOOK_AHEAD_MAX
from swarmesh.core.errors import SwarmeshError
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import HostName, KeyId, Priority, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.memory import USABLE_SHARE
from swarmesh.core.swarm import Swarm
from swarmesh.core.task import TaskStatus

BACKLOG_TOLERANCE: Final = 1e-6
"""Token-equivalents by which a running sum of floats may differ from a fresh one."""

SERVING: Final = frozenset({WorkerStatus.HEALTHY, WorkerStatus.SUSPECT})
"""States in which a worker may be given tasks."""

_BANDS = tuple(Priority)


class InvariantBrokenError(SwarmeshError):
    """The core broke a promise about its own state; the hint is the command that replays it."""

    code = "invariant_broken"


def demand(holds: bool, words: str, *facts: object) -> None:  # noqa: FBT001 - a sentence: demand this, or say that
    """Let a true statement pass.

    Args:
        holds: The statement.
        words: A format string that says what is the case instead; ``facts`` are put in only when they are needed.
        facts: One for each pair of braces in ``words``.

    Raises:
        InvariantBrokenError: The statement is false.
    """
    if not holds:
        raise InvariantBrokenError(words.format(*facts))


def check_books(swarm: Swarm, worker: Worker) -> None:
    """The ledger of one worker adds up, is exactly zero when empty, and names tasks that name the worker."""
    total = math.fsum(worker.running.values())
    name = worker.worker_id
    drift = abs(worker.backlog - total)
    demand(drift <= BACKLOG_TOLERANCE, "{} has backlog {}, charges {}", name, worker.backlog, total)
    demand(bool(worker.running) or worker.backlog == 0.0, "{} is empty and has backlog {!r}", name, worker.backlog)
    for task_id in worker.running:
        task = swarm.dispatcher.tasks.get(task_id)
        runs_here = task is not None and task.status is TaskStatus.RUNNING and task.worker_id == name
        demand(runs_here, "{} is charged for {}: {}", name, task_id, task or "over")


def check_not_idle(swarm: Swarm, worker: Worker) -> None:
    """No slot of a serving worker is free while a task waits that could run there.

    Tasks that failed on different sets of workers are promised a look for the first `LOOK_AHEAD_MAX` such sets.
    """
    if worker.status not in SERVING or not worker.slots_free:
        return
    sets: set[frozenset[WorkerId]] = set()
    for task in swarm.dispatcher.queue.waiting(worker.model):
        sets.add(frozenset(task.tried))
        blocked = bool(task.tried) and (worker.worker_id in task.tried or len(sets) > LOOK_AHEAD_MAX)
        demand(blocked, "{} has {} slots free and {} waits", worker.worker_id, worker.slots_free, task.task_id)


def check_queue(swarm: Swarm, keys: Iterable[KeyId]) -> None:
    """The queue's counts are those of its tasks, and it holds exactly the queued ones."""
    queue = swarm.dispatcher.queue
    depths = queue.depths()
    waiting = [task for model in dict.fromkeys(model for model, _ in depths) for task in queue.waiting(model)]
    per_key = Counter(task.key_id for task in waiting)
    per_band = Counter((task.model, task.priority) for task in waiting)
    queued = {task.task_id for task in swarm.dispatcher.tasks.values() if task.status is TaskStatus.QUEUED}
    demand(len(queue) == len(waiting), "the queue counts {} tasks and holds {}", len(queue), len(waiting))
    demand(depths == dict(per_band), "the bands count {} and hold {}", depths, dict(per_band))
    demand({task.task_id for task in waiting} == queued, "queued tasks and the queue differ: {}", queued)
    for key in keys:
        size = queue.size_of_key(key)
        demand(size == per_key[key], "key {} counts {} tasks and has {}", key, size, per_key[key])
    for model in {model for model, _ in depths}:
        order = [_BANDS.index(task.priority) for task in queue.waiting(model)]
        demand(order == sorted(order), "bands of {} are served out of order", model)


def check_memory(swarm: Swarm, hosts: Iterable[HostName]) -> None:
    """No host's memory is promised beyond its usable share."""
    for host in hosts:
        books = swarm.memory.of_host(host)
        promised = sum(books.reserved.values()) if books else 0
        usable = int(books.total_mib * USABLE_SHARE) if books else 0
        demand(promised <= usable, "{} has {} MiB usable and {} MiB promised", host, usable, promised)


def check_order(swarm: Swarm, started: StartStream, priority: Priority) -> None:
    """No task of a more urgent band waits for the slot that a less urgent one was just given."""
    more_urgent = _BANDS[: _BANDS.index(priority)]
    for task in islice(swarm.dispatcher.queue.waiting(started.model), LOOK_AHEAD_MAX):
        if task.priority not in more_urgent:
            return
        cannot = started.worker_id in task.tried
        demand(cannot, "{} ({}) was started while {} waits: {}", started.task_id, priority, task.task_id, started)
