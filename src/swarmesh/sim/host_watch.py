"""A second opinion on hosts: what of their memory is promised to whom, and what draining one may do to its tasks."""

from __future__ import annotations

from collections import Counter

from swarmesh.core.commands import BreakStream, Command, SpawnWorker
from swarmesh.core.events import (
    Event,
    HostDrainRequested,
    HostProbed,
    SitesFound,
    SpawnFailed,
    SpawnRequested,
    WorkerGone,
    WorkerRegistered,
)
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import HostName, WorkerId
from swarmesh.core.memory_pool import GPU_USABLE_SHARE, USABLE_SHARE
from swarmesh.core.swarm import Swarm
from swarmesh.sim.checkers import SERVING, demand

Promise = tuple[HostName, int, frozenset[int]]
"""To a worker: where, how many MiB, and on which GPUs; none for main memory."""


class HostWatch:
    """Follows promises of memory, and drains, through the life of one swarm."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._probes: dict[HostName, HostProbed] = {}
        self._promises: dict[WorkerId, Promise] = {}
        self._asked: dict[WorkerId, Promise] = {}

    def follow(self, event: Event) -> None:
        """Take in what a fact says about memory."""
        match event:
            case HostProbed():
                self._probes[event.host] = event
            case SpawnRequested():
                self._asked = {event.worker_id: (event.host, event.need_mib, frozenset(event.gpus))}
            case SitesFound():
                self._asked = {site.worker_id: (site.host, site.need_mib, frozenset(site.gpus)) for site in event.sites}
            case WorkerRegistered() if event.need_mib:
                # Somebody knows what it was promised; whoever promised it herself knows better.
                self._promises.setdefault(event.worker_id, (event.host, event.need_mib, frozenset(event.gpus)))
            case WorkerGone() | SpawnFailed():
                self._promises.pop(event.worker_id, None)
            case _:
                pass

    def promised(self, command: SpawnWorker) -> None:
        """Check that a worker which is started gets what was asked for, and that it is there.

        Raises:
            InvariantBrokenError: It is not.
        """
        asked, gpus = self._asked.get(command.worker_id), frozenset(command.gpus)
        demand(asked is not None, "{} was not asked for: {}", command, self._asked)
        if asked is None:
            return
        where, need_mib, wished = asked
        demand(gpus <= wished and bool(gpus) == bool(wished), "{} was not asked for: {}", command, asked)
        self._promises[command.worker_id] = (where, need_mib, gpus)
        # Of several GPUs it is not said how much is on which; who holds nothing elsewhere must fit on them together.
        usable = self._usable_mib(where, gpus)
        total = sum(mib for host, mib, on in self._promises.values() if host == where and _within(on, gpus))
        demand(total <= usable, "{}: {} MiB usable and {} MiB promised", command, usable, total)

    def drained(self, event: HostDrainRequested, commands: list[Command]) -> None:
        """Check that every worker there is to end, and that no stream is broken off which might have been lost by that.

        Raises:
            InvariantBrokenError: A worker was passed over, or a stream was not let go on.
        """
        for worker in self._swarm.fleet:
            demand(worker.host != event.host or worker.stop_at_ms > 0, "{} does not end with its host", worker)
        for command in commands:
            worker_left = self._swarm.fleet.get(command.worker_id) if isinstance(command, BreakStream) else None
            if isinstance(command, BreakStream) and worker_left is not None and not worker_left.stop_asked_ms:
                task = self._swarm.dispatcher.tasks[command.task_id]
                safe = task.resumable and self._is_served_elsewhere(worker_left)
                demand(safe, "{} breaks {} off, which could have ended", command, task)

    def full(self) -> None:
        """Check that the books hold every promise once, and nothing else.

        Raises:
            InvariantBrokenError: They differ from history.
        """
        promised: dict[HostName, dict[WorkerId, int]] = {host: {} for host in self._probes}
        for worker_id, (host, mib, _) in self._promises.items():
            promised.setdefault(host, {})[worker_id] = mib
        for host, held in promised.items():
            books, booked = self._swarm.memory.of_host(host), Counter[WorkerId]()
            for pool in books.pools() if books is not None else []:
                booked.update(pool.reserved)
            demand(held == dict(booked), "{} has promised {} and booked {}", host, held, dict(booked))

    def _usable_mib(self, host: HostName, gpus: frozenset[int]) -> int:
        probe = self._probes.get(host)
        if probe is None:
            return 0
        if not gpus:
            return int(probe.total_mib * USABLE_SHARE)
        return sum(int(gpu.total_mib * GPU_USABLE_SHARE) for gpu in probe.gpus if gpu.index in gpus)

    def _is_served_elsewhere(self, worker: Worker) -> bool:
        others = self._swarm.fleet.of_model(worker.model).values()
        ready = (other for other in others if other.status in SERVING and not other.stop_at_ms and not other.silent)
        return any(other.host != worker.host for other in ready)


def _within(on: frozenset[int], gpus: frozenset[int]) -> bool:
    return bool(on) == bool(gpus) and on <= gpus
