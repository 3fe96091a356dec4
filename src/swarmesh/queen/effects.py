"""What the core can do to the world besides streams, each passed to the one who does it."""

from __future__ import annotations

from swarmesh.core.commands import (
    ForgetWorker,
    RaiseAlarm,
    RecordLoadTime,
    RecordTask,
    RefuseSpawn,
    SeekSites,
    SpawnWorker,
    StopWorker,
)
from swarmesh.queen.flows import Flows
from swarmesh.queen.starts import Starts
from swarmesh.queen.swarmscale import Swarmscale
from swarmesh.queen.workers import Workers


class QueenEffects:
    """See `swarmesh.queen.driver.Effects`."""

    def __init__(self, flows: Flows, workers: Workers, starts: Starts, swarmscale: Swarmscale) -> None:
        self._flows = flows
        self._starts = starts
        self._swarmscale = swarmscale
        self._workers = workers

    def record_task(self, command: RecordTask) -> None:
        """Write a durable task's state."""
        self._flows.record_task(command)

    def spawn_worker(self, command: SpawnWorker) -> None:
        """Start a worker's process."""
        self._starts.start(command)

    def seek_sites(self, command: SeekSites) -> None:
        """Find out where a worker could be started."""
        self._starts.seek(command)

    def record_load_time(self, command: RecordLoadTime) -> None:
        """Keep how long a model takes to be ready on a host."""
        self._swarmscale.record_load_time(command)

    def refuse_spawn(self, command: RefuseSpawn) -> None:
        """Tell whoever asked."""
        self._starts.refuse(command)

    def stop_worker(self, command: StopWorker) -> None:
        """End a worker's process."""
        self._workers.stop_worker(command)

    def forget_worker(self, command: ForgetWorker) -> None:
        """Strike it from the hivecomb."""
        self._workers.forget_worker(command)

    def raise_alarm(self, command: RaiseAlarm) -> None:
        """Let people know."""
        self._workers.raise_alarm(command)
