"""Random facts in random orders, stale and doubled ones too; the swarm's promises hold after each."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swarmesh.core.commands import BreakStream, CancelStream, PreemptStream, StartStream
from swarmesh.core.events import (
    Event,
    GpuMemory,
    HostDrainRequested,
    HostLost,
    HostProbed,
    KeyLimited,
    KeyRevoked,
    SpawnFailed,
    SpawnProgressed,
    SpawnRequested,
    StreamBegan,
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
from swarmesh.core.ids import Blame, HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.swarm import Swarm
from swarmesh.sim.watch import Watch

QUEUE_MAX_PER_KEY = 12
WORKERS = 4
OAK = HostName("oak")
models = st.sampled_from([ModelName("qwen"), ModelName("qwen"), ModelName("demo")])
workers = st.sampled_from([WorkerId(f"bee-{number}") for number in range(WORKERS)])
hosts = st.sampled_from([OAK, HostName("elm")])
gpu_sets: st.SearchStrategy[tuple[int, ...]] = st.sampled_from([(), (0,), (0, 1), (1, 2)])
keys = st.sampled_from([KeyId("ada"), KeyId("bob")])
steps_ms = st.sampled_from([0, 1, 100, 2_000, 10_000, 40_000, 90_000, 200_000])
anything = st.integers(min_value=0, max_value=10_000)
breaks = {
    "blame": st.sampled_from(Blame),
    "code": st.sampled_from(["stream_cut", "engine_died", "engine_crashed"]),
    "resumable": st.sampled_from([True, True, False]),
    "final": st.sampled_from([False, False, True]),
}


class SwarmMachine(RuleBasedStateMachine):
    """Drives one swarm; `streams` are those its world really has open, by task."""

    def __init__(self) -> None:
        super().__init__()
        self.swarm = Swarm(queue_max_per_key=QUEUE_MAX_PER_KEY)
        self.watch = Watch(self.swarm)
        self.now_ms = 0
        self.watched: set[TaskId] = set()
        self.made = 0
        self.streams: dict[TaskId, int] = {}
        self.submitted: list[TaskId] = []

    def tell(self, event: Event) -> None:
        self.watch.before(event)
        commands = self.swarm.handle(event, self.now_ms)
        if isinstance(event, StreamEnded | StreamBroke) and self.streams.get(event.task_id) == event.attempt:
            del self.streams[event.task_id]
        for command in commands:
            match command:
                case StartStream():
                    assert command.task_id not in self.streams, "two streams for one task"
                    self.streams[command.task_id] = command.attempt
                    (self.watched.add if command.watched else self.watched.discard)(command.task_id)
                case PreemptStream():
                    assert self.streams.pop(command.task_id) == command.attempt
                case CancelStream():
                    running = self.streams.pop(command.task_id, None)
                    assert running == (command.attempt if command.worker_id else None)
                case BreakStream():
                    assert self.streams[command.task_id] == command.attempt
                case _:
                    pass
        self.watch.step(event, commands, self.now_ms)

    def fresh(self, kind: str) -> str:
        self.made += 1
        return f"{kind}-{self.made}"

    @initialize(slots=st.lists(st.integers(1, 3), max_size=3))
    def fleet_stands(self, slots: list[int]) -> None:
        for number, count in enumerate(slots):
            known = WorkerRegistered(
                WorkerId(f"bee-{number}"), ModelName("qwen"), "cpu", OAK, "unix:/w", count, ready=True
            )
            self.tell(known)

    @rule(step_ms=steps_ms)
    def time_passes(self, step_ms: int) -> None:
        self.now_ms += step_ms
        self.tell(Ticked())

    @rule(
        model=st.one_of(models, st.just(ModelName("")), st.just(ModelName("nobody"))),
        priority=st.sampled_from(Priority),
        key=keys,
        chars=anything,
        max_tokens=st.sampled_from([0, 1, 7, 4_096]),
        durable=st.booleans(),
        known=st.booleans(),
        resumable=st.booleans(),
        fingerprint=st.sampled_from([0, 1, 2, 3]),
        count=st.sampled_from([1, 1, 1, 2, 5, 9]),
    )
    def submit(
        self,
        *,
        model: ModelName,
        priority: Priority,
        key: KeyId,
        chars: int,
        max_tokens: int,
        durable: bool,
        known: bool,
        resumable: bool,
        fingerprint: int,
        count: int,
    ) -> None:
        for _ in range(count):
            task_id = TaskId(self.fresh("task"))
            self.submitted.append(task_id)
            self.tell(
                TaskSubmitted(task_id, model, priority, key, chars, max_tokens, durable, known, resumable, fingerprint)
            )

    @rule(
        model=models,
        priority=st.sampled_from(Priority),
        attempts=st.integers(0, 5),
        kills=st.integers(0, 1),
        running_on=st.one_of(st.none(), workers),
    )
    def hand_in_again(
        self, *, model: ModelName, priority: Priority, attempts: int, kills: int, running_on: WorkerId | None
    ) -> None:
        task_id = TaskId(self.fresh("task"))
        self.submitted.append(task_id)
        event = TaskSubmitted(
            task_id, model, priority, KeyId("ada"), 40, 10, durable=True, model_known=True, resumable=True
        )
        kept = {"accepted": True, "attempts": attempts, "kills": kills, "running_on": running_on}
        self.tell(msgspec.structs.replace(event, **kept))
        assert task_id in self.swarm.dispatcher.tasks, "what was accepted is not refused"

    @rule(key=keys, concurrency=st.sampled_from([0, 0, 1, 3]), tokens_per_minute=st.sampled_from([0, 0, 100, 9_000]))
    def limit_key(self, *, key: KeyId, concurrency: int, tokens_per_minute: int) -> None:
        self.tell(KeyLimited(key, concurrency, tokens_per_minute))

    @rule(key=keys)
    def revoke_key(self, key: KeyId) -> None:
        self.tell(KeyRevoked(key))

    @precondition(lambda self: self.submitted)
    @rule(which=anything)
    def cancel(self, which: int) -> None:
        self.tell(TaskCancelled(self.submitted[which % len(self.submitted)]))

    @precondition(lambda self: self.streams)
    @rule(which=anything, count=st.sampled_from([1, 1, 3, 10]))
    def end(self, which: int, count: int) -> None:
        for _ in range(min(count, len(self.streams))):
            self.tell(StreamEnded(*list(self.streams.items())[which % len(self.streams)]))

    @precondition(lambda self: self.streams)
    @rule(which=anything, count=st.sampled_from([1, 1, 3]), **breaks)
    def break_one(self, *, which: int, blame: Blame, code: str, resumable: bool, final: bool, count: int) -> None:
        for _ in range(min(count, len(self.streams))):
            task_id, attempt = list(self.streams.items())[which % len(self.streams)]
            self.tell(StreamBroke(task_id, attempt, blame, code, "the connection closed", resumable, final))

    @precondition(lambda self: self.streams)
    @rule(which=anything)
    def engine_crashes(self, which: int) -> None:
        """All streams of one worker break, one by one, because its engine crashed."""
        worker_id = self.swarm.dispatcher.tasks[list(self.streams)[which % len(self.streams)]].worker_id
        here = [task_id for task_id in self.streams if self.swarm.dispatcher.tasks[task_id].worker_id == worker_id]
        for task_id in here:
            attempt = self.streams.get(task_id)
            if attempt is not None and self.swarm.dispatcher.tasks[task_id].worker_id == worker_id:
                self.tell(StreamBroke(task_id, attempt, Blame.WORKER, "engine_crashed", "signal 11"))

    @precondition(lambda self: self.streams)
    @rule(which=anything)
    def progress(self, which: int) -> None:
        task_id, attempt = list(self.streams.items())[which % len(self.streams)]
        self.tell(StreamBegan(task_id, attempt))
        if task_id in self.watched:
            self.tell(StreamProgressed(task_id, attempt))

    @precondition(lambda self: self.submitted)
    @rule(which=anything, attempt=st.integers(0, 6), broke=st.booleans())
    def stale(self, *, which: int, attempt: int, broke: bool) -> None:
        task_id = self.submitted[which % len(self.submitted)]
        if self.streams.get(task_id) == attempt:
            return
        late = StreamBroke(task_id, attempt, Blame.WORKER, "stale", "late news")
        self.tell(late if broke else StreamEnded(task_id, attempt))

    @rule(
        worker=workers,
        model=st.one_of(st.none(), models),
        host=hosts,
        slots=st.integers(1, 4),
        ready=st.booleans(),
        direct=st.booleans(),
        need=st.sampled_from([0, 0, 3_000, 9_000]),
        gpus=gpu_sets,
    )
    def register(
        self,
        *,
        worker: WorkerId,
        model: ModelName | None,
        host: HostName,
        slots: int,
        ready: bool,
        direct: bool,
        need: int,
        gpus: tuple[int, ...],
    ) -> None:
        known = self.swarm.fleet.get(worker)
        model = model or (known.model if known else ModelName("qwen"))
        self.tell(
            WorkerRegistered(worker, model, "cpu", host, "unix:/w", slots, ready, direct, need_mib=need, gpus=gpus)
        )

    @rule(worker=workers, ready=st.booleans(), slots=st.integers(0, 4), engine_pid=st.sampled_from([7, 7, 8]))
    def waggle(self, *, worker: WorkerId, ready: bool, slots: int, engine_pid: int) -> None:
        self.tell(WorkerWaggled(worker, ready, 0.5, 100, 1.0, engine_pid, slots))

    @rule(worker=workers, heard=st.booleans())
    def fall_silent(self, *, worker: WorkerId, heard: bool) -> None:
        self.tell(WorkerHeard(worker) if heard else WorkerFellSilent(worker, "nothing for 5 s"))

    @rule(host=hosts)
    def lose_host(self, host: HostName) -> None:
        self.tell(HostLost(host, "ssh ended"))

    @rule(host=hosts, grace_ms=st.sampled_from([0, 5_000, 60_000]))
    def drain_host(self, host: HostName, grace_ms: int) -> None:
        self.tell(HostDrainRequested(host, grace_ms))

    @rule(worker=workers)
    def copy_model(self, worker: WorkerId) -> None:
        self.tell(SpawnProgressed(worker))

    @rule(worker=workers, returning=st.booleans())
    def alarm(self, *, worker: WorkerId, returning: bool) -> None:
        self.tell(WorkerAlarmed(worker, "engine_died", "signal 9", returning))

    @rule(worker=workers, grace_ms=st.sampled_from([0, 5_000, 60_000]))
    def stop(self, worker: WorkerId, grace_ms: int) -> None:
        self.tell(WorkerStopRequested(worker, grace_ms))

    @rule(worker=workers, failed=st.booleans())
    def gone(self, *, worker: WorkerId, failed: bool) -> None:
        late = SpawnFailed(worker, "engine_start_failed", "no such file")
        self.tell(late if failed else WorkerGone(worker, "exit status 0"))

    @rule(
        model=models,
        host=hosts,
        available=st.integers(0, 8_000),
        gpus_available=st.lists(st.integers(0, 4_000), max_size=3),
        need=st.integers(1, 6_000),
        gpus=gpu_sets,
    )
    def spawn(
        self,
        *,
        model: ModelName,
        host: HostName,
        available: int,
        gpus_available: list[int],
        need: int,
        gpus: tuple[int, ...],
    ) -> None:
        seen = tuple(GpuMemory(index, 4_000, mib) for index, mib in enumerate(gpus_available))
        self.tell(HostProbed(host, 8_000, available, seen))
        for number in range(WORKERS):
            worker = WorkerId(f"bee-{number}")
            if worker not in self.swarm.fleet:
                self.tell(SpawnRequested(worker, model, "cpu", host, 2, need, gpus))
                return

    @invariant()
    def everything_holds(self) -> None:
        self.watch.full()

    def teardown(self) -> None:
        """Let every stream end, then nothing may be left but tasks that wait for a worker."""
        while self.streams:
            self.tell(StreamEnded(*next(iter(self.streams.items()))))
        for task_id in list(self.watch.open):
            self.tell(TaskCancelled(task_id))
        self.watch.rest()
        assert self.watch.outcomes.total() == len(self.submitted)


TestSwarmMachine = SwarmMachine.TestCase
TestSwarmMachine.settings = settings(max_examples=400, stateful_step_count=60, deadline=None)
