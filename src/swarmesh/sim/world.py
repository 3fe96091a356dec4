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
    Ticked,
    WorkerGone,
    WorkerRegistered,
    WorkerWaggled,
)
from swarmesh.core.ids import Blame, TaskId, WorkerId
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
from swarmesh.sim.machine import Machine
from swarmesh.sim.queen import VirtualQueen
from swarmesh.sim.queen_faults import QueenFaults
from swarmesh.sim.result import Record, Result
from swarmesh.sim.scaled_places import places_of
from swarmesh.sim.scenario import Scenario
from swarmesh.sim.surroundings import Condition
from swarmesh.sim.workload import Workload

TICK_MS: Final = 1_000
NETWORK_MS: Final = (1, 5)
CLOSING_MS: Final = (0, 50)
"""Until the queen notices a closed connection."""
GHOSTS: Final = 5
"""Requests of a dead queen that reach their workers only after the next one has come."""
GHOSTLY_MS: Final = (0, 5_000)
TROUBLE_MS: Final = 400_000
"""A worker that had trouble within this time may be declared dead for its silence."""
CALM_MS_MAX: Final = 4 * 3_600_000
"""Virtual time within which every task must end once nothing new happens."""


class VirtualWorld:
    """One run. Attributes are for machines, the queen and faults; callers use `run`.

    Attributes:
        queen: Who reigns; nobody between a crash and a restart.
        places: Where machines stand, and who replaces them.
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
        self._on_its_way: list[tuple[Machine, Action]] = []
        self._troubled_ms: dict[WorkerId, int] = {}
        self._rng = Random(f"{scenario.seed}/world")
        self.places = places_of(self, scenario, self._rng)
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

    @property
    def standing(self) -> list[Machine]:
        """The machines that are there, or will be."""
        return self.places.standing

    # What the queen can do.

    def started(self, stream: Stream, queue_ms: int) -> None:
        """See `swarmesh.sim.realm.Realm`."""
        self.record.started(stream, queue_ms)

    def told(self, event: Event, commands: list[Command]) -> None:
        """See `swarmesh.sim.realm.Realm`."""
        queue = self.queen.swarm.dispatcher.queue if self.queen else ()
        self.record.told(event, commands, self.clock.now_ms, len(queue))
        if self._faults is not None:
            self._faults.witness(event)

    def send(self, queen: VirtualQueen, stream: Stream, shown: bytes, *, rejoins: bool) -> None:
        """See `swarmesh.sim.realm.Realm`."""
        self.sent.append((stream, shown))
        arrive = partial(self._arrive_at_machine, queen, stream, shown, rejoins=rejoins)
        self.clock.after(self._rng.randint(*NETWORK_MS), arrive)

    def drop(self, stream: Stream) -> None:
        """See `swarmesh.sim.realm.Realm`."""
        self.places.machines[stream.worker_id].drop(stream)

    def close_later(self, queen: VirtualQueen, stream: Stream, code: str, blame: Blame) -> None:
        """See `swarmesh.sim.realm.Realm`."""
        broke = partial(queen.broke, stream, code, blame)
        self.clock.after(self._rng.randint(*CLOSING_MS), lambda: queen.soon(broke))

    def alarm(self, queen: VirtualQueen, alarm: RaiseAlarm) -> None:
        """See `swarmesh.sim.realm.Realm`."""
        if alarm.code in BY_SILENCE and queen.alive:
            since_ms = self.clock.now_ms - self._troubled_ms.get(alarm.worker_id, -TROUBLE_MS)
            machine = self.places.machines[alarm.worker_id]
            well = machine.condition is Condition.READY and since_ms >= TROUBLE_MS
            demand(not well, "{}, which had no trouble for {} ms", alarm, since_ms)

    # What machines can do.

    def tell(self, event: Event) -> None:
        """See `swarmesh.sim.surroundings.Surroundings`."""
        queen = self.queen
        if isinstance(event, WorkerRegistered):
            event = self.hosts.known(event)
        if isinstance(event, WorkerGone | SpawnFailed) and (queen is None or event.worker_id not in queen.swarm.fleet):
            self.places.strike_worker(event.worker_id)  # A queen who never knew it cannot order another one.
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
        if (stream.watched or stream.timed) and stream.execution is not None and stream.execution.tokens:
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
            haunt = partial(self.places.machines[stream.worker_id].haunt, stream, shown)
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
        self.places.fill()
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
        capacity_per_ms = self.places.capacity_per_ms()
        models = [self.places.model(number) for number in range(self._scenario.models)]
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
        self.places.crown(queen)
        self.places.adopt()
        self.setting.limit_keys(queen.swarm, self.clock.now_ms)
        queen.take_up()
        self.crowd.come_back()

    def _arrive_at_machine(self, queen: VirtualQueen, stream: Stream, shown: bytes, *, rejoins: bool) -> None:
        machine = self.places.machines[stream.worker_id]
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


def simulate(scenario: Scenario, *, check: bool = True) -> Result:
    """Run one scenario.

    Args:
        scenario: The world.
        check: Whether the invariants are looked at; off only to measure the core's own speed.

    Raises:
        InvariantBrokenError: An invariant did not hold; the hint is the command that replays it.
    """
    return VirtualWorld(scenario, check=check).run()
