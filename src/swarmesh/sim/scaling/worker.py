"""A worker of a virtual swarm: a process that starts, loads, serves, and ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from swarmesh.core.events import WorkerRegistered, WorkerWaggled
from swarmesh.core.ids import TaskId, WorkerId
from swarmesh.sim.scaling.host import Host
from swarmesh.sim.scaling.plan import ModelPlan


class Stage(StrEnum):
    """Where a process is in its life."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class ScaledWorker:
    """One process.

    Attributes:
        streams: Attempts that run here, by task.
        ending: It was told to end, and does so in a moment.
    """

    worker_id: WorkerId
    model: ModelPlan
    host: Host
    stage: Stage = Stage.STARTING
    streams: dict[TaskId, int] = field(default_factory=dict)
    ending: bool = False

    def registration(self) -> WorkerRegistered:
        """How it introduces itself."""
        return WorkerRegistered(
            worker_id=self.worker_id,
            model=self.model.name,
            backend="cpu",
            host=self.host.plan.name,
            location=f"unix:/{self.worker_id}",
            slots=self.model.slots,
            ready=self.stage is Stage.READY,
            need_mib=self.model.need_mib,
            proximity=self.host.plan.proximity,
        )

    def report(self) -> WorkerWaggled:
        """Its waggle."""
        return WorkerWaggled(
            worker_id=self.worker_id,
            ready=self.stage is Stage.READY,
            load_ratio=min(1.0, len(self.streams) / self.model.slots),
            vram_used_mib=self.model.need_mib,
            quality=1.0,
            engine_pid=1,
            slots=self.model.slots,
        )
