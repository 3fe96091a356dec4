"""A worker as people see it, and as the hivecomb keeps it."""

from __future__ import annotations

import time

import msgspec

from swarmesh.core.fleet import Worker
from swarmesh.core.ids import ModelName, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.queen.driver import now_ms
from swarmesh.store.records import WorkerRecord
from swarmesh.wire.errors import ErrorBody
from swarmesh.wire.hosts import Step
from swarmesh.wire.spec import WorkerSpec
from swarmesh.wire.views import RustbeeView, WaggleView
from swarmesh.wire.waggle import Registration, Waggle


def rustbee_view(worker: Worker, last_alarm: ErrorBody | None, progress: Step | None = None) -> RustbeeView:
    """One row of the list; the alarm is shown while the worker is dead of it, progress while it is being started."""
    busy = len(worker.running)
    return RustbeeView(
        rustbee_id=worker.worker_id,
        modelcell=worker.model,
        backend=worker.backend,
        host=worker.host,
        location=worker.location,
        status=shown_status(worker).value,
        load=round(min(1.0, busy / worker.slots), 4) if worker.slots else 0.0,
        slots=worker.slots,
        slots_busy=busy,
        vram_used=worker.vram_used_mib,
        quality=worker.quality,
        uptime_s=round((now_ms() - worker.registered_at_ms) / 1000, 3),
        pid=worker.pid,
        engine_pid=worker.engine_pid,
        next_waggle=worker.interval_ms / 1000,
        error=last_alarm if worker.status is WorkerStatus.DEAD else None,
        progress=progress,
    )


def shown_status(worker: Worker) -> WorkerStatus:
    """What people see: one that reports well but cannot be reached gets nothing, so it is not called healthy."""
    unreachable = worker.silent and worker.status is WorkerStatus.HEALTHY
    return WorkerStatus.SUSPECT if unreachable else worker.status


def waggle_view(worker: Worker, last: Waggle | None) -> WaggleView:
    """The last report, its age and how long it took; None for a worker that has not reported yet."""
    return WaggleView(
        rustbee_id=worker.worker_id,
        modelcell=worker.model,
        status=shown_status(worker).value,
        load=worker.load_ratio,
        vram_used=worker.vram_used_mib,
        quality=worker.quality,
        tokens_per_s=last.tokens_per_s if last else 0.0,
        waggle_age_s=round((now_ms() - worker.last_waggle_ms) / 1000, 3) if worker.location else None,
        waggle_rtt_ms=last.last_rtt_ms if last else None,
        next_waggle=worker.interval_ms / 1000,
        trail=round(worker.trail.quality(now_ms()), 4),
    )


def worker_record(registration: Registration, host: str, spec: WorkerSpec | None) -> WorkerRecord:
    """What a restarted queen needs to know; keys are derived again when needed, so no secret is kept."""
    kept = msgspec.json.encode(msgspec.structs.replace(spec, key="")) if spec is not None else b"{}"
    return WorkerRecord(
        worker_id=WorkerId(registration.rustbee_id),
        modelcell=ModelName(registration.modelcell),
        backend=registration.backend,
        host=host,
        location=registration.location,
        slots=registration.slots,
        status=registration.status.value,
        pid=registration.pid,
        engine_pid=registration.engine_pid,
        boot_id=registration.boot_id,
        nonce=registration.nonce,
        key_sha256=b"",
        direct=False,
        spec=kept,
        registered_at_ms=time.time_ns() // 1_000_000,
    )
