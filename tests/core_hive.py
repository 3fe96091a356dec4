"""A swarm in a test's hand: every call tells it one fact, and the commands that follow are kept."""

from __future__ import annotations

from typing import TypeVar

from swarmesh.core.commands import BreakStream, Command, FailTask, PreemptStream, RaiseAlarm, StartStream
from swarmesh.core.errors import SwarmeshError
from swarmesh.core.events import (
    Event,
    HostDrainRequested,
    HostLost,
    StreamBroke,
    StreamEnded,
    StreamProgressed,
    TaskCancelled,
    TaskSubmitted,
    Ticked,
    WorkerAlarmed,
    WorkerFellSilent,
    WorkerGone,
    WorkerHeard,
    WorkerRegistered,
    WorkerStopRequested,
    WorkerWaggled,
)
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import Blame, HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.roster import LOOK_STEP_MS_MAX
from swarmesh.core.swarm import Swarm
from swarmesh.core.task import Task

C = TypeVar("C", bound=Command)
HIGH, MEDIUM, LOW = Priority
PID = 70
"""Of every engine until a test says otherwise."""


class Hive:
    """A swarm and the time.

    Attributes:
        last: The commands of the last call.
    """

    def __init__(
        self,
        *workers: str,
        slots: int = 1,
        queue_max_per_key: int = 1_000,
        preemption: bool = True,
        amnesty_until_ms: int = 0,
    ) -> None:
        self.swarm = Swarm(
            queue_max_per_key=queue_max_per_key, preemption=preemption, amnesty_until_ms=amnesty_until_ms
        )
        self.now_ms = 1_000
        self.last: list[Command] = []
        self.tell(Ticked())  # The first look sets the clock, and ages nothing.
        for name in workers:
            self.register(name, slots=slots)

    def tell(self, event: Event) -> list[Command]:
        self.last = self.swarm.handle(event, self.now_ms)
        return self.last

    # workers

    def register(
        self,
        name: str,
        *,
        slots: int = 1,
        model: str = "qwen",
        ready: bool = True,
        engine_pid: int = PID,
        host: str = "oak",
        direct: bool = False,
    ) -> list[Command]:
        return self.tell(
            WorkerRegistered(
                WorkerId(name),
                ModelName(model),
                "cpu",
                HostName(host),
                "unix:/w",
                slots,
                ready,
                direct=direct,
                engine_pid=engine_pid,
            )
        )

    def waggle(self, name: str, *, slots: int = 1, ready: bool = True, engine_pid: int = PID) -> list[Command]:
        return self.tell(WorkerWaggled(WorkerId(name), ready, 0.0, 0, 1.0, engine_pid, slots))

    def alarm(self, name: str, code: str = "engine_died", *, returning: bool = False) -> list[Command]:
        return self.tell(WorkerAlarmed(WorkerId(name), code, "signal 9", returning))

    def silent(self, *names: str) -> list[Command]:
        told = [command for name in names for command in self.tell(WorkerFellSilent(WorkerId(name), "not a byte"))]
        self.last = told
        return told

    def heard(self, name: str) -> list[Command]:
        return self.tell(WorkerHeard(WorkerId(name)))

    def stop(self, name: str, grace_ms: int = 0) -> list[Command]:
        return self.tell(WorkerStopRequested(WorkerId(name), grace_ms))

    def gone(self, name: str) -> list[Command]:
        return self.tell(WorkerGone(WorkerId(name), "exit status 1"))

    # hosts

    def settle(self, **workers_of: str) -> None:
        """Register workers, ``host="a b"``: those called a and b on that host."""
        for host, names in workers_of.items():
            for name in names.split():
                self.register(name, host=host)

    def lose(self, *hosts: str) -> list[Command]:
        told = [command for host in hosts for command in self.tell(HostLost(HostName(host), "ssh ended"))]
        self.last = told
        return told

    def drain(self, host: str, grace_ms: int = 30_000) -> list[Command]:
        return self.tell(HostDrainRequested(HostName(host), grace_ms))

    # tasks

    def submit(
        self,
        name: str,
        *,
        model: str = "qwen",
        priority: Priority = MEDIUM,
        key: str = "ada",
        durable: bool = False,
        known: bool = False,
        resumable: bool = True,
        fingerprint: int = 0,
    ) -> list[Command]:
        """Hand in a task; the question whether it would be refused, put just before, must have had the same answer."""
        event = TaskSubmitted(
            TaskId(name),
            ModelName(model),
            priority,
            KeyId(key),
            40,
            10,
            durable=durable,
            model_known=known,
            resumable=resumable,
            fingerprint=fingerprint,
        )
        foretold = self.swarm.dispatcher.refusal(event, self.now_ms)
        told = self.tell(event)
        refused = [command.error for command in self.all(FailTask) if command.task_id == name]
        assert [error.message for error in refused] == ([foretold.message] if foretold else [])
        return told

    def accept(
        self,
        name: str,
        *,
        priority: Priority = MEDIUM,
        attempts: int = 0,
        kills: int = 0,
        running_on: str | None = None,
        fingerprint: int = 0,
    ) -> list[Command]:
        """A durable task that a queen before this one had accepted."""
        return self.tell(
            TaskSubmitted(
                TaskId(name),
                ModelName("qwen"),
                priority,
                KeyId("ada"),
                40,
                10,
                durable=True,
                resumable=True,
                fingerprint=fingerprint,
                accepted=True,
                attempts=attempts,
                kills=kills,
                running_on=WorkerId(running_on) if running_on else None,
            )
        )

    def end(self, name: str, attempt: int = 1) -> list[Command]:
        return self.tell(StreamEnded(TaskId(name), attempt))

    def progress(self, name: str, attempt: int = 1) -> list[Command]:
        return self.tell(StreamProgressed(TaskId(name), attempt))

    def cut(
        self,
        name: str,
        attempt: int = 0,
        *,
        code: str = "stream_cut",
        blame: Blame = Blame.WORKER,
        resumable: bool = True,
        final: bool = False,
    ) -> list[Command]:
        """A stream broke: the present one unless an attempt is given."""
        task = self.swarm.dispatcher.tasks.get(TaskId(name))
        number = attempt or (task.attempt if task else 1)
        return self.tell(
            StreamBroke(TaskId(name), number, blame, code, "the connection closed", resumable=resumable, final=final)
        )

    def crash(self, name: str) -> list[Command]:
        """A stream broke, and the agent said that the engine crashed by itself."""
        return self.cut(name, code="engine_crashed")

    def cut_as_asked(self, *, resumable: bool = True) -> list[Command]:
        """Report every stream broken that the last call wanted broken, in that order."""
        told: list[Command] = []
        for command in self.all(BreakStream):
            told += self.tell(
                StreamBroke(
                    command.task_id, command.attempt, command.blame, command.code, command.message, resumable=resumable
                )
            )
        self.last = told
        return told

    def cancel(self, name: str) -> list[Command]:
        return self.tell(TaskCancelled(TaskId(name)))

    # time

    def tick(self, after_ms: int = 1_000) -> list[Command]:
        """One look, however long the queen slept before it."""
        self.now_ms += after_ms
        return self.tell(Ticked())

    def wait(self, ms: int) -> list[Command]:
        """So much time passes, and the queen is awake for all of it."""
        told: list[Command] = []
        while ms > 0:
            step_ms = min(ms, LOOK_STEP_MS_MAX)
            told += self.tick(step_ms)
            ms -= step_ms
        self.last = told
        return told

    # what came of it

    def worker(self, name: str) -> Worker:
        worker = self.swarm.fleet.get(WorkerId(name))
        assert worker is not None
        return worker

    def task(self, name: str) -> Task:
        return self.swarm.dispatcher.tasks[TaskId(name)]

    def is_open(self, name: str) -> bool:
        return name in self.swarm.dispatcher.tasks

    def all(self, kind: type[C]) -> list[C]:
        return [command for command in self.last if isinstance(command, kind)]

    def only(self, kind: type[C]) -> C:
        found = self.all(kind)
        assert len(found) == 1, self.last
        return found[0]

    def starts(self) -> list[tuple[str, str, int]]:
        return [(c.task_id, c.worker_id, c.attempt) for c in self.all(StartStream)]

    def preempted(self) -> list[str]:
        return [command.task_id for command in self.all(PreemptStream)]

    def alarms(self) -> list[tuple[str, str]]:
        return [(command.worker_id, command.code) for command in self.all(RaiseAlarm)]

    def failure(self) -> SwarmeshError:
        return self.only(FailTask).error

    def failure_of(self, name: str) -> SwarmeshError:
        return next(command.error for command in self.all(FailTask) if command.task_id == name)

    def failures(self) -> dict[str, str]:
        return {command.task_id: command.error.code for command in self.all(FailTask)}

    def waiting(self, model: str = "qwen") -> list[str]:
        return [task.task_id for task in self.swarm.dispatcher.queue.waiting(ModelName(model))]

    def running(self, name: str) -> list[str]:
        return list(self.worker(name).running)

    def is_at_rest(self) -> bool:
        """Whether nothing is left of any task, neither on the books nor in the queue."""
        books = [worker for worker in self.swarm.fleet if worker.running or worker.backlog or worker.probation]
        dispatcher = self.swarm.dispatcher
        return not books and not dispatcher.tasks and not len(dispatcher.queue)
