"""Hosts, workers and clients in virtual time around a `Swarm`, for tests of scaling: it answers every command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from swarmesh.core.commands import (
    BreakStream,
    Command,
    FailTask,
    RaiseAlarm,
    RecordLoadTime,
    SeekSites,
    SpawnWorker,
    StartStream,
    StopWorker,
)
from swarmesh.core.errors import SwarmeshError
from swarmesh.core.events import (
    Event,
    HostProbed,
    ModelScaled,
    ScalingPaused,
    SitesFound,
    SpawnFailed,
    StreamBroke,
    StreamEnded,
    TaskSubmitted,
    Ticked,
    WorkerGone,
    WorkerRegistered,
    WorkerWaggled,
)
from swarmesh.core.ids import HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.placement import HostCandidate
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scale_view import ScaleState
from swarmesh.core.swarm import Swarm

TICK_MS = 1_000
WAGGLE_MS = 10_000
SETTLED_MS = 10_000


@dataclass
class Machine:
    """One host; ``usable`` and the like as a seek will report them."""

    memory_mib: int = 10_000
    facts: dict[str, object] = field(default_factory=dict)
    down: str = ""


@dataclass
class Kind:
    """What workers of one model are like."""

    need_mib: int = 4_000
    slots: int = 2
    load_ms: int = 5_000
    task_ms: int = 1_000
    fails: str = ""
    hangs: bool = False
    dies_after_ms: int = 0


class ScaleBed:
    """Time moves in `run`; every command is answered after the delay that its kind says."""

    def __init__(self, *hosts: str, swarm: Swarm | None = None, **memory_mib: int) -> None:
        self.swarm = swarm or Swarm()
        self.machines = {host: Machine() for host in hosts} | {
            host: Machine(memory_mib=mib) for host, mib in memory_mib.items()
        }
        self.kinds: dict[str, Kind] = {}
        self.now_ms = 0
        self.seek_ms = 200
        self.stop_ms = 500
        self.answers_seeks = True
        self.out: list[Command] = []
        self.alive: dict[str, str] = {}
        self.homes: dict[str, str] = {}
        self.models: dict[str, str] = {}
        self.done: dict[str, int] = {}
        self.failed: dict[str, SwarmeshError] = {}
        self.alarms: list[RaiseAlarm] = []
        self.load_times: list[RecordLoadTime] = []
        self.seeks: list[SeekSites] = []
        self.spawned: list[str] = []
        self.stopped_busy: list[str] = []
        self.watch: Callable[[list[Command]], None] = lambda _commands: None
        self._pending: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = count()
        self._names = count(1)
        self._tick_ms = TICK_MS
        for host in self.machines:
            self._probe(host)
        self.at(0, self.tick)

    # what tests say

    def scale(self, model: str, low: int = 0, high: int = 1, *, paused: bool = False) -> list[Command]:
        """Give a model bounds; an empty name is all of them."""
        self.kinds.setdefault(model, Kind())
        return self.handle(ModelScaled(ModelName(model), Bounds(low, high, paused)))

    def unscale(self, model: str) -> list[Command]:
        return self.handle(ModelScaled(ModelName(model), None))

    def pause(self, *, paused: bool = True) -> None:
        self.handle(ScalingPaused(paused))

    def submit(
        self,
        model: str = "a",
        name: str = "",
        *,
        durable: bool = False,
        key: str = "key",
        resumable: bool = True,
    ) -> str:
        name = name or f"t{next(self._names)}"
        known = {"model_known": True, "resumable": resumable}
        self.handle(
            TaskSubmitted(TaskId(name), ModelName(model), Priority.MEDIUM, KeyId(key), 100, 50, durable, **known)
        )
        return name

    def settle(self) -> ScaleBed:
        """Past the time in which a queen that has just started begins nothing."""
        self.run(SETTLED_MS + TICK_MS)
        return self

    def run(self, for_ms: int) -> None:
        """Let so much time pass."""
        until_ms = self.now_ms + for_ms
        while self._pending and self._pending[0][0] <= until_ms:
            at_ms, _, act = heappop(self._pending)
            self.now_ms = max(self.now_ms, at_ms)
            act()
        self.now_ms = until_ms

    def run_until(self, holds: Callable[[], object], limit_ms: int = 600_000) -> int:
        """Let time pass until something is so; how long it took."""
        began_ms = self.now_ms
        while not holds():
            assert self.now_ms - began_ms < limit_ms, "it never came to that"
            self.run(100)
        return self.now_ms - began_ms

    def at(self, at_ms: int, act: Callable[[], None]) -> None:
        """Do something at a time."""
        heappush(self._pending, (at_ms, next(self._serial), act))

    def load(self, model: str, rate_per_s: float, for_ms: int) -> None:
        """Submit interactive tasks evenly from now on."""
        step_ms = 1_000 / rate_per_s
        for number in range(int(for_ms / step_ms)):
            self.at(self.now_ms + int(number * step_ms), lambda: void(self.submit(model)))

    # what tests look at

    def state(self, model: str = "a") -> ScaleState:
        return self.swarm.scaler.state_of(ModelName(model), self.now_ms)

    def workers(self, model: str = "a") -> list[str]:
        """Those of a model that are there and not on their way out."""
        return [str(w.worker_id) for w in self.swarm.fleet.of_model(ModelName(model)).values() if w.may_serve]

    def serving(self, model: str = "a") -> int:
        return self.state(model).stats.serving

    def decisions(self, model: str = "a") -> list[tuple[str, int, str]]:
        """What was done, oldest first: kind, count and rule."""
        return [(str(one.kind), one.count, one.rule) for one in reversed(self.state(model).history)]

    # inside

    def handle(self, event: Event) -> list[Command]:
        self.out = self.swarm.handle(event, self.now_ms)
        commands = self.out
        self.watch(commands)
        for command in commands:
            self._do(command)
        return commands

    def tick(self) -> None:
        self.at(self.now_ms + self._tick_ms, self.tick)
        if self.now_ms % WAGGLE_MS == 0:
            for worker_id in list(self.alive):
                self._waggle(worker_id)
        self.handle(Ticked())

    def _do(self, command: Command) -> None:  # noqa: C901 - one case per kind of command
        match command:
            case SeekSites():
                self.seeks.append(command)
                if self.answers_seeks:
                    self.at(self.now_ms + self.seek_ms, lambda: self._answer(command))
            case SpawnWorker():
                self._spawn(command)
            case StopWorker():
                worker = self.swarm.fleet.get(command.worker_id)
                if worker is not None and worker.running:
                    self.stopped_busy.append(str(command.worker_id))
                self.at(self.now_ms + self.stop_ms, lambda: self.end_worker(str(command.worker_id), "stopped"))
            case StartStream():
                kind = self.kinds[command.model]
                task, attempt = command.task_id, command.attempt
                self.at(self.now_ms + kind.task_ms, lambda: self._end_task(task, attempt))
            case BreakStream():
                event = StreamBroke(command.task_id, command.attempt, command.blame, command.code, command.message)
                self.at(self.now_ms, lambda: void(self.handle(event)))
            case FailTask():
                self.failed[str(command.task_id)] = command.error
            case RaiseAlarm():
                self.alarms.append(command)
            case RecordLoadTime():
                self.load_times.append(command)
            case _:
                pass  # Nothing comes of it here.

    def _answer(self, command: SeekSites) -> None:
        sites, failures = [], []
        for host, machine in self.machines.items():
            if machine.down:
                failures.append((HostName(host), machine.down))
                continue
            self._probe(host)
            kind = self.kinds[command.model]
            site = {
                "host": HostName(host),
                "need_mib": kind.need_mib,
                "pools": self.swarm.memory.free(HostName(host)),
                "worker_id": WorkerId(f"{command.model}{next(self._names)}"),
                "slots": kind.slots,
                "workers": sum(home == host for home in self.homes.values()),
            }
            sites.append(HostCandidate(**(site | machine.facts)))
        self.handle(SitesFound(command.model, command.action, tuple(sites), tuple(failures)))

    def _probe(self, host: str) -> None:
        machine = self.machines[host]
        held = sum(
            self.kinds[self.models[worker_id]].need_mib for worker_id in self.alive if self.homes[worker_id] == host
        )
        self.handle(HostProbed(HostName(host), machine.memory_mib, machine.memory_mib - held))

    def _spawn(self, command: SpawnWorker) -> None:
        worker = self.swarm.fleet.get(command.worker_id)
        assert worker is not None
        worker_id, model = str(worker.worker_id), str(worker.model)
        kind = self.kinds[model]
        self.spawned.append(worker_id)
        self.homes[worker_id], self.models[worker_id] = str(worker.host), model
        if kind.hangs:
            return
        if kind.fails:
            event = SpawnFailed(command.worker_id, "spawn_failed", kind.fails)
            self.at(self.now_ms + kind.load_ms, lambda: void(self.handle(event)))
            return
        self.at(self.now_ms + kind.load_ms, lambda: self.register(worker_id))

    def register(self, worker_id: str, *, uptime_ms: int = 0) -> None:
        """A worker is ready, and says so."""
        if worker_id not in self.homes:  # It was ended while it was loading.
            return
        model, host = self.models[worker_id], self.homes[worker_id]
        kind = self.kinds[model]
        self.alive[worker_id] = model
        self.handle(
            WorkerRegistered(
                WorkerId(worker_id),
                ModelName(model),
                "cpu",
                HostName(host),
                f"{host}:1",
                kind.slots,
                ready=True,
                uptime_ms=uptime_ms,
                need_mib=kind.need_mib,
            )
        )
        self._waggle(worker_id)
        if kind.dies_after_ms:
            self.at(self.now_ms + kind.dies_after_ms, lambda: self.end_worker(worker_id, "its engine crashed"))

    def adopt(self, worker_id: str, model: str, host: str, *, uptime_ms: int = 60_000) -> None:
        """A worker that outlived the queen before introduces itself."""
        self.models[worker_id], self.homes[worker_id] = model, host
        self.register(worker_id, uptime_ms=uptime_ms)

    def end_worker(self, worker_id: str, reason: str) -> None:
        """Its process is gone."""
        if worker_id in self.swarm.fleet:
            self.alive.pop(worker_id, None)
            self.homes.pop(worker_id, None)
            self.handle(WorkerGone(WorkerId(worker_id), reason))

    def _waggle(self, worker_id: str) -> None:
        kind = self.kinds[self.models[worker_id]]
        self.handle(WorkerWaggled(WorkerId(worker_id), True, 0.0, kind.need_mib, 1.0, 1, kind.slots))

    def _end_task(self, task_id: TaskId, attempt: int) -> None:
        task = self.swarm.dispatcher.tasks.get(task_id)
        if task is None or task.worker_id is None or task.attempt != attempt or task.worker_id not in self.alive:
            return
        self.done[str(task_id)] = self.now_ms
        self.handle(StreamEnded(task_id, attempt, completion_tokens=20, prompt_tokens=30, first_token_ms=100))


def small_bed(*models: str, memory_mib: int = 5_000, **facts: int) -> ScaleBed:
    """One host with memory for one worker."""
    bed = ScaleBed(elm=memory_mib).settle()
    for model in models:
        bed.kinds[model] = Kind(**({"load_ms": 2_000} | facts))
        bed.scale(model, 0, 1)
    return bed


def void(_value: object) -> None:
    """For lambdas that are called for what they do."""
