"""What workers say, as facts for the core."""

from __future__ import annotations

from swarmesh.core.events import WorkerRegistered, WorkerWaggled
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import LOCAL_HOST, HostName, ModelName, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.wire.spec import WorkerSpec
from swarmesh.wire.waggle import Registration, Waggle


def registered(registration: Registration, host: str, spec: WorkerSpec | None, *, proximity: float) -> WorkerRegistered:
    """A worker introduces itself. Which host it is on, and how to get there, the queen knows better."""
    # Of another machine a path alone says nothing.
    place = registration.location.removeprefix("unix:")
    location = registration.location if host == LOCAL_HOST else f"ssh://{host}{place}"
    return WorkerRegistered(
        worker_id=WorkerId(registration.rustbee_id),
        model=ModelName(registration.modelcell),
        backend=registration.backend,
        host=HostName(host),
        location=location,
        slots=registration.slots,
        ready=registration.status is not WorkerStatus.STARTING,
        pid=registration.pid,
        engine_pid=registration.engine_pid,
        uptime_ms=int(registration.uptime_s * 1000),
        need_mib=spec.reserved_mib if spec is not None else 0,
        gpus=spec.reserved_gpus if spec is not None else (),
        proximity=proximity,
    )


def waggled(waggle: Waggle, worker: Worker) -> WorkerWaggled:
    """It reports; what it leaves out is as it was."""
    return WorkerWaggled(
        worker_id=worker.worker_id,
        ready=waggle.status is not WorkerStatus.STARTING,
        load_ratio=waggle.load,
        vram_used_mib=waggle.vram_used,
        quality=waggle.quality,
        engine_pid=waggle.engine_pid or worker.engine_pid,
        slots=waggle.slots or worker.slots,
        backend=waggle.backend,
    )
