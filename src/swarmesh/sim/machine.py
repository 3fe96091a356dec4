"""A virtual worker: its speed, its token logs, its waggles, and the ways in which it fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

from swarmesh.core.events import Event, WorkerAlarmed, WorkerRegistered, WorkerWaggled
from swarmesh.core.ids import HostName, ModelName, TaskId, WorkerId
from swarmesh.core.poison import ENGINE_CRASHED
from swarmesh.sim.answer import continuation
from swarmesh.sim.clock import Action
from swarmesh.sim.execution import Execution, Stream
from swarmesh.sim.surroundings import SILENT, Condition, Surroundings

PREFILL_TOKENS_PER_S: Final = 600
DECODE_TOKENS_PER_S: Final = 30
"""Medians; one machine is easily three times as fast as another."""
SPEED_SIGMA: Final = 0.5
LOADING_MS: Final = (1_000, 20_000)
NEED_MIB: Final = 4_000
ALARM_MS: Final = (20, 500)
"""Until the agent notices that its engine is dead and the queen hears of it."""
RESTART_MS: Final = (500, 15_000)
LINGER_MS: Final = 600_000
"""How long a durable task goes on with nobody listening."""
LOGS_MAX: Final = 256
RETRY_MS: Final = 5_000
"""Between two waggles while nobody answers."""
ENGINE_DIED: Final = "engine_died"
ENGINE_STUCK: Final = "engine_stuck"


@dataclass(slots=True, eq=False)
class Machine:
    """One worker process and the engine it owns.

    Attributes:
        offered_slots: What it tells the queen; may differ from what it has.
        ended: It will not start again.
        cut_off: Its network is gone.
        outage: Rises whenever it falls silent and whenever it can be heard again.
        stall_ms: How late the next waggle is.
        epoch: The highest life of a queen it has heard of.
        life: Rises with every start of the process.
        engine_pid: Another one after each start of the engine.
        logs: What it knows of tasks, those that run and those that are over.
    """

    worker_id: WorkerId
    model: ModelName
    host: HostName
    slots: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    loading_ms: int
    rng: Random
    world: Surroundings
    condition: Condition = Condition.OFF
    offered_slots: int = 0
    ended: bool = False
    cut_off: bool = False
    outage: int = 0
    stall_ms: int = 0
    epoch: int = 0
    engine_pid: int = 0
    logs: dict[TaskId, Execution] = field(default_factory=dict)
    life: int = 0
    _resumes_as: Condition = Condition.READY
    _missed: list[Action] = field(default_factory=list)

    @property
    def silent(self) -> bool:
        """Nothing that it sends gets through."""
        return self.cut_off or self.condition in SILENT

    @property
    def running(self) -> list[Execution]:
        """What the engine works on, in the order of its beginning."""
        return [execution for execution in self.logs.values() if not execution.over]

    def service_ms(self, prompt_tokens: float, output_tokens: float) -> float:
        """How long a stream of that size takes here."""
        return 1_000 * (prompt_tokens / self.prefill_tokens_per_s + output_tokens / self.decode_tokens_per_s)

    def boot(self) -> None:
        """Start the process: it registers, loads its model and waggles from now on."""
        self.life += 1
        self.epoch = 0
        self.logs.clear()
        self._load(self.loading_ms)
        self.register()
        self._waggle_later()

    def register(self) -> None:
        """Introduce itself to the queen, for the first time or again."""
        if self.condition is Condition.OFF or self.silent:
            return
        ready = self.condition is Condition.READY
        where, slots = f"unix:/{self.worker_id}", self.offered_slots
        self.world.tell(
            WorkerRegistered(
                self.worker_id, self.model, "cpu", self.host, where, slots, ready, engine_pid=self.engine_pid
            )
        )

    def execute(self, stream: Stream, shown: bytes) -> None:
        """Run a task from where it stands; one that is not ready refuses the connection, a wedged one never answers."""
        if not self._admits(stream):
            self.world.cut(stream, "stale")
            return
        if self.condition not in (Condition.READY, Condition.WEDGED):
            self.world.cut(stream, "refused")
            return
        request = stream.request
        before = self.logs.pop(request.task.task_id, None)
        if before is not None:
            before.end(self.world.clock.now_ms)
        tokens = continuation(request.answer, shown)
        doom = request.crashes_at
        execution = Execution(
            request=request,
            epoch=stream.epoch,
            attempt=stream.attempt,
            first_seq=len(shown) + 1,
            tokens=tokens if doom is None else tokens[: max(0, doom - len(shown))],
            first_ms=self.world.clock.now_ms + self.service_ms(request.prompt_tokens + len(shown), 1),
            step_ms=1_000 / self.decode_tokens_per_s,
            crashes=doom is not None,
        )
        self._make_room()
        self.logs[request.task.task_id] = execution
        self._listen(stream, execution)
        if self.condition is Condition.WEDGED:
            execution.freeze(self.world.clock.now_ms)
        self._plan(execution)

    def haunt(self, sent: Stream, shown: bytes) -> None:
        """A request arrives again, or at last, whose sender does not wait for the answer any more."""
        if self.condition is Condition.READY and not self.silent:
            late = Stream(sent.request, sent.epoch, sent.attempt, sent.worker_id)
            self.execute(late, shown)
            self.drop(late)

    def attach(self, stream: Stream, after: int) -> bool:
        """Send what the log of a task has after a number, and what follows; False when it has no such place."""
        execution = self.logs.get(stream.request.task.task_id)
        if execution is None or not self._admits(stream):
            return False
        taken = after - (execution.first_seq - 1)
        if not 0 <= taken <= execution.produced(self.world.clock.now_ms):
            return False
        execution.epoch, execution.attempt = stream.epoch, stream.attempt
        stream.taken = taken
        self._listen(stream, execution)
        if execution.over:
            self._deliver_end(execution)
        return True

    def drop(self, stream: Stream) -> None:
        """The connection is closed from the other side, if that can be heard; the slot is free at once."""
        execution = stream.execution
        if execution is not None and execution.stream is stream and not self.silent:
            execution.stream = None
            execution.end(self.world.clock.now_ms, "cancelled")

    def lose_queen(self) -> None:
        """Her connections are gone: durable tasks go on alone for a while, others end."""
        if self.silent:
            return
        for execution in self.running:
            if execution.stream is not None:
                self._lost_listener(execution, execution.stream)

    def crash(self, restart_ms: int, alarm_ms: int, code: str = ENGINE_DIED, culprit: TaskId | None = None) -> None:
        """The engine dies; the agent cries for help and starts it again."""
        seen = [] if self.silent else [execution.request.task.task_id for execution in self.running]
        self.world.crashed(self.worker_id, code, culprit, seen)
        self.lose_streams(code)
        self._load(restart_ms)
        alarm = WorkerAlarmed(self.worker_id, code, "it ended", returning=True)
        self._later(alarm_ms, lambda: self._send(alarm))

    def wedge(self, noticed_ms: int, restart_ms: int) -> None:
        """The engine stands still until the agent kills it."""
        self.condition = Condition.WEDGED
        for execution in self.running:
            execution.freeze(self.world.clock.now_ms)
        pid = self.engine_pid
        self._later(noticed_ms, lambda: self.crash(restart_ms, 0, ENGINE_STUCK) if pid == self.engine_pid else None)

    def end(self) -> None:
        """The whole process is gone, now and for good."""
        self.life += 1
        self._missed.clear()
        self.condition, self.ended = Condition.OFF, True
        self.lose_streams("rustbee_exited")

    def hang(self, wake_ms: int) -> None:
        """Fall silent without closing anything; after ``wake_ms`` the process is started anew."""
        self.life += 1
        self._still(Condition.HUNG)
        self._later(wake_ms, self._wake)

    def pause(self, wake_ms: int) -> None:
        """Stand still, then go on as if nothing had been."""
        self._resumes_as = self.condition
        self._still(Condition.PAUSED)
        life = self.life
        self.world.clock.after(wake_ms, lambda: self._resume() if life == self.life else None)

    def partition(self, heal_ms: int) -> None:
        """Work on where nobody hears it."""
        self.cut_off = True
        self.world.fell_silent(self)
        self.world.clock.after(heal_ms, self._heal)

    def lose_streams(self, code: str) -> None:
        """Every task ends where it stands; who listens sees the connection close, if that can be heard."""
        for execution in self.running:
            execution.end(self.world.clock.now_ms, code)
            if execution.stream is not None and not self.silent:
                self.world.cut(execution.stream, code)

    def waggle_now(self) -> None:
        """Report."""
        load_ratio = min(1.0, len(self.running) / max(1, self.offered_slots))
        ready = self.condition is Condition.READY
        report = WorkerWaggled(self.worker_id, ready, load_ratio, NEED_MIB, 1.0, self.engine_pid, self.offered_slots)
        if self.world.waggle(self, report) is None:
            self.register()

    def _still(self, condition: Condition) -> None:
        was_silent = self.silent
        self.condition = condition
        for execution in self.running:
            execution.freeze(self.world.clock.now_ms)
        if not was_silent:
            self.world.fell_silent(self)

    def _wake(self) -> None:
        # Its sockets close with the process.
        for execution in self.running:
            execution.end(self.world.clock.now_ms, "rustbee_exited")
        self.condition = Condition.OFF
        self._heard()
        self.boot()

    def _resume(self) -> None:
        self.condition = self._resumes_as
        for execution in self.running:
            if self.condition is not Condition.WEDGED:
                execution.thaw(self.world.clock.now_ms)
                self._plan(execution)
        missed, self._missed = self._missed, []
        self._heard()
        for action in missed:
            action()

    def _heal(self) -> None:
        if self.cut_off:
            self.cut_off = False
            self._heard()
            if self.condition not in (Condition.OFF, *SILENT):
                self.waggle_now()

    def _heard(self) -> None:
        if self.silent:
            return
        self.world.heard_again(self)
        for execution in list(self.logs.values()):
            stream = execution.stream
            if stream is None:
                continue
            if stream.closed or stream.dead:
                self._lost_listener(execution, stream)
            elif execution.over:
                self._deliver_end(execution)

    def _lost_listener(self, execution: Execution, stream: Stream) -> None:
        execution.stream = None
        if execution.over:
            return
        if execution.request.task.durable and not stream.closed:
            self._linger(execution)
        else:
            execution.end(self.world.clock.now_ms, "cancelled")

    def _linger(self, execution: Execution) -> None:
        def give_up() -> None:
            if execution.stream is None and not execution.over:
                execution.end(self.world.clock.now_ms, "cancelled")

        self._later(LINGER_MS, give_up)

    def _admits(self, stream: Stream) -> bool:
        """Fences: nothing from an earlier queen, and no earlier attempt at a task that is known."""
        if stream.epoch < self.epoch:
            return False
        self.epoch = stream.epoch
        known = self.logs.get(stream.request.task.task_id)
        return known is None or (stream.epoch, stream.attempt) > (known.epoch, known.attempt)

    def _listen(self, stream: Stream, execution: Execution) -> None:
        stream.execution = execution
        execution.stream = stream
        self.world.accepted(self, stream)

    def _plan(self, execution: Execution) -> None:
        if execution.still_ms is not None:
            return
        execution.plan += 1
        plan = execution.plan
        delay_ms = execution.due_ms - self.world.clock.now_ms
        self.world.clock.after(delay_ms, lambda: self._due(execution) if plan == execution.plan else None)

    def _due(self, execution: Execution) -> None:
        if execution.over or execution.still_ms is not None:
            return
        if execution.crashes:
            seen = execution.stream is not None and not self.silent
            culprit = execution.request.task.task_id if seen else None
            self.crash(self.rng.randint(*RESTART_MS), self.rng.randint(*ALARM_MS), ENGINE_CRASHED, culprit)
            return
        execution.end(self.world.clock.now_ms)
        self._deliver_end(execution)

    def _deliver_end(self, execution: Execution) -> None:
        if execution.stream is None or self.silent:
            return
        if execution.code:
            self.world.cut(execution.stream, execution.code)
        else:
            self.world.finish(execution.stream)

    def _load(self, loading_ms: int) -> None:
        self.condition = Condition.LOADING
        self.engine_pid += 1
        pid = self.engine_pid
        self._later(loading_ms, lambda: self._loaded() if pid == self.engine_pid else None)

    def _loaded(self) -> None:
        if self.condition is Condition.LOADING:
            self.condition = Condition.READY

    def _make_room(self) -> None:
        over = [task_id for task_id, execution in self.logs.items() if execution.over]
        for task_id in over[: max(0, len(over) - LOGS_MAX + 1)]:
            del self.logs[task_id]

    def _waggle_later(self) -> None:
        interval_ms = self.world.waggle(self, None)
        if interval_ms is None:
            self.register()
            interval_ms = self.world.waggle(self, None)
        stall_ms, self.stall_ms = self.stall_ms, 0
        self._later((RETRY_MS if interval_ms is None else interval_ms) + stall_ms, self._waggle)

    def _waggle(self) -> None:
        self.waggle_now()
        self._waggle_later()

    def _send(self, event: Event) -> None:
        if not self.silent:
            self.world.tell(event)

    def _later(self, delay_ms: float, action: Action) -> None:
        # What an earlier life had planned does not happen in the next one; what a paused one had planned, late.
        life = self.life

        def act() -> None:
            if life != self.life:
                return
            if self.condition is Condition.PAUSED:
                self._missed.append(act)
            else:
                action()

        self.world.clock.after(delay_ms, act)


def draw_machine(
    rng: Random, world: Surroundings, worker_id: WorkerId, model: ModelName, host: HostName, sizes: tuple[int, ...]
) -> Machine:
    """A machine of random size and speed."""
    slots = rng.choice(sizes)
    return Machine(
        worker_id=worker_id,
        model=model,
        host=host,
        slots=slots,
        offered_slots=slots,
        prefill_tokens_per_s=PREFILL_TOKENS_PER_S * rng.lognormvariate(0.0, SPEED_SIGMA),
        decode_tokens_per_s=DECODE_TOKENS_PER_S * rng.lognormvariate(0.0, SPEED_SIGMA),
        loading_ms=rng.randint(*LOADING_MS),
        rng=Random(f"{worker_id}/{slots}"),
        world=world,
    )
