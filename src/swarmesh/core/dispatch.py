"""The life of tasks: admitted or refused, placed or queued, ended, moved or failed."""

from __future__ import annotations

from typing import Final

from swarmesh.core.commands import BreakStream, CancelStream, Command, FailTask, RecordTask, StartStream
from swarmesh.core.errors import (
    ModelNotFoundError,
    NoRustbeesAvailableError,
    QueueFullError,
    RustbeeLostError,
    SwarmeshError,
    TaskRefusedError,
)
from swarmesh.core.events import StreamBroke, StreamEnded, TaskCancelled, TaskSubmitted
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import Blame, ModelName, TaskId, WorkerId
from swarmesh.core.ledger import charge, settle
from swarmesh.core.liveness import WorkerFact, WorkerStatus, following
from swarmesh.core.queue import BroodQueue
from swarmesh.core.routing import Decision, choose, default_model
from swarmesh.core.task import Task, TaskFact, TaskStatus

QUEUE_MAX_PER_KEY: Final = 1_000
MOVES_MAX: Final = 3
"""Times a task may be given to another worker after the first."""
LOOK_AHEAD_MAX: Final = 64
"""Sets of workers that failed waiting tasks, each looked at once for a free slot; the first untried task always is."""
PATIENCE_MS: Final = 60_000
"""How long an interactive task waits while no worker that could take it is even expected back."""
RETRY_AFTER_S: Final = 5


class Dispatcher:
    """Owns tasks and the queue; reads the fleet and keeps its ledger."""

    def __init__(self, fleet: Fleet, *, queue_max_per_key: int = QUEUE_MAX_PER_KEY) -> None:
        self.tasks: dict[TaskId, Task] = {}
        self.queue = BroodQueue()
        self._fleet = fleet
        self._queue_max_per_key = queue_max_per_key
        self._serial = 0
        self._hopeless_since: dict[ModelName, int] = {}

    def submitted(self, event: TaskSubmitted, now_ms: int, out: list[Command]) -> None:
        """Start the task, queue it, or say why neither is possible."""
        task = self._task(event, now_ms)
        assert task.task_id not in self.tasks, "task ids are made once"
        if self._start(task, now_ms, out):
            self.tasks[task.task_id] = task
            return
        refusal = None if event.accepted else self._refusal(task, model_known=event.model_known)
        if refusal is not None:
            self._finish(task, TaskFact.FAILED, out, refusal)
            return
        self.tasks[task.task_id] = task
        self.queue.push(task)

    def refusal(self, event: TaskSubmitted, now_ms: int) -> SwarmeshError | None:
        """Why this task would be refused now, None when it would not; changes nothing.

        For whoever has to know before the task is made durable.
        """
        task = self._task(event, now_ms)
        if choose(self._fleet, task).chosen is not None:
            return None
        return self._refusal(task, model_known=event.model_known)

    def ended(self, event: StreamEnded, now_ms: int, out: list[Command]) -> None:
        """Close the books of a task and give its slot to the next."""
        task = self._running(event.task_id, event.attempt)
        if task is None:
            return
        self._settle(task)
        self._finish(task, TaskFact.ENDED, out)
        self.serve(task.model, now_ms, out)

    def broke(self, event: StreamBroke, now_ms: int, out: list[Command]) -> None:
        """Move the task to another worker, or fail it when that cannot help."""
        task = self._running(event.task_id, event.attempt)
        if task is None:
            return
        worker = self._settle(task)
        if event.blame is Blame.WORKER and worker is not None:
            worker.status = following(worker.status, WorkerFact.SUSPECTED)
            task.tried.add(worker.worker_id)
            task.forgave = task.forgave or event.final
        error = self._reason_not_to_move(task, event)
        if error is not None:
            self._finish(task, TaskFact.FAILED, out, error)
        else:
            self._go_back(task)
            self._requeue(task, now_ms, out)
        self.serve(task.model, now_ms, out)

    def cancelled(self, event: TaskCancelled, now_ms: int, out: list[Command]) -> None:
        """End a task wherever it stands; an unknown or final one is left alone."""
        task = self.tasks.get(event.task_id)
        if task is None:
            return
        if task.status is TaskStatus.RUNNING:
            self._settle(task)
        else:
            self.queue.remove(task)
        out.append(CancelStream(task.task_id, task.attempt, task.worker_id))
        self._finish(task, TaskFact.CANCELLED, out)
        self.serve(task.model, now_ms, out)

    def serve(self, model: ModelName, now_ms: int, out: list[Command]) -> None:
        """Give free slots of a model to its waiting tasks, in order."""
        while self.queue.has(model):
            found = self._next_placeable(model)
            if found is None:
                return
            task, decision = found
            self.queue.remove(task)
            self._dispatch(task, decision, now_ms, out)

    def give_up_on(self, worker: Worker, code: str, message: str, out: list[Command]) -> None:
        """Ask for every stream of a lost worker to be broken; each comes back as an event of its own."""
        # The last first: each goes to the head of the queue, so they wait there in the order they came in.
        for task_id in reversed(worker.running):
            task = self.tasks[task_id]
            out.append(BreakStream(task_id, task.attempt, worker.worker_id, code, message))

    def forgive(self, worker: Worker) -> None:
        """Let tasks that wait try a worker again that came back: once each, so that none can kill it for good."""
        for task in self.queue.waiting(worker.model):
            if worker.worker_id in task.tried and not task.forgave:
                task.tried.discard(worker.worker_id)
                task.forgave = True

    def lose_patience(self, now_ms: int, out: list[Command]) -> None:
        """Fail interactive tasks that wait for a worker nobody expects; durable ones wait on."""
        models = dict.fromkeys(model for model, _ in self.queue.depths())  # Not a set: order must not vary by run.
        hopeless = (model for model in models if not self._expected(model))
        self._hopeless_since = {model: self._hopeless_since.get(model, now_ms) for model in hopeless}
        for model in models:
            doubtful = (task for task in self.queue.waiting(model) if task.tried or model in self._hopeless_since)
            for task in list(doubtful):
                self._go_back(task)
                if not self._gives_up(task, now_ms):
                    continue
                self.queue.remove(task)
                self._finish(task, TaskFact.FAILED, out, self._no_rustbees(task))
            self.serve(model, now_ms, out)

    def _task(self, event: TaskSubmitted, now_ms: int) -> Task:
        return Task(
            task_id=event.task_id,
            model=event.model or default_model(self._fleet) or event.model,
            priority=event.priority,
            key_id=event.key_id,
            durable=event.durable,
            prompt_chars=event.prompt_chars,
            max_tokens=event.max_tokens,
            submitted_at_ms=now_ms,
            queued_at_ms=now_ms,
        )

    def _start(self, task: Task, now_ms: int, out: list[Command]) -> bool:
        # Nobody overtakes a task that could take the same slot; one that failed on whoever is free cannot.
        first = next(self.queue.waiting(task.model), None)
        if first is not None and not first.tried:
            return False
        decision = choose(self._fleet, task)
        if decision.chosen is None:
            return False
        self._dispatch(task, decision, now_ms, out)
        return True

    def _dispatch(self, task: Task, decision: Decision, now_ms: int, out: list[Command]) -> None:
        worker = self._fleet.get(decision.chosen) if decision.chosen else None
        assert worker is not None, "a decision names a known worker"
        task.apply(TaskFact.DISPATCHED)
        task.attempt += 1
        task.queue_ms += now_ms - task.queued_at_ms
        self._serial += 1
        worker.last_chosen = self._serial
        charge(worker, task)
        self._record(task, out)
        out.append(StartStream(task.task_id, task.attempt, worker.worker_id, task.model, task.queue_ms, decision))

    def _requeue(self, task: Task, now_ms: int, out: list[Command]) -> None:
        task.apply(TaskFact.REQUEUED)
        task.worker_id = None
        task.queued_at_ms = now_ms
        self._record(task, out)
        self.queue.push_front(task)

    def _next_placeable(self, model: ModelName) -> tuple[Task, Decision] | None:
        blocked: set[frozenset[WorkerId]] = set()
        for task in self.queue.waiting(model):
            tried = frozenset(task.tried)
            if tried in blocked or (tried and len(blocked) >= LOOK_AHEAD_MAX):
                continue
            decision = choose(self._fleet, task)
            if decision.chosen is not None:
                return task, decision
            if not tried:
                return None  # No filter depends on this task, so nobody is free for those behind it either.
            blocked.add(tried)  # Nor for others that failed on the same workers.
        return None

    def _refusal(self, task: Task, *, model_known: bool) -> SwarmeshError | None:
        owners = self._fleet.of_model(task.model)
        if not owners and not model_known:
            if not task.model:
                return NoRustbeesAvailableError("no rustbee is running, so there is no default modelcell")
            return ModelNotFoundError(f"no modelcell is called {task.model!r}", param="model")
        if not task.durable and not self._expected(task.model):
            return self._no_rustbees(task)
        waiting = self.queue.size_of_key(task.key_id)
        if waiting >= self._queue_max_per_key:
            return QueueFullError(
                f"{waiting} tasks of this key wait already, the most one key may have",
                retry_after_s=RETRY_AFTER_S,
            )
        return None

    def _no_rustbees(self, task: Task) -> NoRustbeesAvailableError:
        owners = self._fleet.of_model(task.model)
        states = ", ".join(
            f"{worker.worker_id} is {worker.status}" + (" and failed this task" if worker_id in task.tried else "")
            for worker_id, worker in owners.items()
        )
        return NoRustbeesAvailableError(
            f"no rustbee serves {task.model!r}" + (f": {states}" if states else ""),
            hint=f"'swarmesh spawn rustbee --modelcell {task.model}' starts one.",
            retry_after_s=RETRY_AFTER_S,
        )

    def _reason_not_to_move(self, task: Task, event: StreamBroke) -> SwarmeshError | None:
        if event.blame is Blame.TASK:
            return TaskRefusedError(event.message)
        lost = f"{event.message} ({event.code}, attempt {task.attempt})"
        if event.shown:
            return RustbeeLostError(f"{lost}; part of the answer was already sent")
        if task.attempt > MOVES_MAX:
            return RustbeeLostError(f"{lost}; given up after {task.attempt} attempts")
        if not self._has_prospects(task):
            return RustbeeLostError(f"{lost}; no other rustbee serves {task.model!r}")
        return None

    def _go_back(self, task: Task) -> None:
        # A worker that was well again before the task needed it will not come back a second time to be forgiven.
        owners = self._fleet.of_model(task.model).values()
        if task.forgave or any(worker.may_serve and worker.worker_id not in task.tried for worker in owners):
            return
        well = (w.worker_id for w in owners if w.status is WorkerStatus.HEALTHY and w.worker_id in task.tried)
        worker_id = next(well, None)
        if worker_id is not None:
            task.tried.discard(worker_id)
            task.forgave = True

    def _gives_up(self, task: Task, now_ms: int) -> bool:
        if task.durable:
            return False
        hopeless_since_ms = self._hopeless_since.get(task.model)
        if hopeless_since_ms is None and (not task.tried or self._has_prospects(task)):
            return False
        return now_ms - max(task.queued_at_ms, hopeless_since_ms or 0) > PATIENCE_MS

    def _expected(self, model: ModelName) -> bool:
        return any(worker.may_serve for worker in self._fleet.of_model(model).values())

    def _has_prospects(self, task: Task) -> bool:
        owners = self._fleet.of_model(task.model).values()
        return any(w.may_serve and (w.worker_id not in task.tried or not task.forgave) for w in owners)

    def _running(self, task_id: TaskId, attempt: int) -> Task | None:
        # A stream of an earlier attempt may still be talking; only the newest speaks for the task.
        task = self.tasks.get(task_id)
        if task is None or task.status is not TaskStatus.RUNNING or task.attempt != attempt:
            return None
        return task

    def _settle(self, task: Task) -> Worker | None:
        worker = self._fleet.get(task.worker_id) if task.worker_id else None
        if worker is not None:
            settle(worker, task)
        return worker

    def _finish(self, task: Task, fact: TaskFact, out: list[Command], error: SwarmeshError | None = None) -> None:
        task.apply(fact)
        self.tasks.pop(task.task_id, None)
        self._record(task, out)
        if error is not None:
            out.append(FailTask(task.task_id, error))

    def _record(self, task: Task, out: list[Command]) -> None:
        if task.durable:
            out.append(RecordTask(task.task_id, task.status, task.attempt, task.worker_id))
