"""A host of a virtual swarm: what its workers really hold of its memory, whatever anybody's books say."""

from __future__ import annotations

from dataclasses import dataclass, field

from swarmesh.core.events import HostProbed
from swarmesh.core.ids import ModelName, WorkerId
from swarmesh.core.memory_pool import PoolFree
from swarmesh.core.placement import HostCandidate
from swarmesh.sim.scaling.plan import HostPlan, ModelPlan


@dataclass(slots=True, eq=False)
class Host:
    """What stands on it.

    Attributes:
        held: Memory that is taken or spoken for by processes, in MiB.
        loaded: Of those, whose memory a measurement shows.
        files: Models whose files need not be copied to it any more.
    """

    plan: HostPlan
    held: dict[WorkerId, int] = field(default_factory=dict)
    loaded: set[WorkerId] = field(default_factory=set)
    files: set[ModelName] = field(default_factory=set)

    def probe(self) -> HostProbed:
        """Measure its memory; what a worker that loads will take shows only when it has loaded."""
        used_mib = sum(mib for worker_id, mib in self.held.items() if worker_id in self.loaded)
        return HostProbed(self.plan.name, self.plan.total_mib, self.plan.total_mib - used_mib)

    def site(self, model: ModelPlan, worker_id: WorkerId, pools: tuple[PoolFree, ...]) -> HostCandidate:
        """What it offers for a worker of a model; ``pools`` are what the core's books leave of its memory."""
        return HostCandidate(
            host=self.plan.name,
            need_mib=model.need_mib,
            pools=pools,
            file_there=model.name in self.files,
            proximity=self.plan.proximity,
            workers=len(self.held),
            worker_id=worker_id,
            backend="cpu",
            slots=model.slots,
        )

    def take(self, worker_id: WorkerId, mib: int) -> None:
        """A process starts."""
        self.held[worker_id] = mib

    def free(self, worker_id: WorkerId) -> None:
        """A process has ended."""
        self.held.pop(worker_id, None)
        self.loaded.discard(worker_id)
