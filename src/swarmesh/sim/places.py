"""Where machines stand: as many as their owner wants, each one that ends for good replaced by another."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from swarmesh.core.commands import RecordLoadTime, SeekSites
from swarmesh.core.events import SpawnFailed, SpawnRequested, WorkerGone
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.sim.checkers import demand
from swarmesh.sim.machine import NEED_MIB, Machine, draw_machine
from swarmesh.sim.scenario import Scenario
from swarmesh.sim.surroundings import Condition
from swarmesh.sim.workload import mean_request

if TYPE_CHECKING:
    from swarmesh.sim.queen import VirtualQueen
    from swarmesh.sim.world import VirtualWorld

STARTING_MS: Final = (300, 1_500)
ENDING_MS: Final = (50, 2_000)
REPLACING_MS: Final = (1_000, 30_000)
RETRY_MS: Final = 1_000
"""Until somebody asks again who found no queen to ask."""
LATE_ANSWER_SHARE: Final = 0.2
"""Agents that a new queen does not reach at once."""
LATE_ANSWER_MS: Final = (100, 20_000)
START_FAILS_SHARE: Final = 0.05
STOP_LOST_SHARE: Final = 0.1


class Places:
    """One machine at each place, the present one.

    Attributes:
        machines: All that ever stood anywhere.
    """

    def __init__(self, world: VirtualWorld, scenario: Scenario, rng: Random) -> None:
        self.machines: dict[WorkerId, Machine] = {}
        self._world = world
        self._scenario = scenario
        self._rng = rng
        self._place: dict[WorkerId, int] = {}
        self._made = 0
        self._at = {place: self._draw(place) for place in range(scenario.workers) if self._is_owners(place)}

    @property
    def standing(self) -> list[Machine]:
        """Those that are there, or will be."""
        return list(self._at.values())

    def capacity_per_ms(self) -> float:
        """Mean requests that all of them together can do."""
        return sum(machine.slots / machine.service_ms(*mean_request()) for machine in self.standing)

    def fill(self) -> None:
        """Let the owner ask for all of them."""
        for place in self._at:
            self._spawn(place)

    def crown(self, queen: VirtualQueen) -> None:
        """There is a new queen: tell her what she has to know before she meets anybody."""

    def adopt(self) -> None:
        """Let every machine be found by a new queen, or be struck if it has ended meanwhile."""
        for host in dict.fromkeys(machine.host for machine in self.standing):
            self._world.hosts.probe(host)
        for machine in self.standing:
            self._adopt(machine)

    def start_worker(self, worker_id: WorkerId, gpus: tuple[int, ...]) -> None:
        """Start a process; the memory that it has on these GPUs, or on none, is promised."""
        self._world.hosts.promised(worker_id, gpus)
        fails = self._scenario.faults and self._rng.random() < START_FAILS_SHARE
        self._world.clock.after(self._rng.randint(*STARTING_MS), partial(self._start, worker_id, fails=fails))

    def seek_sites(self, _queen: VirtualQueen, command: SeekSites) -> None:
        """Let her know, in a while, where a worker of the model could be started."""
        demand(False, "{} although no model is scaled here", command)

    def learned(self, command: RecordLoadTime) -> None:
        """She wants it to be known how long a start took."""
        demand(False, "{} although no model is scaled here", command)

    def refuse_worker(self, worker_id: WorkerId) -> None:
        """There is no memory for it: somebody asks again later, for another kind of memory."""
        if worker_id in self._place:
            self._world.clock.after(self._rng.randint(*REPLACING_MS), partial(self._spawn, self._place[worker_id]))

    def stop_worker(self, worker_id: WorkerId) -> None:
        """End a process."""
        machine = self.machines[worker_id]
        if machine.cut_off or (self._scenario.faults and self._rng.random() < STOP_LOST_SHARE):
            return
        machine.end()
        gone = partial(self._world.tell, WorkerGone(worker_id, "stopped"))
        self._world.clock.after(self._rng.randint(*ENDING_MS), gone)

    def strike_worker(self, worker_id: WorkerId) -> None:
        """The worker is forgotten: its place gets another machine."""
        place = self._place.pop(worker_id, None)
        if place is not None:
            self._at[place] = self._draw(place)
            self._world.clock.after(self._rng.randint(*REPLACING_MS), partial(self._spawn, place))

    def model(self, number: int) -> ModelName:
        """What a machine at that place has."""
        return ModelName(f"model-{number % self._scenario.models}")

    def _is_owners(self, _place: int) -> bool:
        return True

    def _draw(self, place: int) -> Machine:
        machine = self._new(self.model(place), self._world.hosts.of_place(place))
        self.machines[machine.worker_id] = machine
        self._place[machine.worker_id] = place
        return machine

    def _new(self, model: ModelName, host: HostName) -> Machine:
        self._made += 1
        worker_id = WorkerId(f"rustbee-{self._made}")
        return draw_machine(self._rng, self._world, worker_id, model, host, self._world.setting.slots)

    def _spawn(self, place: int) -> None:
        world, machine = self._world, self._at[place]
        if world.queen is None or world.queen.paused or not world.hosts.takes_workers(machine.host):
            world.clock.after(RETRY_MS, partial(self._spawn, place))
            return
        world.hosts.probe(machine.host)
        wish = world.hosts.wish(machine)
        world.tell(SpawnRequested(machine.worker_id, machine.model, "cpu", machine.host, machine.slots, NEED_MIB, wish))

    def _start(self, worker_id: WorkerId, *, fails: bool) -> None:
        machine = self.machines[worker_id]
        if fails or self._world.hosts.is_lost(machine.host):
            self._world.tell(SpawnFailed(worker_id, "engine_start_failed", "exit status 1"))
            self.strike_worker(worker_id)
        else:
            machine.boot()
            self._world.hosts.check(machine.host)

    def _adopt(self, machine: Machine) -> None:
        if machine.condition is Condition.OFF:
            if machine.ended:  # Any other is about to start.
                self.strike_worker(machine.worker_id)
        elif self._rng.random() < LATE_ANSWER_SHARE:
            self._world.clock.after(self._rng.randint(*LATE_ANSWER_MS), machine.register)
        else:
            machine.register()
