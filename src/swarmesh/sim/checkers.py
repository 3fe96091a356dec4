"""What must hold between any two events, whatever happened before; the simulator and the property tests share it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Final

from swarmesh.core.commands import StartStream
from swarmesh.core.decision import POLICY_RETURN
from swarmesh.core.errors import SwarmeshError
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import KeyId, ModelName, Priority
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.look_ahead import KINDS_MAX
from swarmesh.core.preemption import PREEMPTIONS_MAX
from swarmesh.core.swarm import Swarm
from swarmesh.core.task import Task, TaskStatus

BACKLOG_TOLERANCE: Final = 1e-6
"""Token-equivalents by which a running sum of floats may differ from a fresh one."""

SERVING: Final = frozenset({WorkerStatus.HEALTHY, WorkerStatus.SUSPECT})
"""States in which a worker may be given tasks."""

WAITING: Final = frozenset({TaskStatus.QUEUED, TaskStatus.PREEMPTED})
"""States in which a task stands in the queue."""

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
    check_probation(swarm, worker)


def check_candidates(swarm: Swarm, worker: Worker) -> None:
    """The router's books say of a worker what a fresh look does, or take one next: whoever changed it has said so."""
    book = swarm.router.book_of(worker.model)
    known = swarm.fleet.is_noted(worker) or (book is not None and book.is_current(worker))
    demand(known, "the router has not heard of {}", worker)


def check_probation(swarm: Swarm, worker: Worker) -> None:
    """At most one task of a worker may be one that crashes engines and has not shown yet that it does not."""
    tasks = swarm.dispatcher.tasks
    suspects = [task_id for task_id in worker.running if tasks[task_id].on_probation]
    demand(len(suspects) <= 1, "{} runs {} suspects: {}", worker.worker_id, len(suspects), suspects)
    named = worker.probation is None or worker.probation in worker.running
    demand(named or worker.crash is not None, "{} watches {}, which is not there", worker.worker_id, worker.probation)
    demand(not suspects or worker.probation == suspects[0], "{} does not watch {}", worker.worker_id, suspects)


def is_kept_from(task: Task, worker: Worker, but: Task | None = None) -> bool:
    """Whether a task must not go to this worker although it serves; ``but`` was given to it a moment ago."""
    watched = worker.probation is not None and (but is None or worker.probation != but.task_id)
    return worker.silent or worker.worker_id in task.tried or (watched and task.on_probation)


def check_not_idle(swarm: Swarm, worker: Worker) -> None:
    """No slot of a serving worker is free while a task waits that could run there and whose key may have it run.

    Tasks that are kept from different sets of workers are promised a look for the first `KINDS_MAX` such sets.
    """
    if worker.status not in SERVING or worker.silent or not worker.slots_free:
        return
    sets: set[tuple[bool, frozenset[str]]] = set()
    for task in swarm.dispatcher.queue.ready(worker.model):
        sets.add((task.on_probation, frozenset(task.tried)))
        choosy = bool(task.tried) or task.on_probation
        blocked = choosy and (is_kept_from(task, worker) or len(sets) > KINDS_MAX)
        demand(blocked, "{} has {} slots free and {} waits", worker.worker_id, worker.slots_free, task.task_id)


def check_nobody_gives_way(swarm: Swarm, model: ModelName) -> None:
    """No task of high priority is the next of its model while one runs that should have given way to it."""
    task = next(swarm.dispatcher.queue.ready(model), None)
    if task is None or task.priority is not Priority.HIGH:
        return
    for worker in swarm.fleet.of_model(model).values():
        usable = worker.status in SERVING and not is_kept_from(task, worker) and len(worker.running) <= worker.slots
        for task_id in worker.running if usable else ():
            other = swarm.dispatcher.tasks[task_id]
            stays = other.band is not Priority.LOW or not other.resumable or other.preemptions >= PREEMPTIONS_MAX
            demand(stays, "{} waits while {} runs on {}", task.task_id, task_id, worker.worker_id)


def check_queue(swarm: Swarm, keys: Iterable[KeyId]) -> None:
    """The queue's counts are those of its tasks, and it holds exactly the waiting ones."""
    queue = swarm.dispatcher.queue
    depths = queue.depths()
    waiting = [task for model in dict.fromkeys(model for model, _ in depths) for task in queue.waiting(model)]
    per_key = Counter(task.key_id for task in waiting)
    per_band = Counter((task.model, task.band) for task in waiting)
    queued = {task.task_id for task in swarm.dispatcher.tasks.values() if task.status in WAITING}
    check_held(swarm, waiting)
    demand(len(queue) == len(waiting), "the queue counts {} tasks and holds {}", len(queue), len(waiting))
    demand(depths == dict(per_band), "the bands count {} and hold {}", depths, dict(per_band))
    demand({task.task_id for task in waiting} == queued, "queued tasks and the queue differ: {}", queued)
    for key in keys:
        size = queue.size_of_key(key)
        demand(size == per_key[key], "key {} counts {} tasks and has {}", key, size, per_key[key])
    for model in {model for model, _ in depths}:
        order = [_BANDS.index(task.band) for task in queue.waiting(model)]
        demand(order == sorted(order), "bands of {} are served out of order", model)


def check_held(swarm: Swarm, waiting: list[Task]) -> None:
    """Who waits and is passed over waits for its key's limits, and is durable."""
    limits, queue = swarm.dispatcher.limits, swarm.dispatcher.queue
    models = dict.fromkeys(task.model for task in waiting)
    ready = {task.task_id: task for model in models for task in queue.ready(model)}
    for model in models:
        first = next(queue.ready(model), None)
        demand(first is None or not limits.holds(first), "{} is next while its key is at its limit", first)
    held_keys = {task.key_id for task in waiting if limits.holds(task)}
    for task in waiting:
        passed = task.durable and task.key_id in held_keys
        demand(passed or task.task_id in ready, "{} is passed over, and its key is at no limit", task.task_id)


def may_have_been_held(swarm: Swarm, task: Task) -> bool:
    """Whether a task that may run now may have been held by its key's limits when another one was started."""
    return task.durable and swarm.dispatcher.limits.of(task.key_id).is_limited


def check_order(swarm: Swarm, started: StartStream) -> None:
    """No task of a more urgent band waits for the slot that a less urgent one was just given."""
    tasks, worker = swarm.dispatcher.tasks, swarm.fleet.get(started.worker_id)
    task = tasks.get(started.task_id)
    if task is None or worker is None or started.decision.policy == POLICY_RETURN:
        return
    more_urgent = _BANDS[: _BANDS.index(task.band)]
    for other in islice(swarm.dispatcher.queue.ready(started.model), KINDS_MAX):
        if other.band not in more_urgent:
            return
        kept = is_kept_from(other, worker, but=task) or may_have_been_held(swarm, other)
        demand(kept, "{} ({}) was started while {} waits: {}", task.task_id, task.band, other.task_id, started)
