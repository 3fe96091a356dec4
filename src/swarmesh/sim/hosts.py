"""Hosts of the virtual world: the memory that machines share, and the connections on which all of a host's hang."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from swarmesh.core.events import GpuMemory, HostDrainRequested, HostProbed, WorkerRegistered
from swarmesh.core.ids import HostName, WorkerId
from swarmesh.core.memory_pool import USABLE_SHARE
from swarmesh.sim.checkers import demand
from swarmesh.sim.machine import NEED_MIB, Machine
from swarmesh.sim.surroundings import Condition

if TYPE_CHECKING:
    from swarmesh.sim.queen import VirtualQueen
    from swarmesh.sim.world import VirtualWorld

GPUS: Final = (0, 1)
GPU_MIB: Final = 6_400
"""One machine on each, and just enough left over for a third one on both together."""


class VirtualHosts:
    """Every host has main memory for all its machines and no more, and two GPUs that some of them want."""

    def __init__(self, world: VirtualWorld) -> None:
        self._world = world
        self._total_mib = math.ceil(NEED_MIB * world.setting.machines_per_host / USABLE_SHARE) + 1
        self._lost: set[HostName] = set()
        self._draining: set[HostName] = set()
        self._wishes: dict[WorkerId, tuple[int, ...]] = {}
        self._gpus: dict[WorkerId, tuple[int, ...]] = {}

    def of_place(self, place: int) -> HostName:
        """Where the machine of that place stands."""
        return HostName(f"host-{place // self._world.setting.machines_per_host}")

    def wish(self, machine: Machine) -> tuple[int, ...]:
        """The GPUs that a machine may use, or none for main memory; another answer each time it is asked."""
        last = self._wishes.get(machine.worker_id, GPUS if len(self._wishes) % 2 else ())
        self._wishes[machine.worker_id] = wish = () if last else GPUS
        return wish

    def promised(self, worker_id: WorkerId, gpus: tuple[int, ...]) -> None:
        """Somebody has memory for a machine."""
        self._gpus[worker_id] = gpus

    def known(self, event: WorkerRegistered) -> WorkerRegistered:
        """The same, with what the machine was promised, which outlives a queen."""
        gpus = self._gpus.get(event.worker_id, ())
        return msgspec.structs.replace(event, need_mib=NEED_MIB, gpus=gpus)

    def takes_workers(self, host: HostName) -> bool:
        """Whether a queen would start anything there."""
        return host not in self._lost and host not in self._draining

    def is_lost(self, host: HostName) -> bool:
        """Whether nothing gets through to it."""
        return host in self._lost

    def probe(self, host: HostName) -> None:
        """Measure a host's memory, if it can be reached."""
        if host not in self._lost:
            ram_mib, gpus_mib = self._used(host)
            gpus = tuple(GpuMemory(gpu, GPU_MIB, max(0, GPU_MIB - used)) for gpu, used in gpus_mib.items())
            self._world.tell(HostProbed(host, self._total_mib, max(0, self._total_mib - ram_mib), gpus))

    def check(self, host: HostName) -> None:
        """What its machines hold is there.

        Raises:
            InvariantBrokenError: They hold more than it has.
        """
        ram_mib, gpus_mib = self._used(host)
        demand(ram_mib <= self._total_mib, "{} has {} MiB and {} MiB are used", host, self._total_mib, ram_mib)
        gpu_mib, most_mib = sum(gpus_mib.values()), GPU_MIB * len(GPUS)
        demand(gpu_mib <= most_mib, "the GPUs of {} have {} MiB and {} MiB are used", host, most_mib, gpu_mib)

    def lose(self, host: HostName, noticed_ms: int, heal_ms: int) -> None:
        """Cut every machine of a host off; the queen notices in due time, unless it is back before."""
        if host in self._lost:
            return
        self._lost.add(host)
        for machine in self._of(host):
            if machine.condition is not Condition.OFF and not machine.cut_off:
                machine.partition(heal_ms)
        self._world.clock.after(noticed_ms, partial(self._notice, host))
        self._world.clock.after(heal_ms, partial(self._find, host))

    def drain(self, host: HostName, grace_ms: int, until_ms: int) -> None:
        """Let a host be free of machines for a while."""
        if self._world.queen is None:
            return
        self._draining.add(host)
        self._world.tell(HostDrainRequested(host, grace_ms))
        self._world.clock.after(until_ms, lambda: self._draining.discard(host))

    def _notice(self, host: HostName) -> None:
        queen = self._world.queen
        if queen is not None:
            queen.soon(partial(self._lose_for, queen, host))

    def _lose_for(self, queen: VirtualQueen, host: HostName) -> None:
        if host not in self._lost:
            return
        machines = self._of(host)
        for machine in machines:
            self._world.trouble(machine.worker_id)
        queen.lose_host(host, machines)

    def _find(self, host: HostName) -> None:
        self._lost.discard(host)
        self.probe(host)
        for machine in self._of(host):
            if not machine.silent:
                self._world.heard_again(machine)

    def _of(self, host: HostName) -> list[Machine]:
        return [machine for machine in self._world.standing if machine.host == host]

    def _used(self, host: HostName) -> tuple[int, dict[int, int]]:
        ram_mib, gpus_mib = 0, dict.fromkeys(GPUS, 0)
        for machine in self._of(host):
            if machine.condition is Condition.OFF:
                continue
            gpus = self._gpus.get(machine.worker_id, ())
            for gpu in gpus:
                gpus_mib[gpu] += NEED_MIB // len(gpus)
            ram_mib += 0 if gpus else NEED_MIB
        return ram_mib, gpus_mib
