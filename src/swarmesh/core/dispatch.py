"""The life of tasks: admitted or refused, placed or queued, ended, moved, preempted or failed."""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.core import refusals
from swarmesh.core.admission import QUEUE_MAX_PER_KEY, Admission
from swarmesh.core.candidates import SERVING, veto
from swarmesh.core.commands import (
    BreakStream,
    CancelStream,
    Command,
    FailTask,
    PreemptStream,
    RecordTask,
    StartStream,
)
from swarmesh.core.decision import POLICY_PREEMPT, POLICY_RETURN, Decision
from swarmesh.core.delays import Delays
from swarmesh.core.errors import PoisonTaskError, SwarmeshError
from swarmesh.core.events import StreamBegan, StreamBroke, StreamEnded, StreamProgressed, TaskCancelled, TaskSubmitted
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import Blame, ModelName, Priority, TaskId
from swarmesh.core.limits import Limits
from swarmesh.core.liveness import WorkerFact, following
from swarmesh.core.look_ahead import LookAhead
from swarmesh.core.patience import Patience
from swarmesh.core.poison import ENGINE_CRASHED
from swarmesh.core.preemption import Victims, is_overdue
from swarmesh.core.queue import BroodQueue
from swarmesh.core.routing import Router
from swarmesh.core.script_guard import Scripted
from swarmesh.core.script_patience import ScriptPatience
from swarmesh.core.task import Task, TaskFact, TaskStatus
from swarmesh.core.witness import Witness

# Looked up once: a member of an enum costs a call each time it is taken from its class.
_DISPATCHED: Final = TaskFact.DISPATCHED
_ENDED: Final = TaskFact.ENDED
_RUNNING: Final = TaskStatus.RUNNING
_LOW: Final = Priority.LOW


class Dispatcher:
    """Owns tasks and the queue; reads the fleet and keeps its ledger."""

    def __init__(
        self,
        fleet: Fleet,
        router: Router,
        *,
        queue_max_per_key: int = QUEUE_MAX_PER_KEY,
        preemption: bool = True,
        scripted: Scripted | None = None,
    ) -> None:
        self.tasks: dict[TaskId, Task] = {}
        self.limits = Limits()
        self.queue = BroodQueue(self.limits.holds)
        self.limits.on_change = self.queue.look_again
        self.limits.waiting = self.queue.size_of_key
        self._fleet = fleet
        self._router = router
        self._scripted = scripted if scripted is not None else Scripted()
        self.admission = Admission(fleet, self.queue, self.limits, self._scripted, queue_max_per_key)
        self.victims = Victims(fleet, self.tasks)
        self._preemption = preemption
        self._serial = 0
        self._preempted: dict[TaskId, Task] = {}
        self._patience = Patience(fleet, self.admission.expects)
        self._look_ahead = LookAhead(self.queue, self._scripted, router.changes)
        self._script_patience = ScriptPatience(router, self._scripted)
        self.delays = Delays()
        self.witness: Witness | None = None

    def submitted(self, event: TaskSubmitted, now_ms: int, out: list[Command]) -> None:
        """Start the task, queue it, or say why neither is possible."""
        task = self.admission.task(event, now_ms)
        assert task.task_id not in self.tasks, "task ids are made once"
        refusal = None if event.accepted else self.admission.not_let_in(task, now_ms, script_asked=event.checked)
        if self.witness is not None and not event.accepted:
            self.witness.let_in(task, refusal, now_ms)
        if refusal is None:
            self.limits.entered(task, now_ms)
            if (event.running_on and self._go_on(event, task, now_ms, out)) or self._start(task, now_ms, out):
                self.tasks[task.task_id] = task
                return
            # What was asked about before is on disk by now: to refuse it for those that came meanwhile would lose it.
            refusal = None if event.accepted or event.checked else self._not_queued(task, now_ms, event)
        if refusal is not None:
            self._finish(task, TaskFact.FAILED, out, refusal)
            return
        self.tasks[task.task_id] = task
        self.queue.push(task)
        self._preempt(task.model, now_ms, out)
        self.admission.supply.asked(task.model, now_ms, out)

    def refusal(self, event: TaskSubmitted, now_ms: int) -> SwarmeshError | None:
        """Why this task would be refused now, None when it would not; changes nothing.

        For whoever has to know before the task is made durable.
        """
        task = self.admission.task(event, now_ms)
        refusal = self.admission.not_let_in(task, now_ms)
        if refusal is not None and self.witness is not None:
            self.witness.let_in(task, refusal, now_ms)
        if refusal is not None or (self._may_start(task) and self._router.choose(task, now_ms).chosen is not None):
            return refusal
        return self._not_queued(task, now_ms, event)

    def ended(self, event: StreamEnded, now_ms: int, out: list[Command]) -> None:
        """Close the books of a task and give its slot to the next."""
        task = self._running(event.task_id, event.attempt)
        if task is None:
            return
        self._settle(task, now_ms, end=event)
        self.delays.took(task, event)
        self.limits.used(task, event, now_ms)
        self.queue.settle(task, event)
        self._finish(task, _ENDED, out)
        self.serve(task.model, now_ms, out)

    def began(self, event: StreamBegan, now_ms: int) -> None:
        """The prompt of a task is read: what its worker still has to read before another is known better."""
        if (task := self._running(event.task_id, event.attempt)) is not None:
            self._router.began(task, now_ms)

    def progressed(self, event: StreamProgressed, now_ms: int, out: list[Command]) -> None:
        """Clear a task of the suspicion that it crashes engines, unless it has come so far before."""
        task = self._running(event.task_id, event.attempt)
        if task is None or task.watched_to_end:
            return
        task.cleared = True
        worker = self._fleet.get(task.worker_id) if task.worker_id else None
        if worker is not None and worker.probation == task.task_id:
            worker.probation = None
            self.serve(task.model, now_ms, out)

    def broke(self, event: StreamBroke, now_ms: int, out: list[Command]) -> None:
        """Move the task to another worker, or fail it when that cannot help."""
        task = self._running(event.task_id, event.attempt)
        if task is None:
            return
        self._hold_against(event, task, now_ms)
        supplied = self.admission.supply.expects(task.model)
        error = refusals.reason_not_to_move(self._fleet, task, event, supplied=supplied)
        if error is not None:
            self._finish(task, TaskFact.FAILED, out, error)
            self._fail_twins(task, error, out)
        else:
            self._patience.send_back(task)
            self._requeue(task, now_ms, out)
        self.serve(task.model, now_ms, out)

    def cancelled(self, event: TaskCancelled, now_ms: int, out: list[Command]) -> None:
        """End a task wherever it stands; an unknown or final one is left alone."""
        task = self.tasks.get(event.task_id)
        if task is None:
            return
        if task.status is TaskStatus.RUNNING:
            self._settle(task, now_ms)
        else:
            self.queue.remove(task)
        self.limits.cancelled(task, event)
        self.queue.settle(task, event)
        out.append(CancelStream(task.task_id, task.attempt, task.worker_id))
        self._finish(task, TaskFact.CANCELLED, out)
        self.serve(task.model, now_ms, out)

    def serve(self, model: ModelName, now_ms: int, out: list[Command]) -> None:
        """Give free slots of a model to its waiting tasks, in order; then those of low tasks to urgent ones."""
        if self._fleet.changed:
            self._router.refresh(now_ms)
        if self.queue.has(model):
            self._fill(model, now_ms, out)
            self._preempt(model, now_ms, out)

    def serve_freed(self, now_ms: int, out: list[Command]) -> None:
        """Serve models of which tasks wait that their keys' limits have let go."""
        while (model := self.queue.take_freed()) is not None:
            self.serve(model, now_ms, out)

    def give_up_on(
        self, worker: Worker, code: str, message: str, out: list[Command], blame: Blame = Blame.WORKER
    ) -> None:
        """Ask for every stream of a lost worker to be broken; each comes back as an event of its own."""
        # The last first: each goes to the head of the queue, so they wait there in the order they came in.
        for task_id in reversed(worker.running):
            task = self.tasks[task_id]
            out.append(BreakStream(task_id, task.attempt, worker.worker_id, code, message, blame))

    def forgive(self, worker: Worker) -> None:
        """Let tasks that wait try a worker again that came back; `refusals.MOVES_MAX` bounds how often."""
        for task in self.queue.everyone(worker.model):
            if worker.worker_id not in task.barred:
                task.tried.discard(worker.worker_id)

    def lose_patience(self, now_ms: int, out: list[Command]) -> None:
        """Fail interactive tasks that wait for a worker nobody expects; let overdue preempted ones go first."""
        self.limits.look(now_ms)
        self._promote_overdue(now_ms)
        waited_for = dict.fromkeys(model for model, _ in self.queue.depths())  # No set: order must not vary by run.
        models = self._script_patience.in_turn(list(waited_for), now_ms)
        self._patience.look(models, now_ms)
        for model in models:
            for task in [task for task in self.queue.everyone(model) if self._patience.is_doubtful(task)]:
                self._patience.send_back(task)
                if self._patience.ends(task, now_ms):
                    self.queue.remove(task)
                    self._finish(task, TaskFact.FAILED, out, self.admission.nobody_for(task))
            for task in self._script_patience.kept_too_long(self.queue.everyone(model), now_ms):
                self.queue.remove(task)
                self._finish(task, TaskFact.FAILED, out, refusals.kept_from_all(self._scripted.name, task))
            self.serve(model, now_ms, out)

    def fail_waiting(self, model: ModelName, error: SwarmeshError, out: list[Command]) -> None:
        """Fail the interactive tasks that wait for a model that nobody will serve; durable ones go on waiting."""
        for task in [task for task in self.queue.waiting(model) if not task.durable]:
            self.queue.remove(task)
            self._finish(task, TaskFact.FAILED, out, error)

    def _go_on(self, event: TaskSubmitted, task: Task, now_ms: int, out: list[Command]) -> bool:
        # A worker that outlived the queen has gone on with its tasks: there, and nowhere else, nothing is lost.
        worker = self._fleet.get(event.running_on) if event.running_on else None
        if worker is None or worker.model != task.model or veto(worker, task) is not None:
            return False
        self._dispatch(task, Decision(task.task_id, POLICY_RETURN, worker.worker_id, 0.0, 1, ()), now_ms, out)
        return True

    def _may_start(self, task: Task) -> bool:
        # Nobody overtakes a task that could take the same slot; one that failed on whoever is free cannot.
        first = next(self.queue.ready(task.model), None) if self.queue.has(task.model) else None
        if first is not None and not self._look_ahead.is_choosy(first):
            return False
        return not (task.durable and self.limits.holds(task))

    def _start(self, task: Task, now_ms: int, out: list[Command]) -> bool:
        decision = self._router.choose(task, now_ms) if self._may_start(task) else None
        if decision is None or decision.chosen is None:
            return False
        self._dispatch(task, decision, now_ms, out)
        return True

    def _dispatch(self, task: Task, decision: Decision, now_ms: int, out: list[Command]) -> None:
        worker = self._fleet.get(decision.chosen) if decision.chosen else None
        assert worker is not None, "a decision names a known worker"
        if self.witness is not None:
            self.witness.chose(task, decision, now_ms)
        task.apply(_DISPATCHED)
        task.attempt += 1
        task.queue_ms += now_ms - task.queued_at_ms
        self._serial += 1
        worker.last_chosen = task.serial = self._serial
        task.engine_pid = worker.engine_pid
        if self._preempted:
            self._preempted.pop(task.task_id, None)
        self._router.dispatched(worker, task, now_ms)
        if task.band is _LOW:
            self.victims.add(task)
        self.queue.take(task)
        self.limits.started(task, now_ms)
        watched = task.kills > 0 and task.on_probation
        if watched:
            worker.probation = task.task_id
        if task.durable:
            self._record(task, out)
        name, wanted = worker.worker_id, (watched, task.is_timed)
        out.append(StartStream(task.task_id, task.attempt, name, task.model, task.queue_ms, decision, *wanted))

    def _requeue(self, task: Task, now_ms: int, out: list[Command]) -> None:
        task.apply(TaskFact.REQUEUED)
        self._wait_again(task, now_ms, out)

    def _fill(self, model: ModelName, now_ms: int, out: list[Command]) -> None:
        while (found := self._next_placeable(model, now_ms)) is not None:
            task, decision = found
            self._dispatch(task, decision, now_ms, out)

    def _preempt(self, model: ModelName, now_ms: int, out: list[Command]) -> None:
        while (found := self._next_preempting(model, now_ms)) is not None:
            task, victim, worker = found
            self._settle(victim, now_ms)
            victim.apply(TaskFact.PREEMPTED)
            victim.preemptions += 1
            victim.preempted_at_ms = now_ms
            self._preempted[victim.task_id] = victim
            out.append(PreemptStream(victim.task_id, victim.attempt, worker.worker_id))
            self._wait_again(victim, now_ms, out)
            decision = self._router.choose(task, now_ms)
            if decision.chosen is None:  # A script had let it go there, and does not any more.
                self._fill(model, now_ms, out)
                return
            self._dispatch(task, msgspec.structs.replace(decision, policy=POLICY_PREEMPT), now_ms, out)
            self._fill(model, now_ms, out)  # A slot that was nothing for the one may do for the other.

    def _next_preempting(self, model: ModelName, now_ms: int) -> tuple[Task, Task, Worker] | None:
        for task in self._look_ahead.candidates(model, now_ms):
            if task.band is not Priority.HIGH:
                break
            found = self._victim_for(task)
            if found is not None and not self._router.keeps(found[1], task, now_ms):
                return task, *found
        return None

    def _victim_for(self, task: Task) -> tuple[Task, Worker] | None:
        if not self._preemption or task.band is not Priority.HIGH or self.limits.holds(task):
            return None
        return self.victims.newest(task)

    def _not_queued(self, task: Task, now_ms: int, event: TaskSubmitted) -> SwarmeshError | None:
        found = self._victim_for(task)
        gets_a_slot = found is not None and not self._router.keeps(found[1], task, now_ms)
        return self.admission.not_queued(task, model_known=event.model_known, gets_a_slot=gets_a_slot)

    def _wait_again(self, task: Task, now_ms: int, out: list[Command]) -> None:
        task.worker_id = None
        task.queued_at_ms = now_ms
        self.limits.stopped(task)
        if task.durable:
            self._record(task, out)
        self.queue.push_front(task)

    def _promote_overdue(self, now_ms: int) -> None:
        # The last first: each goes to the head, so they stand there in the order they lost their slots in.
        for task in [task for task in reversed(self._preempted.values()) if is_overdue(task, now_ms)]:
            del self._preempted[task.task_id]
            self.queue.remove(task)
            task.band = Priority.HIGH
            self.queue.push_front(task)

    def _next_placeable(self, model: ModelName, now_ms: int) -> tuple[Task, Decision] | None:
        for task in self._look_ahead.candidates(model, now_ms):
            decision = self._router.choose(task, now_ms)
            if decision.chosen is not None:
                return task, decision
        return None

    def _hold_against(self, event: StreamBroke, task: Task, now_ms: int) -> None:
        blamed = event.blame is Blame.WORKER and event.code != refusals.NOT_READY
        worker = self._settle(task, now_ms, keep_probation=blamed)
        if event.code == refusals.NOT_READY:
            if worker is not None and worker.status in SERVING:  # It gets nothing more before it says that it can.
                worker.status = following(worker.status, WorkerFact.REPORTED_STARTING)
                self._fleet.note(worker)
            return
        task.moves += blamed
        if worker is None or not blamed:
            return
        worker.status = following(worker.status, WorkerFact.SUSPECTED)
        self._router.broke(worker, now_ms)
        task.tried.add(worker.worker_id)
        if event.final:
            task.barred.add(worker.worker_id)
        if event.code == ENGINE_CRASHED:
            self.admission.poison.blame(task, worker, now_ms)
        if worker.probation == task.task_id:
            worker.probation = None

    def _fail_twins(self, task: Task, error: SwarmeshError, out: list[Command]) -> None:
        if not isinstance(error, PoisonTaskError) or not task.fingerprint:
            return
        twins = [twin for twin in self.queue.waiting(task.model) if twin.fingerprint == task.fingerprint]
        for twin in twins:
            self.queue.remove(twin)
            self._finish(twin, TaskFact.FAILED, out, refusals.quarantined(task.kills))

    def _running(self, task_id: TaskId, attempt: int) -> Task | None:
        # A stream of an earlier attempt may still be talking; only the newest speaks for the task.
        task = self.tasks.get(task_id)
        if task is None or task.status is not _RUNNING or task.attempt != attempt:
            return None
        return task

    def _settle(
        self, task: Task, now_ms: int, *, keep_probation: bool = False, end: StreamEnded | None = None
    ) -> Worker | None:
        worker = self._fleet.get(task.worker_id) if task.worker_id else None
        if worker is not None:
            self._router.settled(worker, task, now_ms, end)
            if worker.probation == task.task_id and not keep_probation:
                worker.probation = None
        return worker

    def _finish(self, task: Task, fact: TaskFact, out: list[Command], error: SwarmeshError | None = None) -> None:
        task.apply(fact)
        self.tasks.pop(task.task_id, None)
        if self._preempted:
            self._preempted.pop(task.task_id, None)
        self.limits.over(task)
        self.queue.settle(task)
        if task.durable:
            self._record(task, out)
        if error is not None:
            out.append(FailTask(task.task_id, error))

    def _record(self, task: Task, out: list[Command]) -> None:
        out.append(RecordTask(task.task_id, task.status, task.attempt, task.worker_id, task.kills))
