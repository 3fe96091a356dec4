"""Feeds events to the core and does what it commands: the one place where decisions meet the world."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, assert_never

import structlog

from swarmesh.core.commands import (
    BreakStream,
    CancelStream,
    Command,
    FailTask,
    ForgetWorker,
    PreemptStream,
    RaiseAlarm,
    RecordLoadTime,
    RecordTask,
    RefuseSpawn,
    SeekSites,
    SpawnWorker,
    StartStream,
    StopWorker,
)
from swarmesh.core.errors import InternalError, SwarmeshError
from swarmesh.core.events import Event, StreamBroke, StreamEnded, TaskSubmitted
from swarmesh.core.ids import Blame, ModelName, TaskId
from swarmesh.core.swarm import Swarm
from swarmesh.queen.decision_book import NOBODY, DecisionBook
from swarmesh.queen.links import Links, WorkerLink
from swarmesh.queen.refusal_book import RefusalBook

log = structlog.get_logger("driver")


class Runner(Protocol):
    """Whoever carries a task's answer to its client. Nothing here may block or raise.

    Attributes:
        submitted: What is asked of the swarm.
    """

    @property
    def submitted(self) -> TaskSubmitted:
        """See above; it does not change."""

    def start(self, command: StartStream, link: WorkerLink) -> None:
        """Open the stream; its end comes back as an event."""

    def stop(self) -> None:
        """Close the stream; the task is over."""

    def preempt(self) -> None:
        """Close the stream and keep what was shown: the task goes on later, maybe elsewhere."""

    def break_off(self, command: BreakStream) -> None:
        """The worker is lost: close the stream and report ``StreamBroke``."""

    def fail(self, error: SwarmeshError) -> None:
        """Tell the client that the task ended in ``error``."""


class Effects(Protocol):
    """What the core can do to the world besides streams."""

    def record_task(self, command: RecordTask) -> None:
        """Write a durable task's state."""

    def spawn_worker(self, command: SpawnWorker) -> None:
        """Start a worker's process."""

    def seek_sites(self, command: SeekSites) -> None:
        """Find out where a worker could be started; the answer comes back as an event."""

    def record_load_time(self, command: RecordLoadTime) -> None:
        """Keep how long a model takes to be ready on a host."""

    def refuse_spawn(self, command: RefuseSpawn) -> None:
        """Tell whoever asked."""

    def stop_worker(self, command: StopWorker) -> None:
        """End a worker's process; asked again now and then until it is gone."""

    def forget_worker(self, command: ForgetWorker) -> None:
        """Strike it from the hivecomb."""

    def raise_alarm(self, command: RaiseAlarm) -> None:
        """Let people know."""


class Driver:
    """Owns the core. Everything runs on the event loop's thread; `post` may be called from within a command.

    Attributes:
        book: What was decided about tasks, and what became of it.
        refused: Tasks that nobody works on any more, and why.
        has_model: Whether there is anything to start a worker of a model from.
    """

    def __init__(self, swarm: Swarm, links: Links) -> None:
        self.swarm = swarm
        self.links = links
        self.book = DecisionBook()
        self.refused = RefusalBook()
        self.effects: Effects | None = None
        self.has_model: Callable[[ModelName], bool] = lambda _model: True
        self._runners: dict[TaskId, Runner] = {}
        self._events: deque[Event] = deque()
        self._draining = False

    def run(self, runner: Runner) -> None:
        """Hand in a task together with whoever carries its answer."""
        submitted = runner.submitted
        self._runners[submitted.task_id] = runner
        self.post(submitted)

    def ended(self, report: StreamEnded, name: str = "") -> None:
        """An answer is whole, and its task over for its runner; ``name`` is what the answer calls itself."""
        self._runners.pop(report.task_id, None)
        self.book.ended(report, name)
        self.post(report)

    def post(self, event: Event) -> None:
        """Tell the core a fact and do what it commands, before returning (or right after the commands under way)."""
        self._events.append(event)
        if self._draining:
            return
        self._draining = True
        try:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, StreamBroke):
                    self.book.broke(event)
                for command in self.swarm.handle(event, now_ms()):
                    try:
                        self._execute(command)
                    except Exception:  # An edge: what one task does wrong must not take the others' commands along
                        log.exception("command_failed", command=type(command).__name__)
                        self._not_done(command)
        finally:
            self._draining = False

    def _not_done(self, command: Command) -> None:
        if isinstance(command, StartStream):
            words = "the queennode could not start this task"
            self.post(StreamBroke(command.task_id, command.attempt, Blame.TASK, InternalError.code, words))

    def _execute(self, command: Command) -> None:
        match command:
            case StartStream():
                self._start(command)
            case CancelStream():
                self.book.took_back(command)
                if (runner := self._runners.pop(command.task_id, None)) is not None:
                    runner.stop()
            case PreemptStream():
                self.book.took_back(command)
                if (runner := self._runners.get(command.task_id)) is not None:
                    runner.preempt()
            case BreakStream():
                if (runner := self._runners.get(command.task_id)) is not None:
                    runner.break_off(command)
            case FailTask():
                self.book.failed(command)
                if (runner := self._runners.pop(command.task_id, None)) is not None:
                    self.refused.add(runner.submitted, command.error)
                    runner.fail(command.error)
            case _:
                self._affect(command)

    def _affect(
        self,
        command: RecordTask
        | SpawnWorker
        | SeekSites
        | RecordLoadTime
        | RefuseSpawn
        | StopWorker
        | ForgetWorker
        | RaiseAlarm,
    ) -> None:
        assert self.effects is not None, "effects are wired before the first event"
        match command:
            case RecordTask():
                self.effects.record_task(command)
            case SpawnWorker():
                self.effects.spawn_worker(command)
            case SeekSites():
                self.effects.seek_sites(command)
            case RecordLoadTime():
                self.effects.record_load_time(command)
            case RefuseSpawn():
                self.effects.refuse_spawn(command)
            case StopWorker():
                self.effects.stop_worker(command)
            case ForgetWorker():
                self.links.remove(command.worker_id)
                self.effects.forget_worker(command)
            case RaiseAlarm():
                self.effects.raise_alarm(command)
            case _:
                assert_never(command)

    def _start(self, command: StartStream) -> None:
        runner = self._runners.get(command.task_id)
        try:
            self.book.started(command, runner.submitted.key_id if runner is not None else NOBODY)
        except Exception:  # An edge: a task does not fail because it could not be written down why it started
            log.exception("decision_not_kept", task=command.task_id)
        link = self.links.get(command.worker_id)
        if runner is None:
            return  # The client left while the command was on its way; its cancellation follows.
        if link is None:
            words = f"the way to {command.worker_id} is not known"
            self.post(StreamBroke(command.task_id, command.attempt, Blame.WORKER, "no_link", words))
            return
        runner.start(command, link)


def now_ms() -> int:
    """The core's clock: milliseconds that never go back."""
    return time.monotonic_ns() // 1_000_000
