"""A virtual swarm that scales itself: the core decides, hosts and processes do as they are told, or fail to."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Final

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
from swarmesh.core.events import (
    Event,
    ModelScaled,
    SitesFound,
    SpawnFailed,
    SpawnProgressed,
    StreamBroke,
    StreamEnded,
    TaskSubmitted,
    Ticked,
    WorkerGone,
)
from swarmesh.core.ids import Blame, HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.swarm import Swarm
from swarmesh.sim.clock import Clock
from swarmesh.sim.scaling.host import Host
from swarmesh.sim.scaling.plan import SEEK_MS, SPAWN_MS, Ask, Plan
from swarmesh.sim.scaling.requests import Requests
from swarmesh.sim.scaling.watch import ScaleWatch
from swarmesh.sim.scaling.worker import ScaledWorker, Stage

TICK_MS: Final = 1_000
ENDING_MS: Final = (50, 3_000)
NOTICED_MS: Final = (10, 500)
"""Until the queen knows that a process has ended by itself."""
PROGRESS_MS: Final = 10_000
NETWORK_MS: Final = 5
FIRST_TOKEN_MS: Final = 150
TOKEN_MS: Final = 25
DURABLE_SHARE: Final = 0.2
REST_MS: Final = 15 * 60_000
"""How long the world goes on when everybody has had an answer."""
CALM_MS_MAX: Final = 3_600_000
"""After the last request has come, everybody has an answer within this time."""


class ScalingWorld:
    """One run of one plan."""

    def __init__(self, plan: Plan) -> None:
        self.clock = Clock()
        self.plan = plan
        self.swarm = Swarm(seed=plan.seed)
        self.hosts = {host.name: Host(host) for host in plan.hosts}
        self.models = {model.name: model for model in plan.models}
        self.requests = Requests()
        self.watch = ScaleWatch(plan, self.swarm)
        self.workers: dict[WorkerId, ScaledWorker] = {}
        self._offers: dict[WorkerId, tuple[ModelName, HostName]] = {}
        self._rng = Random(f"{plan.trace}/{plan.seed}/world")
        self._made = 0

    def run(self) -> None:
        """Live through the plan, and on until nothing is left to be done."""
        plan = self.plan
        for host in self.hosts.values():
            self._tell(host.probe())
            host.files.update(name for name in self.models if self._rng.random() < 0.5)
        if plan.bounds_of_all is not None:
            self._tell(ModelScaled(ModelName(""), plan.bounds_of_all))
        for model in plan.models:
            if model.bounds is not None:
                self._tell(ModelScaled(model.name, model.bounds))
        for at_ms, act in plan.acts:
            self.clock.after(at_ms, partial(self._tell, act))
        for ask in plan.asks:
            self.clock.after(ask.at_ms, partial(self._submit, ask))
        self._tick()
        while self.clock.now_ms < plan.until_ms or (self.requests.open and self._time_left()):
            self.clock.advance()
        rest_ms = self.clock.now_ms + REST_MS
        while self.clock.now_ms < rest_ms:
            self.clock.advance()
        self.watch.rest(self.clock.now_ms)

    def _time_left(self) -> bool:
        return self.clock.now_ms < self.plan.until_ms + CALM_MS_MAX

    def _tell(self, event: Event) -> None:
        commands = self.swarm.handle(event, self.clock.now_ms)
        self.watch.step(event, commands, self.clock.now_ms)
        for command in commands:
            self._execute(command)

    def _tick(self) -> None:
        self._tell(Ticked())
        self.clock.after(TICK_MS, self._tick)

    def _submit(self, ask: Ask) -> None:
        request = self.requests.come(ask, self.clock.now_ms)
        self._tell(
            TaskSubmitted(
                task_id=request.task_id,
                model=ask.model,
                priority=Priority.MEDIUM,
                key_id=KeyId("key"),
                prompt_chars=400,
                max_tokens=0,
                model_known=True,
                resumable=True,
                durable=self._rng.random() < DURABLE_SHARE,
            )
        )

    def _execute(self, command: Command) -> None:
        match command:
            case StartStream():
                self._start_stream(command)
            case BreakStream():
                self._break_stream(command)
            case FailTask():
                self.requests.failed(command.task_id, command.error.code)
            case CancelStream() | PreemptStream():
                raise AssertionError(f"nobody leaves and nothing is urgent here: {command}")
            case SeekSites() | SpawnWorker() | StopWorker():
                self._affect(command)
            case RecordTask() | RaiseAlarm() | RefuseSpawn() | ForgetWorker() | RecordLoadTime():
                pass

    def _affect(self, command: SeekSites | SpawnWorker | StopWorker) -> None:
        match command:
            case SeekSites():
                self.clock.after(self._rng.randint(*SEEK_MS), partial(self._look_round, command))
            case SpawnWorker():
                self._spawn(command)
            case StopWorker():
                if self._rng.random() >= self.plan.stop_lost_share:
                    self._stop(command.worker_id)

    def _break_stream(self, command: BreakStream) -> None:
        if self.workers[command.worker_id].streams.pop(command.task_id, None) == command.attempt:
            broke = StreamBroke(command.task_id, command.attempt, command.blame, command.code, command.message)
            self.clock.after(NETWORK_MS, partial(self._tell, broke))

    def _start_stream(self, command: StartStream) -> None:
        request = self.requests.started(command.task_id, self.clock.now_ms)
        worker = self.workers[command.worker_id]
        if worker.stage is not Stage.READY or worker.ending:
            refused = StreamBroke(command.task_id, command.attempt, Blame.WORKER, "stream_cut", "connection refused")
            self.clock.after(NETWORK_MS, partial(self._tell, refused))
            return
        worker.streams[command.task_id] = command.attempt
        took_ms = FIRST_TOKEN_MS + round(request.ask.work_ms / worker.host.plan.speed)
        self.clock.after(took_ms, partial(self._end_stream, worker, command.task_id, command.attempt, took_ms))

    def _end_stream(self, worker: ScaledWorker, task_id: TaskId, attempt: int, took_ms: int) -> None:
        if worker.streams.get(task_id) != attempt:
            return
        del worker.streams[task_id]
        self.requests.answered(task_id)
        self._tell(StreamEnded(task_id, attempt, max(1, took_ms // TOKEN_MS), 100, first_token_ms=FIRST_TOKEN_MS))

    def _look_round(self, command: SeekSites) -> None:
        """Measure all hosts; what is found is told a moment later, when it may be out of date."""
        sites = []
        for host in self.hosts.values():
            self._tell(host.probe())
            self._made += 1
            worker_id = WorkerId(f"rustbee-{self._made}")
            self._offers[worker_id] = command.model, host.plan.name
            sites.append(host.site(self.models[command.model], worker_id, self.swarm.memory.free(host.plan.name)))
        found = SitesFound(command.model, command.action, tuple(sites))
        self.clock.after(self._rng.choice((0, 0, NETWORK_MS, 500)), partial(self._tell, found))

    def _spawn(self, command: SpawnWorker) -> None:
        model, host = self._offers[command.worker_id]
        worker = ScaledWorker(command.worker_id, self.models[model], self.hosts[host])
        self.workers[command.worker_id] = worker
        worker.host.take(worker.worker_id, worker.model.need_mib)
        self.watch.taken(worker.host)
        copy_ms = 0 if model in worker.host.files else worker.model.copy_ms
        start_ms = copy_ms + self._rng.randint(*SPAWN_MS)
        for at_ms in range(PROGRESS_MS, start_ms, PROGRESS_MS):
            self.clock.after(at_ms, partial(self._progress, worker))
        self.clock.after(start_ms, partial(self._begin, worker))

    def _progress(self, worker: ScaledWorker) -> None:
        if worker.stage is Stage.STARTING:
            self._tell(SpawnProgressed(worker.worker_id))

    def _begin(self, worker: ScaledWorker) -> None:
        if worker.stage is not Stage.STARTING:
            return
        worker.host.files.add(worker.model.name)
        fails = self._rng.random() < self.plan.start_fails_share
        if fails and self._rng.random() < 0.5:
            self._over(worker)
            self._tell(SpawnFailed(worker.worker_id, "engine_start_failed", "exit status 1"))
            return
        worker.stage = Stage.LOADING
        self._tell(worker.registration())
        load_ms = round(worker.model.load_ms / worker.host.plan.speed)
        self.clock.after(load_ms * (0.5 if fails else 1.0), partial(self._die if fails else self._loaded, worker))
        self._waggle_later(worker)

    def _loaded(self, worker: ScaledWorker) -> None:
        if worker.stage is not Stage.LOADING:
            return
        worker.stage = Stage.READY
        worker.host.loaded.add(worker.worker_id)
        if self.plan.dies_every_ms:
            self.clock.after(self._rng.expovariate(1 / self.plan.dies_every_ms), partial(self._die, worker))

    def _waggle_later(self, worker: ScaledWorker) -> None:
        known = self.swarm.fleet.get(worker.worker_id)
        if known is not None:
            self.clock.after(known.interval_ms, partial(self._waggle, worker))

    def _waggle(self, worker: ScaledWorker) -> None:
        if worker.stage is not Stage.GONE:
            self._tell(worker.report())
            self._waggle_later(worker)

    def _stop(self, worker_id: WorkerId) -> None:
        worker = self.workers[worker_id]
        if not worker.ending and worker.stage is not Stage.GONE:
            worker.ending = True
            self.clock.after(self._rng.randint(*ENDING_MS), partial(self._die, worker))

    def _die(self, worker: ScaledWorker) -> None:
        """A process ends, as asked or by itself; its connections close, and in time the queen knows."""
        if worker.stage is Stage.GONE:
            return
        streams = self._over(worker)
        for task_id, attempt in streams.items():
            self._tell(StreamBroke(task_id, attempt, Blame.WORKER, "stream_cut", "the connection closed"))
        gone = WorkerGone(worker.worker_id, "stopped" if worker.ending else "exit status 137")
        self.clock.after(self._rng.randint(*NOTICED_MS), partial(self._tell, gone))

    def _over(self, worker: ScaledWorker) -> dict[TaskId, int]:
        worker.stage = Stage.GONE
        worker.host.free(worker.worker_id)
        streams, worker.streams = worker.streams, {}
        return streams
