"""A virtual world: machines, clients, a disk and a queen who may die; faults befall them, commands become deeds."""

from __future__ import annotations

from collections import deque
from functools import partial
from random import Random
from typing import Final

from swarmesh.core.commands import Command, RaiseAlarm
from swarmesh.core.events import (
    Event,
    SpawnFailed,
    SpawnRequested,
    Ticked,
    WorkerGone,
    WorkerRegistered,
    WorkerWaggled,
)
from swarmesh.core.ids import Blame, ModelName, TaskId, WorkerId
from swarmesh.core.poison import ENGINE_CRASHED
from swarmesh.sim.checkers import InvariantBrokenError, demand
from swarmesh.sim.client import Spokesmen
from swarmesh.sim.clock import Action, Clock
from swarmesh.sim.crowd import Crowd
from swarmesh.sim.deaths import BY_SILENCE
from swarmesh.sim.disk import VirtualDisk
from swarmesh.sim.execution import Stream
from swarmesh.sim.faults import Faults
from swarmesh.sim.hosts import VirtualHosts
from swarmesh.sim.machine import NEED_MIB, Machine, draw_machine
from swarmesh.sim.queen import VirtualQueen
from swarmesh.sim.queen_faults import QueenFaults
from swarmesh.sim.result import Record, Result
from swarmesh.sim.scenario import Scenario
from swarmesh.sim.surroundings import Condition
from swarmesh.sim.workload import Workload, mean_request

TICK_MS: Final = 1_000
NETWORK_MS: Final = (1, 5)
CLOSING_MS: Final = (0, 50)
"""Until the queen notices a closed connection."""
STARTING_MS: Final = (300, 1_500)
ENDING_MS: Final = (50, 2_000)
REPLACING_MS: Final = (1_000, 30_000)
LATE_ANSWER_SHARE: Final = 0.2
"""Agents that a new queen does not reach at once."""
LATE_ANSWER_MS: Final = (100, 20_000)
GHOSTS: Final = 5
"""Requests of a dead queen that reach their workers only after the next one has come."""
GHOSTLY_MS: Final = (0, 5_000)
START_FAILS_SHARE: Final = 0.05
STOP_LOST_SHARE: Final = 0.1
TROUBLE_MS: Final = 400_000
"""A worker that had trouble within this time may be declared dead for its silence."""
CALM_MS_MAX: Final = 4 * 3_600_000
"""Virtual time within which every task must end once nothing new happens."""


class VirtualWorld:
    """One run. Attributes are for machines, the queen and faults; callers use `run`.

    Attributes:
        queen: Who reigns; nobody between a crash and a restart.
        standing: One machine per place, the present one; those that ended for good are replaced.
        crowd: The clients.
        sent: The last requests to workers.
        calm: No new requests and no new trouble any more.
    """

    def __init__(self, scenario: Scenario, *, check: bool) -> None:
        self.clock = Clock()
        self.record = Record()
        self.calm = False
        self.check = check
        self.setting = scenario.setting
        self.hosts = VirtualHosts(self)
        self.disk = VirtualDisk(self.clock, Random(f"{scenario.seed}/disk"), lies=self.setting.disk_lies)
        self.spokesmen = Spokesmen()
        self.sent: deque[tuple[Stream, bytes]] = deque(maxlen=64)
        self._epoch = 1
        self.queen: VirtualQueen | None = VirtualQueen(self, 1, check=check)
        self.setting.limit_keys(self.queen.swarm, 0)
        self._scenario = scenario
        self._machines: dict[WorkerId, Machine] = {}
        self._place: dict[WorkerId, int] = {}
        self._on_its_way: list[tuple[Machine, Action]] = []
        self._troubled_ms: dict[WorkerId, int] = {}
        self._rng = Random(f"{scenario.seed}/world")
        self._made = 0
        self.standing = [self._draw(place) for place in range(scenario.workers)]
        self._faults = Faults(self, Random(f"{scenario.seed}/faults")) if scenario.faults else None
        self._queen_faults = QueenFaults(self, Random(f"{scenario.seed}/queen")) if scenario.faults else None
        self.crowd = Crowd(self, self._make_workload(), Random(f"{scenario.seed}/crowd"))

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

    # What the queen can do.

    def started(self, stream: Stream, queue_ms: int) -> None:
        """See `swarmesh.sim.queen.World`."""
        self.record.started(stream, queue_ms)

    def told(self, event: Event, commands: list[Command]) -> None:
        """See `swarmesh.sim.queen.World`."""
        queue = self.queen.swarm.dispatcher.queue if self.queen else ()
        self.record.told(event, commands, self.clock.now_ms, len(queue))
        if self._faults is not None:
            self._faults.witness(event)

    def send(self, queen: VirtualQueen, stream: Stream, shown: bytes, *, rejoins: bool) -> None:
        """See `swarmesh.sim.queen.World`."""
        self.sent.append((stream, shown))
        arrive = partial(self._arrive_at_machine, queen, stream, shown, rejoins=rejoins)
        self.clock.after(self._rng.randint(*NETWORK_MS), arrive)

    def drop(self, stream: Stream) -> None:
        """See `swarmesh.sim.queen.World`."""
        self._machines[stream.worker_id].drop(stream)

    def close_later(self, queen: VirtualQueen, stream: Stream, code: str, blame: Blame) -> None:
        """See `swarmesh.sim.queen.World`."""
        broke = partial(queen.broke, stream, code, blame)
        self.clock.after(self._rng.randint(*CLOSING_MS), lambda: queen.soon(broke))

    def start_worker(self, worker_id: WorkerId, gpus: tuple[int, ...]) -> None:
        """See `swarmesh.sim.queen.World`."""
        self.hosts.promised(worker_id, gpus)
        fails = self._scenario.faults and self._rng.random() < START_FAILS_SHARE
        self.clock.after(self._rng.randint(*STARTING_MS), partial(self._start, worker_id, fails=fails))

    def refuse_worker(self, worker_id: WorkerId) -> None:
        """See `swarmesh.sim.queen.World`: somebody asks again later, for another kind of memory."""
        if worker_id in self._place:
            self.clock.after(self._rng.randint(*REPLACING_MS), partial(self._spawn, self._place[worker_id]))

    def stop_worker(self, worker_id: WorkerId) -> None:
        """See `swarmesh.sim.queen.World`."""
        if self._machines[worker_id].cut_off or (self._scenario.faults and self._rng.random() < STOP_LOST_SHARE):
            return
        self._machines[worker_id].end()
        self.clock.after(self._rng.randint(*ENDING_MS), partial(self.tell, WorkerGone(worker_id, "stopped")))

    def strike_worker(self, worker_id: WorkerId) -> None:
        """See `swarmesh.sim.queen.World`: its place gets another machine."""
        place = self._place.pop(worker_id, None)
        if place is not None:
            self.standing[place] = self._draw(place)
            self.clock.after(self._rng.randint(*REPLACING_MS), partial(self._spawn, place))

    def alarm(self, queen: VirtualQueen, alarm: RaiseAlarm) -> None:
        """See `swarmesh.sim.queen.World`."""
        if alarm.code in BY_SILENCE and queen.alive:
            since_ms = self.clock.now_ms - self._troubled_ms.get(alarm.worker_id, -TROUBLE_MS)
            machine = self._machines[alarm.worker_id]
            well = machine.condition is Condition.READY and since_ms >= TROUBLE_MS
            demand(not well, "{}, which had no trouble for {} ms", alarm, since_ms)

    # What machines can do.

    def tell(self, event: Event) -> None:
        """See `swarmesh.sim.surroundings.Surroundings`."""
        queen = self.queen
        if isinstance(event, WorkerRegistered):
            event = self.hosts.known(event)
        if isinstance(event, WorkerGone | SpawnFailed) and (queen is None or event.worker_id not in queen.swarm.fleet):
            self.strike_worker(event.worker_id)  # A queen who never knew it cannot order another one.
        elif queen is not None:
            queen.post(event)

    def waggle(self, machine: Machine, event: WorkerWaggled | None) -> int | None:
        """See `swarmesh.sim.surroundings.Surroundings`."""
        if event is not None and not machine.silent:
            self.tell(event)
        if self.queen is None or self.queen.paused or machine.silent:
            return None
        machine.epoch = max(machine.epoch, self.queen.epoch)
        worker = self.queen.swarm.fleet.get(machine.worker_id)
        return worker.interval_ms if worker else None

    def finish(self, stream: Stream) -> None:
        """See `swarmesh.sim.surroundings.Surroundings`."""
        if self.queen is not None:
            self.queen.soon(partial(self.queen.finished, stream))

    def cut(self, stream: Stream, code: str, blame: Blame = Blame.WORKER) -> None:
        """See `swarmesh.sim.surroundings.Surroundings`: the queen notices a moment later."""
        if self.queen is not None:
            self.close_later(self.queen, stream, code, blame)

    def crashed(self, worker_id: WorkerId, code: str, culprit: TaskId | None, seen: list[TaskId]) -> None:
        """See `swarmesh.sim.surroundings.Surroundings`."""
        self.trouble(worker_id)
        if code != ENGINE_CRASHED:
            return
        self.crowd.struck(culprit, seen)

    def accepted(self, machine: Machine, stream: Stream) -> None:
        """See `swarmesh.sim.surroundings.Surroundings`."""
        self.spokesmen.obey((machine.worker_id, machine.life), stream.epoch)
        queen = self.queen
        if queen is None or not queen.is_current(stream):
            return
        busy = sum(1 for log in machine.running if log.stream is not None and queen.is_current(log.stream))
        demand(busy <= machine.slots, "{} runs {} of {}", machine.worker_id, busy, machine.slots)
        if stream.watched and stream.execution is not None and stream.execution.tokens:
            first_ms = max(0, stream.execution.first_ms - self.clock.now_ms) + 1
            self.clock.after(first_ms, lambda: queen.soon(partial(queen.progressed, stream)))

    def fell_silent(self, machine: Machine) -> None:
        """See `swarmesh.sim.surroundings.Surroundings`."""
        machine.outage += 1
        self.trouble(machine.worker_id)
        if self.queen is not None:
            self.queen.links.lost(machine)

    def heard_again(self, machine: Machine) -> None:
        """See `swarmesh.sim.surroundings.Surroundings`."""
        machine.outage += 1
        self.trouble(machine.worker_id)
        if self.queen is not None:
            self.queen.links.found(machine)
        arrived = [arrive for receiver, arrive in self._on_its_way if receiver is machine]
        self._on_its_way = [item for item in self._on_its_way if item[0] is not machine]
        for arrive in arrived:
            arrive()

    # What faults can do.

    def trouble(self, worker_id: WorkerId) -> None:
        """Something befalls a machine: it may be thought dead for a while."""
        self._troubled_ms[worker_id] = self.clock.now_ms

    def crash_queen(self, down_ms: int, *, lost_ms: int = 0) -> None:
        """Kill the queen and start her anew after a while; the disk may have lied about the last writes."""
        queen, self.queen = self.queen, None
        if queen is None:
            return
        queen.crash()
        if lost_ms:
            self.disk.lose_since(self.clock.now_ms - lost_ms)
        for machine in self.standing:
            machine.lose_queen()
        for stream, shown in list(self.sent)[-GHOSTS:]:
            haunt = partial(self._machines[stream.worker_id].haunt, stream, shown)
            self.clock.after(down_ms + self._rng.randint(*GHOSTLY_MS), haunt)
        self.spokesmen.dismiss_all()
        if self._faults is not None:
            self._faults.forget()
        self.crowd.orphaned()
        self.clock.after(down_ms, self._restart_queen)

    def pause_queen(self, pause_ms: int) -> None:
        """Let her stand still for a while."""
        queen = self.queen
        if queen is None or queen.paused:
            return
        queen.pause()
        self.clock.after(pause_ms, lambda: queen.resume(Ticked()) if queen.alive else None)

    # inside

    def _live(self) -> None:
        for place in range(self._scenario.workers):
            self._spawn(place)
        self._tick()
        self.crowd.arrive()
        if self._faults is not None:
            self._faults.start()
        if self._queen_faults is not None:
            self._queen_faults.start()
        while self.record.events < self._scenario.events:
            self.clock.advance()
        self._calm_down()
        until_ms = self.clock.now_ms + CALM_MS_MAX
        while self._is_busy() and self.clock.now_ms < until_ms:
            self.clock.advance()
        self._check_rest()

    def _is_busy(self) -> bool:
        return bool(self.crowd.clients or not self.disk.idle or self.queen is None or self.queen.runners)

    def _calm_down(self) -> None:
        self.calm = True
        for machine in self.standing:
            machine.offered_slots = machine.slots

    def _check_rest(self) -> None:
        demand(not self.crowd.clients, f"{len(self.crowd.clients)} tasks never ended: {list(self.crowd.clients)[:5]}")
        demand(self.disk.idle, "something is still not safe")
        left = [row.request.task.task_id for row in self.disk.unfinished()]
        demand(not left, f"{len(left)} tasks on disk have no end: {left[:5]}")
        queen = self.queen
        if queen is None:
            return
        demand(not queen.runners, f"the queen still carries {list(queen.runners)[:5]}")
        demand(not queen.swarm.dispatcher.tasks, "the core holds tasks that are over")
        if queen.watch is not None:
            queen.watch.rest()
            self.record.check_ends()

    def _make_workload(self) -> Workload:
        capacity_per_ms = sum(machine.slots / machine.service_ms(*mean_request()) for machine in self.standing)
        models = [self._model(number) for number in range(self._scenario.models)]
        rng, load = Random(f"{self._scenario.seed}/workload"), self._scenario.load_ratio
        return Workload(rng, models, capacity_per_ms * load, self.setting, faults=self._scenario.faults)

    def _tick(self) -> None:
        if self.queen is not None and not self.queen.paused:
            self.queen.tell(Ticked())
        self.clock.after(TICK_MS, self._tick)

    def _restart_queen(self) -> None:
        self._epoch += 1
        self.record.lives += 1
        self.queen = queen = VirtualQueen(self, self._epoch, check=self.check)
        for host in dict.fromkeys(machine.host for machine in self.standing):
            self.hosts.probe(host)
        for machine in list(self.standing):
            self._adopt(machine)
        self.setting.limit_keys(queen.swarm, self.clock.now_ms)
        queen.take_up()
        self.crowd.come_back()

    def _adopt(self, machine: Machine) -> None:
        if machine.condition is Condition.OFF:
            if machine.ended:  # Any other is about to start.
                self.strike_worker(machine.worker_id)
        elif self._rng.random() < LATE_ANSWER_SHARE:
            self.clock.after(self._rng.randint(*LATE_ANSWER_MS), machine.register)
        else:
            machine.register()

    def _arrive_at_machine(self, queen: VirtualQueen, stream: Stream, shown: bytes, *, rejoins: bool) -> None:
        machine = self._machines[stream.worker_id]
        if machine.silent:
            stream.deaf_ms = self.clock.now_ms
            queen.links.expect(machine)
            self._on_its_way.append((machine, partial(self._arrive_at_machine, queen, stream, shown, rejoins=rejoins)))
        elif stream.closed:
            pass  # So is the connection; nothing comes out at its other end.
        elif stream.request.refused:
            self.cut(stream, "context_too_long", Blame.TASK)
        elif not (rejoins and machine.attach(stream, len(shown))):
            machine.execute(stream, shown)

    def _model(self, number: int) -> ModelName:
        return ModelName(f"model-{number % self._scenario.models}")

    def _draw(self, place: int) -> Machine:
        self._made += 1
        worker_id = WorkerId(f"rustbee-{self._made}")
        host = self.hosts.of_place(place)
        machine = draw_machine(self._rng, self, worker_id, self._model(place), host, self.setting.slots)
        self._machines[worker_id] = machine
        self._place[worker_id] = place
        return machine

    def _spawn(self, place: int) -> None:
        machine = self.standing[place]
        if self.queen is None or self.queen.paused or not self.hosts.takes_workers(machine.host):
            self.clock.after(TICK_MS, partial(self._spawn, place))
            return
        self.hosts.probe(machine.host)
        wish = self.hosts.wish(machine)
        self.tell(SpawnRequested(machine.worker_id, machine.model, "cpu", machine.host, machine.slots, NEED_MIB, wish))

    def _start(self, worker_id: WorkerId, *, fails: bool) -> None:
        machine = self._machines[worker_id]
        if fails or self.hosts.is_lost(machine.host):
            self.tell(SpawnFailed(worker_id, "engine_start_failed", "exit status 1"))
            self.strike_worker(worker_id)
        else:
            machine.boot()
            self.hosts.check(machine.host)


def simulate(scenario: Scenario, *, check: bool = True) -> Result:
    """Run one scenario.

    Args:
        scenario: The world.
        check: Whether the invariants are looked at; off only to measure the core's own speed.

    Raises:
        InvariantBrokenError: An invariant did not hold; the hint is the command that replays it.
    """
    return VirtualWorld(scenario, check=check).run()
