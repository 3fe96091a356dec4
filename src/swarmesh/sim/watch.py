"""A second opinion on every task, followed by its events and commands alone, held against the core's own books."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from swarmesh.core.commands import (
    BreakStream,
    CancelStream,
    Command,
    FailTask,
    ForgetWorker,
    PreemptStream,
    RaiseAlarm,
    SpawnWorker,
    StartStream,
    StopWorker,
)
from swarmesh.core.events import (
    Event,
    HostDrainRequested,
    SpawnFailed,
    StreamBroke,
    StreamEnded,
    TaskCancelled,
    TaskSubmitted,
    WorkerAlarmed,
    WorkerGone,
    WorkerRegistered,
    WorkerWaggled,
)
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import Blame, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.preemption import PREEMPTED_MS_MAX, PREEMPTIONS_MAX
from swarmesh.core.refusals import MOVES_MAX
from swarmesh.core.swarm import Swarm
from swarmesh.core.task import Task, TaskStatus
from swarmesh.sim.bounds_watch import BoundsWatch
from swarmesh.sim.checkers import (
    SERVING,
    WAITING,
    check_books,
    check_candidates,
    check_nobody_gives_way,
    check_not_idle,
    check_order,
    check_queue,
    demand,
    is_kept_from,
    may_have_been_held,
)
from swarmesh.sim.deaths import Deaths
from swarmesh.sim.fair_watch import FairWatch
from swarmesh.sim.host_watch import HostWatch

OVERDUE_SLACK_MS = 2_000
"""Until a tick has looked at a preempted task that waited too long."""


@dataclass(slots=True)
class Followed:
    """What history says of one open task.

    Attributes:
        breaking: The core asked for the present stream to be broken, so the worker's books may lack it already.
        moves: How often a worker failed it.
        failed_on: Known workers whose streams broke by their own fault, with how often each had reported ready then.
        barred: Those of them that would answer the same again.
        preempted_ms: When its slot was taken; None while nobody has, or once it runs again.
    """

    priority: Priority
    resumable: bool = False
    attempt: int = 0
    worker_id: WorkerId | None = None
    breaking: bool = False
    moves: int = 0
    failed_on: dict[WorkerId, int] = field(default_factory=dict)
    barred: set[WorkerId] = field(default_factory=set)
    preemptions: int = 0
    preempted_ms: int | None = None


class Watch:
    """Follows a swarm event by event; `step` is cheap, `full` looks at everything.

    Attributes:
        open: Tasks that were submitted and have no outcome yet.
        outcomes: How many tasks came to each end, by status.
    """

    def __init__(self, swarm: Swarm, *, amnesty_until_ms: int = 0) -> None:
        self.open: dict[TaskId, Followed] = {}
        self.outcomes: Counter[TaskStatus] = Counter()
        self._swarm = swarm
        self._keys: set[KeyId] = set()
        self._hosts = HostWatch(swarm)
        self._bounds = BoundsWatch(swarm)
        self._fair = FairWatch(swarm)
        self._ready: set[WorkerId] = set()
        self._reports: Counter[WorkerId] = Counter()
        self._deaths = Deaths(swarm, amnesty_until_ms)
        self._preempted: set[TaskId] = set()
        self._now_ms = 0

    def before(self, event: Event) -> None:
        """Remember what the event is going to change."""
        self._deaths.before(event)

    def step(self, event: Event, commands: list[Command], now_ms: int) -> None:
        """Check what one event changed.

        Raises:
            InvariantBrokenError: Something does not hold; the message says what.
        """
        demand(now_ms >= self._now_ms, "time went back from {} to {} ms", self._now_ms, now_ms)
        self._now_ms = now_ms
        touched = [*self._worker_of(event), *_named(event, commands, "worker_id")]
        self._follow_event(event)
        self._hosts.follow(event)
        self._bounds.follow(event)
        self._deaths.after(event)
        for command in commands:
            self._follow_command(command)
        if isinstance(event, HostDrainRequested):
            self._hosts.drained(event, commands)
        self._check_heads([command.task_id for command in commands if isinstance(command, PreemptStream)])
        for task_id in _named(event, commands, "task_id"):
            task, is_open = self._swarm.dispatcher.tasks.get(task_id), task_id in self.open
            demand((task is not None) == is_open, "{} is open by history: {}, by the core: {}", task_id, is_open, task)
            if task is not None:
                self._check_place(task)
        for worker_id in touched:
            worker = self._swarm.fleet.get(worker_id)
            if worker is not None:
                check_books(self._swarm, worker)
                check_not_idle(self._swarm, worker)
                check_candidates(self._swarm, worker)
        for model in self._models_of(touched):
            check_nobody_gives_way(self._swarm, model)
        if isinstance(event, TaskSubmitted):
            self._check_rightly_queued(event.task_id)
            self._fair.submitted(event.task_id)
        self._fair.forget_empty()

    def full(self) -> None:
        """Check every task, worker, queue and host.

        Raises:
            InvariantBrokenError: Something does not hold; the message says what.
        """
        swarm = self._swarm
        demand(swarm.dispatcher.tasks.keys() == self.open.keys(), "the core's tasks are not the open ones")
        for task in swarm.dispatcher.tasks.values():
            self._check_place(task)
        holders = Counter(task_id for worker in swarm.fleet for task_id in worker.running)
        for task_id, count in holders.items():
            demand(count == 1, "{} runs on {} workers", task_id, count)
        for worker in swarm.fleet:
            check_books(swarm, worker)
            check_not_idle(swarm, worker)
            check_candidates(swarm, worker)
        for model in swarm.fleet.models():
            check_nobody_gives_way(swarm, model)
        check_queue(swarm, self._keys)
        self._hosts.full()

    def rest(self) -> None:
        """Check that nothing is left when every task has come to its end.

        Raises:
            InvariantBrokenError: A task, a charge or a waiting entry is left over.
        """
        self.full()
        demand(not self.open, "{} tasks never ended: {}", len(self.open), list(self.open)[:5])
        for worker in self._swarm.fleet:
            demand(not worker.running, "{} still holds {}", worker.worker_id, list(worker.running))

    def order_kept(self, submitted: list[TaskId]) -> None:
        """Check that tasks which never ran wait in this order, band by band and key by key: keys take turns.

        Raises:
            InvariantBrokenError: One was overtaken.
        """
        place = {task_id: number for number, task_id in enumerate(submitted)}
        for model in {task.model for task in self._swarm.dispatcher.tasks.values()}:
            lines: dict[tuple[Priority, KeyId], list[int]] = {}
            for task in self._swarm.dispatcher.queue.waiting(model):
                if task.task_id in place:
                    lines.setdefault((task.band, task.key_id), []).append(place[task.task_id])
            for (band, key_id), order in lines.items():
                demand(order == sorted(order), "{} tasks of {} of {} wait in the order {}", band, model, key_id, order)

    def _follow_event(self, event: Event) -> None:
        match event:
            case TaskSubmitted():
                self.open[event.task_id] = Followed(event.priority, event.resumable, event.attempts)
                self._keys.add(event.key_id)
            case StreamEnded():
                if self._speaks(event.task_id, event.attempt):
                    self._fair.ended(event)
                    self._over(event.task_id, TaskStatus.DONE)
            case StreamBroke():
                if self._speaks(event.task_id, event.attempt):
                    self._broke(self.open[event.task_id], event)
            case TaskCancelled():
                # The stream is still there while the command that ends it is on its way.
                if event.task_id in self.open:
                    self._over(event.task_id, TaskStatus.CANCELLED)
            case _:
                self._follow_worker(event)

    def _follow_worker(self, event: Event) -> None:
        match event:
            case WorkerRegistered() | WorkerWaggled() if event.ready:
                self._ready.add(event.worker_id)
                self._reports[event.worker_id] += 1
            case WorkerRegistered() | WorkerWaggled() | WorkerAlarmed() | WorkerGone() | SpawnFailed():
                self._ready.discard(event.worker_id)
            case _:
                pass

    def _follow_command(self, command: Command) -> None:
        match command:
            case StartStream():
                self._started(command)
            case BreakStream():
                task = self.open.get(command.task_id)
                speaks = self._speaks(command.task_id, command.attempt)
                demand(speaks, "{} breaks a stream that is not there: {}", command, task)
                if task is not None:
                    task.breaking = True
            case PreemptStream():
                self._gave_way(command)
            case CancelStream():
                demand(command.task_id not in self.open, "{} stops a stream that somebody waits for", command)
            case FailTask():
                task = self.open.get(command.task_id)
                demand(
                    task is not None and not task.worker_id, "{} ends a task that runs or is over: {}", command, task
                )
                self._over(command.task_id, TaskStatus.FAILED)
            case RaiseAlarm():
                self._deaths.declared(command, self._now_ms)
            case _:
                self._follow_order(command)

    def _follow_order(self, command: Command) -> None:
        fleet = self._swarm.fleet
        match command:
            case SpawnWorker():
                demand(command.worker_id in fleet, "{} starts a worker nobody knows", command)
                self._hosts.promised(command)
                self._bounds.ordered(command)
            case StopWorker():
                worker = fleet.get(command.worker_id)
                demand(worker is not None and worker.stop_at_ms > 0, "{} stops {}", command, worker)
                in_time = worker is None or not worker.running or worker.stop_at_ms <= self._now_ms
                demand(in_time, "{} stops {}, which still has time", command, worker)
            case ForgetWorker():
                demand(command.worker_id not in fleet, "{} forgets a known worker", command)
            case _:
                pass

    def _started(self, command: StartStream) -> None:
        task = self.open.get(command.task_id)
        worker = self._swarm.fleet.get(command.worker_id)
        demand(task is not None and not task.worker_id, "{} starts a task that runs or is over: {}", command, task)
        demand(worker is not None, "{} names a worker nobody knows", command)
        if task is None or worker is None:
            return
        demand(worker.status in SERVING and not worker.stop_at_ms, "{} goes to {}", command, worker)
        demand(command.worker_id in self._ready, "{} goes to a worker that is not ready: {}", command, worker)
        demand(not self._deaths.is_silent(command.worker_id), "{} goes to a silent worker", command)
        demand(worker.model == command.model, "{} goes to a worker of {}", command, worker.model)
        demand(len(worker.running) <= worker.slots, "{} is given more than its slots hold: {}", command, worker)
        demand(command.attempt == task.attempt + 1, "{} follows attempt {}", command, task.attempt)
        demand(task.moves <= MOVES_MAX, "{} moves the task more than {} times", command, MOVES_MAX)
        demand(command.worker_id not in task.barred, "{} goes where the answer will be the same again", command)
        if command.worker_id in task.failed_on:
            self._check_return(command, task)
        check_order(self._swarm, command)
        self._fair.started(command)
        self._check_overdue(command, worker)
        task.attempt, task.worker_id, task.breaking = command.attempt, command.worker_id, False
        task.preempted_ms = None
        self._preempted.discard(command.task_id)

    def _check_return(self, command: StartStream, task: Followed) -> None:
        reported_since = self._reports[command.worker_id] > task.failed_on[command.worker_id]
        owners = self._swarm.fleet.of_model(command.model).values()
        others = [worker.worker_id for worker in owners if worker.may_serve and worker.worker_id not in task.failed_on]
        demand(reported_since or not others, "{} goes where the task failed before; left are {}", command, others)

    def _check_overdue(self, command: StartStream, worker: Worker) -> None:
        """Whoever waits too long for a slot that was taken from it gets the next one that it can use."""
        started = self._swarm.dispatcher.tasks.get(command.task_id)
        since_ms = self._now_ms - PREEMPTED_MS_MAX - OVERDUE_SLACK_MS
        if started is None or started.band is Priority.HIGH:
            return
        for task_id in self._preempted:
            task = self._swarm.dispatcher.tasks.get(task_id)
            taken_ms = self.open[task_id].preempted_ms
            if task is None or task.model != command.model or taken_ms is None or taken_ms > since_ms:
                continue
            kept = is_kept_from(task, worker, but=started) or may_have_been_held(self._swarm, task)
            demand(kept or task_id == command.task_id, "{} passes {}, preempted too long ago", command, task_id)

    def _gave_way(self, command: PreemptStream) -> None:
        task = self.open.get(command.task_id)
        speaks = self._speaks(command.task_id, command.attempt)
        demand(speaks, "{} takes the slot of a task that has none: {}", command, task)
        if task is None:
            return
        demand(task.priority is Priority.LOW and task.resumable, "{} takes the slot of {}", command, task)
        demand(task.preemptions < PREEMPTIONS_MAX, "{} preempts more than {} times", command, PREEMPTIONS_MAX)
        task.worker_id = None
        task.preemptions += 1
        task.preempted_ms = self._now_ms
        self._preempted.add(command.task_id)

    def _check_heads(self, preempted: list[TaskId]) -> None:
        """Tasks that have just lost their slots are first in their band, unless the limits of their keys hold them."""
        for task_id in preempted:
            task = self._swarm.dispatcher.tasks.get(task_id)
            if task is None or task.status not in WAITING or self._swarm.dispatcher.limits.holds(task):
                continue
            line = [other for other in self._swarm.dispatcher.queue.waiting(task.model) if other.band is task.band]
            heads = [other.task_id for other in line[: len(preempted)]]
            demand(task_id in heads, "{} is preempted and stands behind {}", task_id, heads)

    def _broke(self, task: Followed, event: StreamBroke) -> None:
        task.moves += event.blame is Blame.WORKER
        # A worker that is forgotten by now has taken its record with it.
        if task.worker_id is not None and event.blame is Blame.WORKER and task.worker_id in self._swarm.fleet:
            task.failed_on[task.worker_id] = self._reports[task.worker_id]
            if event.final:
                task.barred.add(task.worker_id)
        task.worker_id = None

    def _check_place(self, task: Task) -> None:
        followed = self.open[task.task_id]
        waits = TaskStatus.PREEMPTED if followed.preempted_ms is not None else TaskStatus.QUEUED
        status = TaskStatus.RUNNING if followed.worker_id else waits
        by_history = (status, followed.worker_id, followed.attempt)
        demand(by_history == (task.status, task.worker_id, task.attempt), "by history {}, is {}", by_history, task)
        worker = self._swarm.fleet.get(task.worker_id) if task.worker_id else None
        on_books = worker is not None and task.task_id in worker.running
        demand(on_books or followed.breaking or not task.worker_id, "{} is not on its worker's books", task)

    def _worker_of(self, event: Event) -> list[WorkerId]:
        # An end or a break names its task only; the worker is the one that history knows.
        if isinstance(event, StreamEnded | StreamBroke) and event.task_id in self.open:
            worker_id = self.open[event.task_id].worker_id
            return [worker_id] if worker_id else []
        return []

    def _models_of(self, worker_ids: list[WorkerId]) -> list[ModelName]:
        known = (self._swarm.fleet.get(worker_id) for worker_id in worker_ids)
        return list(dict.fromkeys(worker.model for worker in known if worker is not None))

    def _check_rightly_queued(self, task_id: TaskId) -> None:
        task = self._swarm.dispatcher.tasks.get(task_id)
        if task is not None and task.status is TaskStatus.QUEUED:
            check_nobody_gives_way(self._swarm, task.model)
            for worker in self._swarm.fleet.of_model(task.model).values():
                check_not_idle(self._swarm, worker)

    def _speaks(self, task_id: TaskId, attempt: int) -> bool:
        task = self.open.get(task_id)
        return task is not None and task.worker_id is not None and task.attempt == attempt

    def _over(self, task_id: TaskId, status: TaskStatus) -> None:
        del self.open[task_id]
        self._fair.over(task_id)
        self._preempted.discard(task_id)
        self.outcomes[status] += 1


def _named(event: Event, commands: list[Command], field: Literal["task_id", "worker_id"]) -> list[Any]:
    # In order and once each: which violation is reported first must not depend on hashing.
    return list(dict.fromkeys(name for item in (event, *commands) if (name := getattr(item, field, None))))
