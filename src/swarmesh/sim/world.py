"""Drives one `Swarm` through a virtual world: machines, clients and faults make facts, commands become deeds."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Final, assert_never

from swarmesh.core.commands import (
    BreakStream,
    CancelStream,
    Command,
    FailTask,
    ForgetWorker,
    RaiseAlarm,
    RecordTask,
    RefuseSpawn,
    SpawnWorker,
    StartStream,
    StopWorker,
)
from swarmesh.core.events import (
    Event,
    HostProbed,
    SpawnFailed,
    SpawnRequested,
    StreamBroke,
    StreamEnded,
    TaskCancelled,
    Ticked,
    WorkerGone,
)
from swarmesh.core.ids import Blame, HostName, ModelName, TaskId, WorkerId
from swarmesh.core.swarm import Swarm
from swarmesh.core.task import TaskStatus
from swarmesh.sim.checkers import InvariantBrokenError, demand
from swarmesh.sim.clock import Clock
from swarmesh.sim.faults import Faults
from swarmesh.sim.machine import NEED_MIB, Condition, Machine, Stream, draw_machine
from swarmesh.sim.result import Record, Result
from swarmesh.sim.scenario import Scenario
from swarmesh.sim.watch import Watch
from swarmesh.sim.workload import (
    OUTPUT_SIGMA,
    OUTPUT_TOKENS_MEDIAN,
    PROMPT_SIGMA,
    PROMPT_TOKENS_MEDIAN,
    Request,
    Workload,
    mean_tokens,
)

FULL_CHECK_EVERY: Final = 1_000
"""Events between two looks at the whole state; what one event touched is looked at every time."""
TICK_MS: Final = 1_000
NETWORK_MS: Final = (1, 5)
CLOSING_MS: Final = (0, 50)
"""Until the queen notices a closed connection."""
STARTING_MS: Final = (300, 1_500)
ENDING_MS: Final = (50, 2_000)
REPLACING_MS: Final = (1_000, 30_000)
START_FAILS_SHARE: Final = 0.05
STOP_LOST_SHARE: Final = 0.1
MACHINES_PER_HOST: Final = 4
HOST_MIB: Final = 20_000
CALM_MS_MAX: Final = 4 * 3_600_000
"""Virtual time within which every task must end once nothing new happens."""


class VirtualWorld:
    """One run. Attributes are for machines and faults; callers use `run`.

    Attributes:
        standing: One machine per place, the present one; those that ended for good are replaced.
        streams: What the queen relays, by task.
        calm: No new requests and no new trouble any more.
    """

    def __init__(self, scenario: Scenario, *, check: bool) -> None:
        self.clock = Clock()
        self.record = Record()
        self.calm = False
        self.swarm = Swarm()
        self.streams: dict[TaskId, Stream] = {}
        self._scenario = scenario
        self._watch = Watch(self.swarm) if check else None
        self._requests: dict[TaskId, Request] = {}
        self._machines: dict[WorkerId, Machine] = {}
        self._place: dict[WorkerId, int] = {}
        self._rng = Random(f"{scenario.seed}/world")
        self._made = 0
        self.standing = [self._draw(place) for place in range(scenario.workers)]
        self._faults = Faults(self, Random(f"{scenario.seed}/faults")) if scenario.faults else None
        self._workload = self._make_workload()

    def run(self) -> Result:
        """Live through the scenario, then bring every task to its end.

        Raises:
            InvariantBrokenError: Something that must always hold did not; the hint replays it.
        """
        try:
            self._live()
        except InvariantBrokenError as error:
            error.message = f"after {self.record.events} events, at {self.clock.now_ms} ms: {error.message}"
            error.hint = self._scenario.replay()
            raise
        return self.record.result(self._scenario.seed, self._scenario.workers, self.clock.now_ms)

    def tell(self, event: Event) -> None:
        """Give the core one fact and do what it commands."""
        now_ms = self.clock.now_ms
        commands = self.swarm.handle(event, now_ms)
        self.record.told(event, commands, now_ms, len(self.swarm.dispatcher.queue))
        if self._watch is not None:
            self._watch.step(event, commands, now_ms)
            if self.record.events % FULL_CHECK_EVERY == 0:
                self._watch.full()
        if self._faults is not None:
            self._faults.witness(event)
        for command in commands:
            self._execute(command)

    def asked_interval_ms(self, worker_id: WorkerId) -> int | None:
        """What the answer to a waggle would ask for; None when the worker is not known."""
        worker = self.swarm.fleet.get(worker_id)
        return worker.interval_ms if worker else None

    def finish(self, stream: Stream) -> None:
        """A stream reached its end mark: the client has its answer."""
        task_id = stream.request.task.task_id
        if self.streams.get(task_id) is not stream:
            return
        del self.streams[task_id]
        request = self._close(task_id)
        self.record.done += 1
        self.record.first_token_ms.append(stream.first_token_ms - request.submitted_ms)
        self.tell(StreamEnded(task_id, stream.attempt, request.output_tokens))

    def cut(self, stream: Stream, code: str = "stream_cut", blame: Blame = Blame.WORKER) -> None:
        """A stream's connection closed; the queen notices a moment later, unless the task is over by then."""
        shown = stream.first_token_ms <= self.clock.now_ms
        self.clock.after(self._rng.randint(*CLOSING_MS), partial(self._closed, stream, shown, code, blame))

    def probe(self, host: HostName) -> None:
        """Measure a host's memory."""
        used_mib = NEED_MIB * sum(
            machine.host == host and machine.condition is not Condition.OFF for machine in self.standing
        )
        self.tell(HostProbed(host, HOST_MIB, max(0, HOST_MIB - used_mib)))

    def _live(self) -> None:
        for place in range(self._scenario.workers):
            self._spawn(place)
        self._tick()
        self._arrive()
        if self._faults is not None:
            self._faults.start()
        while self.record.events < self._scenario.events:
            self.clock.advance()
        self._calm_down()
        until_ms = self.clock.now_ms + CALM_MS_MAX
        while self._requests and self.clock.now_ms < until_ms:
            self.clock.advance()
        self._check_rest()

    def _calm_down(self) -> None:
        self.calm = True
        for machine in self.standing:
            machine.offered_slots = machine.slots

    def _check_rest(self) -> None:
        demand(not self._requests, f"{len(self._requests)} tasks never ended: {list(self._requests)[:5]}")
        demand(not self.streams, f"streams are left of tasks that are over: {list(self.streams)[:5]}")
        demand(not self.swarm.dispatcher.tasks, "the core holds tasks that are over")
        if self._watch is None:
            return
        self._watch.rest()
        record, seen = self.record, self._watch.outcomes
        ends = (record.done, record.cancelled, record.failed.total())
        by_core = (seen[TaskStatus.DONE], seen[TaskStatus.CANCELLED], seen[TaskStatus.FAILED])
        demand(ends == by_core, f"clients saw {ends} done, cancelled and failed; the core decided {by_core}")
        demand(sum(ends) == record.submitted, f"{record.submitted} tasks had {sum(ends)} ends")

    def _make_workload(self) -> Workload:
        prompt = mean_tokens(PROMPT_TOKENS_MEDIAN, PROMPT_SIGMA)
        output = mean_tokens(OUTPUT_TOKENS_MEDIAN, OUTPUT_SIGMA)
        capacity_per_ms = sum(machine.slots / machine.service_ms(prompt, output) for machine in self.standing)
        models = [self._model(number) for number in range(self._scenario.models)]
        rng = Random(f"{self._scenario.seed}/workload")
        return Workload(rng, models, capacity_per_ms * self._scenario.load_ratio, faults=self._scenario.faults)

    def _tick(self) -> None:
        self.tell(Ticked())
        self.clock.after(TICK_MS, self._tick)

    def _arrive(self) -> None:
        if self.calm:
            return
        for request in self._workload.arrival(self.clock.now_ms):
            self._requests[request.task.task_id] = request
            self.record.submitted += 1
            if request.leaves_after_ms is not None:
                self.clock.after(request.leaves_after_ms, partial(self._leave, request.task.task_id))
            self.tell(request.task)
        self.clock.after(self._workload.gap_ms(), self._arrive)

    def _leave(self, task_id: TaskId) -> None:
        if task_id in self._requests:
            self._close(task_id)
            self.record.cancelled += 1
        self.tell(TaskCancelled(task_id))

    def _close(self, task_id: TaskId) -> Request:
        request = self._requests.pop(task_id, None)
        if request is None:
            raise InvariantBrokenError(f"{task_id} came to a second end")
        return request

    def _execute(self, command: Command) -> None:
        match command:
            case StartStream():
                self._start_stream(command)
            case CancelStream():
                stream = self.streams.pop(command.task_id, None)
                if stream is not None:
                    self._machines[stream.worker_id].drop(stream)
            case BreakStream():
                self._break_stream(command)
            case FailTask():
                self._close(command.task_id)
                self.record.failed[command.error.code] += 1
            case SpawnWorker():
                self._start_machine(command.worker_id)
            case StopWorker():
                self._stop_machine(command.worker_id)
            case ForgetWorker():
                self._replace(command.worker_id)
            case RecordTask() | RefuseSpawn() | RaiseAlarm():
                pass  # Nobody in this world reads the store or listens to alarms.
            case _:
                assert_never(command)

    def _start_stream(self, command: StartStream) -> None:
        task_id = command.task_id
        demand(task_id not in self.streams, "{} while another stream of the task is open", command)
        stream = Stream(self._requests[task_id], command.attempt, command.worker_id)
        self.streams[task_id] = stream
        if command.attempt == 1:
            self.record.queue_ms.append(command.queue_ms)
        self.record.starts += 1
        self.record.moves += command.attempt > 1
        self.clock.after(self._rng.randint(*NETWORK_MS), partial(self._arrive_at_machine, stream))

    def _arrive_at_machine(self, stream: Stream) -> None:
        if self.streams.get(stream.request.task.task_id) is not stream:
            return
        if stream.request.refused:
            self.cut(stream, "context_too_long", Blame.TASK)
            return
        machine = self._machines[stream.worker_id]
        machine.accept(stream)
        demand(len(machine.streams) <= machine.slots, "{} runs {}", machine.worker_id, machine.streams)

    def _break_stream(self, command: BreakStream) -> None:
        stream = self.streams.get(command.task_id)
        if stream is not None and stream.attempt == command.attempt:
            self._machines[stream.worker_id].drop(stream)
            self.cut(stream, command.code)

    def _closed(self, stream: Stream, shown: bool, code: str, blame: Blame) -> None:  # noqa: FBT001 - as the event has it
        task_id = stream.request.task.task_id
        if self.streams.get(task_id) is stream:
            del self.streams[task_id]
            self.tell(StreamBroke(task_id, stream.attempt, blame, shown, code, "the connection closed"))

    def _model(self, number: int) -> ModelName:
        return ModelName(f"model-{number % self._scenario.models}")

    def _draw(self, place: int) -> Machine:
        self._made += 1
        worker_id = WorkerId(f"rustbee-{self._made}")
        host = HostName(f"host-{place // MACHINES_PER_HOST}")
        machine = draw_machine(self._rng, self, worker_id, self._model(place), host)
        self._machines[worker_id] = machine
        self._place[worker_id] = place
        return machine

    def _spawn(self, place: int) -> None:
        machine = self.standing[place]
        self.probe(machine.host)
        self.tell(
            SpawnRequested(machine.worker_id, machine.model, "cpu", machine.host, machine.slots, need_mib=NEED_MIB)
        )

    def _start_machine(self, worker_id: WorkerId) -> None:
        machine = self._machines[worker_id]
        delay_ms = self._rng.randint(*STARTING_MS)
        if self._scenario.faults and self._rng.random() < START_FAILS_SHARE:
            self.clock.after(delay_ms, partial(self._fail_start, worker_id))
        else:
            self.clock.after(delay_ms, machine.boot)

    def _fail_start(self, worker_id: WorkerId) -> None:
        self.tell(SpawnFailed(worker_id, "engine_start_failed", "exit status 1"))
        self._replace(worker_id)

    def _stop_machine(self, worker_id: WorkerId) -> None:
        if self._scenario.faults and self._rng.random() < STOP_LOST_SHARE:
            return
        self._machines[worker_id].end()
        gone = WorkerGone(worker_id, "stopped")
        self.clock.after(self._rng.randint(*ENDING_MS), partial(self.tell, gone))

    def _replace(self, worker_id: WorkerId) -> None:
        place = self._place.pop(worker_id, None)
        if place is None:
            return
        self.standing[place] = self._draw(place)
        self.clock.after(self._rng.randint(*REPLACING_MS), partial(self._spawn, place))


def simulate(scenario: Scenario, *, check: bool = True) -> Result:
    """Run one scenario.

    Args:
        scenario: The world.
        check: Whether the invariants are looked at; off only to measure the core's own speed.

    Raises:
        InvariantBrokenError: An invariant did not hold; the hint is the command that replays it.
    """
    return VirtualWorld(scenario, check=check).run()
