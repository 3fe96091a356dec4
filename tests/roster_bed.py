"""A swarm whose workers come, report, stop and go, and the time."""

from __future__ import annotations

from typing import TypeVar

from swarmesh.core.commands import Command
from swarmesh.core.events import (
    Event,
    SpawnRequested,
    StreamBroke,
    StreamEnded,
    TaskSubmitted,
    Ticked,
    WorkerAlarmed,
    WorkerGone,
    WorkerRegistered,
    WorkerStopRequested,
    WorkerWaggled,
)
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import Blame, HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.liveness import EXPIRY_FACTOR, WorkerStatus
from swarmesh.core.roster import LOOK_STEP_MS_MAX, REST_INTERVAL_MS
from swarmesh.core.swarm import Swarm

C = TypeVar("C", bound=Command)
A, B = WorkerId("a"), WorkerId("b")
QWEN, DEMO, OAK = ModelName("qwen"), ModelName("demo"), HostName("oak")
EXPIRY_MS = int(REST_INTERVAL_MS * EXPIRY_FACTOR)
DEAD, DRAINING, HEALTHY = WorkerStatus.DEAD, WorkerStatus.DRAINING, WorkerStatus.HEALTHY
STARTING, SUSPECT = WorkerStatus.STARTING, WorkerStatus.SUSPECT


class Hive:
    """A swarm and the time; every call tells it one fact and keeps the commands."""

    def __init__(self, *ready: WorkerId, slots: int = 2) -> None:
        self.swarm = Swarm()
        self.now_ms = 1_000
        self.last: list[Command] = []
        self.made = 0
        self.tell(Ticked())  # The first look sets the clock, and ages nothing.
        for name in ready:
            self.register(name, slots=slots)

    def tell(self, event: Event) -> list[Command]:
        self.last = self.swarm.handle(event, self.now_ms)
        return self.last

    def register(
        self, name: WorkerId = A, *, slots: int = 2, model: ModelName = QWEN, ready: bool = True, pid: int = 0
    ) -> list[Command]:
        return self.tell(WorkerRegistered(name, model, "cpu", OAK, "unix:/w", slots, ready, pid=pid))

    def waggle(self, name: WorkerId = A, *, ready: bool = True, slots: int = 2) -> list[Command]:
        return self.tell(WorkerWaggled(name, ready, 0.25, 300, 0.5, 77, slots))

    def submit(self, count: int = 1) -> list[Command]:
        for _ in range(count):
            self.made += 1
            self.tell(TaskSubmitted(TaskId(f"t{self.made}"), QWEN, Priority.MEDIUM, KeyId("k"), 40, 10))
        return self.last

    def alarm(self, name: WorkerId = A, *, returning: bool = False) -> list[Command]:
        return self.tell(WorkerAlarmed(name, "engine_died", "signal 9", returning))

    def stop(self, name: WorkerId = A, grace_ms: int = 5_000) -> list[Command]:
        return self.tell(WorkerStopRequested(name, grace_ms))

    def gone(self, name: WorkerId = A) -> list[Command]:
        return self.tell(WorkerGone(name, "exit status 1"))

    def spawn(self, name: WorkerId = A, need_mib: int = 4_000) -> list[Command]:
        return self.tell(SpawnRequested(name, QWEN, "cpu", OAK, 2, need_mib))

    def tick(self, after_ms: int) -> list[Command]:
        """So much time passes, and the queen is awake for all of it."""
        told: list[Command] = []
        while after_ms > 0:
            step_ms = min(after_ms, LOOK_STEP_MS_MAX)
            self.now_ms += step_ms
            after_ms -= step_ms
            told += self.tell(Ticked())
        self.last = told
        return told

    def cut(self, name: str, attempt: int = 1) -> list[Command]:
        return self.tell(StreamBroke(TaskId(name), attempt, Blame.WORKER, "cut", "closed"))

    def end(self, name: str) -> list[Command]:
        return self.tell(StreamEnded(TaskId(name), 1))

    def worker(self, name: WorkerId = A) -> Worker:
        worker = self.swarm.fleet.get(name)
        assert worker is not None
        return worker

    def all(self, kind: type[C]) -> list[C]:
        return [command for command in self.last if isinstance(command, kind)]

    def free_mib(self) -> int:
        return self.swarm.memory.free(OAK)[0].free_mib
