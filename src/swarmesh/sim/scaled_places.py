"""Where machines stand that the queen herself asks for: those of models whose number she decides."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from swarmesh.core.commands import RecordLoadTime, SeekSites
from swarmesh.core.events import Event, LoadTimeKnown, ModelScaled, SitesFound
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.memory_pool import RAM
from swarmesh.core.placement import HostCandidate
from swarmesh.sim.machine import NEED_MIB, Machine, draw_machine
from swarmesh.sim.places import Places
from swarmesh.sim.scenario import Scenario
from swarmesh.sim.surroundings import Condition
from swarmesh.sim.workload import mean_request

if TYPE_CHECKING:
    from swarmesh.sim.queen import VirtualQueen
    from swarmesh.sim.world import VirtualWorld

SEEK_MS: Final = (50, 5_000)
"""Until every host has said what it has, or has not."""
SAMPLE: Final = 100
"""Machines drawn to know what a usual one can do."""


class ScaledPlaces(Places):
    """Places of models with bounds belong to nobody: there the queen has machines start and end as she likes.

    Others are as they were, on the same hosts and in the same memory.
    """

    def __init__(self, world: VirtualWorld, scenario: Scenario, rng: Random) -> None:
        super().__init__(world, scenario, rng)
        self._wanted: dict[WorkerId, Machine] = {}
        self._sites: dict[ModelName, dict[WorkerId, Machine]] = {}
        self._load_ms: dict[tuple[ModelName, HostName], int] = {}

    @property
    def standing(self) -> list[Machine]:
        """See `Places.standing`."""
        return [*super().standing, *self._wanted.values()]

    def capacity_per_ms(self) -> float:
        """As if there were a usual machine at every place."""
        world, rng = self._world, Random(f"{self._scenario.seed}/capacity")
        usual = (
            draw_machine(rng, world, WorkerId(""), self.model(0), HostName(""), world.setting.slots)
            for _ in range(SAMPLE)
        )
        one = sum(machine.slots / machine.service_ms(*mean_request()) for machine in usual) / SAMPLE
        return one * self._scenario.workers

    def fill(self) -> None:
        """See `Places.fill`; the queen hears how many machines of the other models there may be."""
        if self._world.queen is not None:
            self.crown(self._world.queen)
        super().fill()

    def crown(self, queen: VirtualQueen) -> None:
        """Tell her the bounds and what earlier queens have learned; what they had not started yet died with them."""
        for worker_id, machine in list(self._wanted.items()):
            if machine.condition is Condition.OFF:
                machine.ended = True
                del self._wanted[worker_id]
        for event in self._known():
            queen.tell(event)

    def seek_sites(self, queen: VirtualQueen, command: SeekSites) -> None:
        """See `Places.seek_sites`."""
        self._world.clock.after(
            self._rng.randint(*SEEK_MS), lambda: queen.soon(partial(self._look_round, queen, command))
        )

    def learned(self, command: RecordLoadTime) -> None:
        """See `Places.learned`."""
        self._load_ms[command.model, command.host] = command.load_ms

    def start_worker(self, worker_id: WorkerId, gpus: tuple[int, ...]) -> None:
        """See `Places.start_worker`."""
        for sites in self._sites.values():
            machine = sites.pop(worker_id, None)
            if machine is not None:
                self._wanted[worker_id] = self.machines[worker_id] = machine
        super().start_worker(worker_id, gpus)

    def strike_worker(self, worker_id: WorkerId) -> None:
        """See `Places.strike_worker`; nobody but the queen replaces one that she had started."""
        if self._wanted.pop(worker_id, None) is None:
            super().strike_worker(worker_id)

    def _is_owners(self, place: int) -> bool:
        return place % self._scenario.models not in self._world.setting.bounds

    def _known(self) -> Iterator[Event]:
        for number, bounds in self._world.setting.bounds.items():
            yield ModelScaled(self.model(number), bounds)
        for (model, host), load_ms in self._load_ms.items():
            yield LoadTimeKnown(model, host, load_ms)

    def _look_round(self, queen: VirtualQueen, command: SeekSites) -> None:
        hosts = self._world.hosts
        self._sites[command.model] = {}
        names = dict.fromkeys(hosts.of_place(place) for place in range(self._scenario.workers))
        reached = [host for host in names if not hosts.is_lost(host)]
        lost = tuple((host, "the connection broke") for host in names if hosts.is_lost(host))
        for host in reached:
            hosts.probe(host)
        sites = tuple(self._site(queen, command.model, host) for host in reached)
        queen.tell(SitesFound(command.model, command.action, sites, lost))

    def _site(self, queen: VirtualQueen, model: ModelName, host: HostName) -> HostCandidate:
        machine = self._new(model, host)
        self._sites[model][machine.worker_id] = machine
        pools = queen.swarm.memory.free(host)
        return HostCandidate(
            host=host,
            need_mib=NEED_MIB,
            pools=tuple(pool for pool in pools if pool.label == RAM),
            draining=not self._world.hosts.takes_workers(host),
            workers=sum(machine.host == host for machine in self.standing),
            worker_id=machine.worker_id,
            backend="cpu",
            slots=machine.slots,
        )

    def _start(self, worker_id: WorkerId, *, fails: bool) -> None:
        if not self.machines[worker_id].ended:  # It was stopped, or its queen died, before it ran.
            super()._start(worker_id, fails=fails)


def places_of(world: VirtualWorld, scenario: Scenario, rng: Random) -> Places:
    """The places of a world, whoever fills them."""
    return (ScaledPlaces if world.setting.bounds else Places)(world, scenario, rng)
