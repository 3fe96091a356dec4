"""One life of the queen in the virtual world: she feeds a core, does what it commands, and may die at any moment."""

from __future__ import annotations

from functools import partial
from typing import Final, assert_never

import msgspec

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
from swarmesh.core.events import Event, HostLost, StreamBegan, StreamBroke, StreamEnded, StreamProgressed, TaskSubmitted
from swarmesh.core.ids import Blame, HostName, TaskId, WorkerId
from swarmesh.core.poison import ENGINE_CRASHED
from swarmesh.core.swarm import Swarm
from swarmesh.core.task import TaskStatus
from swarmesh.sim.checkers import demand
from swarmesh.sim.client import Client
from swarmesh.sim.clock import Action
from swarmesh.sim.disk import FLUSH_MS, Row
from swarmesh.sim.execution import Stream
from swarmesh.sim.links import VirtualLinks
from swarmesh.sim.machine import Machine
from swarmesh.sim.realm import Realm
from swarmesh.sim.runner import Runner
from swarmesh.sim.watch import Watch
from swarmesh.sim.workload import Request

AMNESTY_MS: Final = 60_000
FULL_CHECK_EVERY: Final = 1_000
"""Events between two looks at the whole state; what one event touched is looked at every time."""
DISK_FULL: Final = "storage_full"


class VirtualQueen:
    """From her start to her end.

    Attributes:
        epoch: Number of this life.
        alive: She has not crashed.
        paused: She does not run now; what reaches her waits.
        woke_ms: When she last began to run.
    """

    def __init__(self, world: Realm, epoch: int, *, check: bool) -> None:
        self.clock = world.clock
        self.epoch = epoch
        self.alive = True
        self.paused = False
        self.woke_ms = self.now_ms
        self.swarm = Swarm(amnesty_until_ms=self.now_ms + AMNESTY_MS if epoch > 1 else 0)
        self.watch = Watch(self.swarm, amnesty_until_ms=self.now_ms + AMNESTY_MS if epoch > 1 else 0) if check else None
        self.runners: dict[TaskId, Runner] = {}
        self.links = VirtualLinks(self)
        self._world = world
        self._inbox: list[Action] = []
        self._paused_ms = 0
        self._codes: dict[TaskId, str] = {}
        self._told = 0

    @property
    def now_ms(self) -> int:
        """The core's clock."""
        return self.clock.now_ms

    def soon(self, action: Action) -> None:
        """Do it now, or when she runs again, or never."""
        if not self.alive:
            return
        if self.paused:
            self._inbox.append(action)
        else:
            action()

    def post(self, event: Event) -> None:
        """Tell the core, as soon as she runs."""
        self.soon(partial(self.tell, event))

    def tell(self, event: Event) -> None:
        """Give the core one fact and do what it commands."""
        if self.watch is not None:
            self.watch.before(event)
        commands = self.swarm.handle(event, self.now_ms)
        self._world.told(event, commands)
        if self.watch is not None:
            self.watch.step(event, commands, self.now_ms)
            self._told += 1
            if self._told % FULL_CHECK_EVERY == 0:
                self.watch.full()
        for command in commands:
            self._execute(command)

    def pause(self) -> None:
        """Stand still."""
        self.paused = True
        self._paused_ms = self.now_ms

    def resume(self, first: Event) -> None:
        """Go on: a tick comes before everything that has waited."""
        self.paused = False
        self.woke_ms = self.now_ms
        inbox, self._inbox = self._inbox, []
        self.tell(first)
        for action in inbox:
            self.soon(action)

    def submit(self, client: Client) -> None:
        """Take a request in, or refuse it; a durable one once it is safe. The same one again is the same task."""
        task = client.request.task
        if client.end is not None:
            return  # It left while it waited to be heard.
        runner = self.runners.get(task.task_id)
        row = self._world.disk.records.get(task.task_id)
        if runner is not None or row is not None:
            client.accepted = True
            if runner is None and row is not None and row.status.is_final:
                self._tell_end(client, row)
            elif runner is not None and client.request.followed:
                runner.follow(client, client.seen, self.now_ms)
            return
        if not task.durable:
            client.accepted = True
            self._hand_in(client, task)
            return
        refusal = self.swarm.dispatcher.refusal(task, self.now_ms)
        if refusal is not None:
            self._world.crowd.refused(client, refusal.code)
        elif not self._world.disk.insert(client.request, lambda: self.soon(partial(self._inserted, client))):
            self._world.crowd.refused(client, DISK_FULL)

    def follow(self, client: Client) -> None:
        """A client comes back and wants the rest."""
        runner = self.runners.get(client.task_id)
        row = self._world.disk.records.get(client.task_id)
        if runner is not None:
            if client.request.followed:
                runner.follow(client, client.seen, self.now_ms)
        elif row is not None and row.status.is_final:
            self._tell_end(client, row)
        else:
            self._world.crowd.unknown(client)

    def take_up(self) -> None:
        """Hand in what the queen before left: first what runs on workers that are here, last what never ran."""
        rows = self._world.disk.unfinished()
        for row in sorted(rows, key=self._turn):
            task = row.request.task
            accepted = msgspec.structs.replace(
                task, accepted=True, attempts=row.attempts, kills=row.kills, running_on=row.worker_id
            )
            kept = bytes(self._world.disk.tokens.get(task.task_id, b""))
            runner = self._runner(row.request)
            runner.shown += kept
            runner.handed_on, runner.handed_on_ms = len(kept), self.now_ms
            runner.rejoins = row.worker_id
            self.tell(accepted)
        if self.watch is not None:
            self.watch.order_kept([row.request.task.task_id for row in rows if not row.attempts])

    def lose_host(self, host: HostName, machines: list[Machine]) -> None:
        """The connection to a host is gone, and everything that came over it."""
        self.tell(HostLost(host, "the connection closed"))
        for machine in machines:
            self.links.cut(machine)

    def crash(self) -> None:
        """Die. What had reached her clients stays theirs; what was not safe is gone."""
        flush_ms = self._world.disk.safe_until_ms() // FLUSH_MS * FLUSH_MS
        flushed = []
        for runner in self.runners.values():
            runner.pull(self._hears_ms())
            if runner.request.task.durable and (rows := runner.flushed_by(min(flush_ms, self._hears_ms()))):
                flushed.append(rows)
            if runner.stream is not None:
                runner.stream.dead = True
        self.alive = False
        self._world.disk.crash(flushed)

    def runners_on(self, worker_id: WorkerId) -> list[Runner]:
        """Tasks whose streams come from that worker."""
        return [runner for runner in self.runners.values() if runner.stream and runner.stream.worker_id == worker_id]

    def is_current(self, stream: Stream) -> bool:
        """Whether that stream speaks for its task."""
        runner = self.runners.get(stream.request.task.task_id)
        return self.alive and runner is not None and runner.stream is stream

    def finished(self, stream: Stream) -> None:
        """A stream brought its end mark: the client has its answer."""
        runner = self.runners.get(stream.request.task.task_id)
        if runner is None or runner.stream is not stream or stream.execution is None:
            return
        runner.pull(self.now_ms)
        usage = stream.execution.usage
        demand(usage == len(runner.shown), "{} has usage {} and {} tokens", stream, usage, len(runner.shown))
        runner.detach()
        self._world.spokesmen.dismiss(runner.task_id)
        if not runner.request.task.durable:
            self._over(runner, TaskStatus.DONE)
        self.tell(StreamEnded(runner.task_id, stream.attempt, usage))

    def broke(self, stream: Stream, code: str, blame: Blame = Blame.WORKER) -> None:
        """A stream is over without its end mark."""
        runner = self.runners.get(stream.request.task.task_id)
        if runner is None or runner.stream is not stream:
            return
        runner.pull(self.now_ms)
        runner.flush(self.now_ms)
        runner.detach()
        self._world.drop(stream)
        self._world.spokesmen.dismiss(runner.task_id)
        resumable = runner.request.task.resumable or not runner.shown
        words = "the connection closed"
        self.tell(StreamBroke(runner.task_id, stream.attempt, blame, code, words, resumable=resumable))

    def progressed(self, stream: Stream) -> None:
        """A stream whose first token the core wants to hear of has brought it."""
        for wanted, fact in ((stream.timed, StreamBegan), (stream.watched, StreamProgressed)):
            if wanted and self.is_current(stream) and stream.arrived(self.now_ms):
                self.tell(fact(stream.request.task.task_id, stream.attempt))

    def _inserted(self, client: Client) -> None:
        client.accepted = True
        # Whether it may come in was asked before it was kept.
        self._hand_in(client, msgspec.structs.replace(client.request.task, checked=True))

    def _hand_in(self, client: Client, task: TaskSubmitted) -> None:
        runner = self._runner(client.request)
        if client.request.followed:
            runner.follow(client, 0, self.now_ms)
        self.tell(task)

    def _runner(self, request: Request) -> Runner:
        runner = Runner(request, self._world.disk, self._world.spokesmen)
        self.runners[request.task.task_id] = runner
        return runner

    def _turn(self, row: Row) -> tuple[int, int]:
        if row.worker_id is not None:
            return (0 if row.worker_id in self.swarm.fleet else 1), row.serial
        return (2 if row.attempts else 3), row.serial

    def _hears_ms(self) -> int:
        return self._paused_ms if self.paused else self.now_ms

    def _execute(self, command: Command) -> None:
        match command:
            case StartStream():
                self._start(command)
            case CancelStream():
                if (runner := self.runners.get(command.task_id)) is not None:
                    self._stop(runner)
                    if not runner.request.task.durable:
                        del self.runners[command.task_id]
                        self._world.spokesmen.forget(command.task_id)
            case PreemptStream():
                self._preempt(self.runners[command.task_id])
            case BreakStream():
                self._break_off(command)
            case FailTask():
                runner = self.runners[command.task_id]
                self._codes[command.task_id] = command.error.code
                if not runner.request.task.durable:
                    self._over(runner, TaskStatus.FAILED)
            case RecordTask():
                self._record(command)
            case _:
                self._affect(command)

    def _affect(
        self,
        command: SpawnWorker | SeekSites | RecordLoadTime | RefuseSpawn | StopWorker | ForgetWorker | RaiseAlarm,
    ) -> None:
        match command:
            case SpawnWorker():
                self._world.places.start_worker(command.worker_id, command.gpus)
            case StopWorker():
                self._world.places.stop_worker(command.worker_id)
            case ForgetWorker():
                self._world.places.strike_worker(command.worker_id)
            case RaiseAlarm():
                self._world.alarm(self, command)
            case RefuseSpawn():
                self._world.places.refuse_worker(command.worker_id)
            case SeekSites():
                self._world.places.seek_sites(self, command)
            case RecordLoadTime():
                self._world.places.learned(command)
            case _:
                assert_never(command)

    def _start(self, command: StartStream) -> None:
        runner = self.runners[command.task_id]
        demand(runner.stream is None, "{} while another stream of the task is open", command)
        where, wanted = (command.attempt, command.worker_id), (command.watched, command.timed)
        stream = Stream(runner.request, self.epoch, *where, *wanted)
        runner.stream = stream
        self._world.spokesmen.appoint(command.task_id, self.epoch, command.attempt)
        self._world.started(stream, command.queue_ms)
        rejoins, runner.rejoins = runner.rejoins == command.worker_id, None
        self._world.send(self, stream, bytes(runner.shown), rejoins=rejoins)

    def _preempt(self, runner: Runner) -> None:
        execution = runner.stream.execution if runner.stream is not None else None
        if execution is not None and execution.code == ENGINE_CRASHED:
            self._world.crowd.client(runner.task_id).unheard += 1
        runner.pull(self.now_ms)
        runner.flush(self.now_ms)
        self._stop(runner)

    def _stop(self, runner: Runner) -> None:
        stream = runner.detach()
        if stream is not None:
            self._world.drop(stream)
        self._world.spokesmen.dismiss(runner.task_id)

    def _break_off(self, command: BreakStream) -> None:
        runner = self.runners.get(command.task_id)
        if runner is not None and runner.stream is not None and runner.stream.attempt == command.attempt:
            execution = runner.stream.execution
            if command.code == ENGINE_CRASHED and (execution is None or not execution.over):
                # News of a crash that was over when the task came; the core cannot know.
                self._world.crowd.client(command.task_id).struck += 1
            self._world.drop(runner.stream)
            self._world.close_later(self, runner.stream, command.code, command.blame)

    def _record(self, command: RecordTask) -> None:
        runner = self.runners[command.task_id]
        if command.status.is_final:
            runner.flush(self.now_ms)

        def change(row: Row) -> Row:
            return msgspec.structs.replace(
                row,
                status=command.status,
                attempts=command.attempt,
                kills=command.kills,
                worker_id=command.worker_id if command.status is TaskStatus.RUNNING else None,
                code=self._codes.get(command.task_id, ""),
            )

        def safe() -> None:
            if command.status.is_final:
                self._over(runner, command.status)

        self._world.disk.update(command.task_id, change, safe)

    def _over(self, runner: Runner, status: TaskStatus) -> None:
        self.runners.pop(runner.task_id, None)
        self._world.spokesmen.forget(runner.task_id)
        code = self._codes.pop(runner.task_id, "")
        client = self._world.crowd.client(runner.task_id)
        if client.leaving and not client.request.task.durable:
            return  # It has hung up.
        if runner.follower is not None or not client.request.followed:
            self._world.crowd.ended(client, status, code)

    def _tell_end(self, client: Client, row: Row) -> None:
        tokens = bytes(self._world.disk.tokens.get(client.task_id, b""))[client.seen :]
        if tokens and client.request.followed:
            client.receive(client.seen + 1, tokens, self.now_ms)
        self._world.crowd.ended(client, row.status, row.code)
