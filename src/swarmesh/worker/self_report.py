"""What a worker says about itself: to the queen, to whoever asks for its health, and in its file."""

from __future__ import annotations

import itertools
import secrets
import time
from typing import Any

import msgspec

from swarmesh.core.liveness import WorkerStatus
from swarmesh.hosts.agent_file import AgentFile
from swarmesh.hosts.process_identity import ProcessIdentity, identify
from swarmesh.wire.spec import WorkerSpec
from swarmesh.wire.waggle import Registration, Waggle
from swarmesh.worker.meter import Meter
from swarmesh.worker.supervisor import Supervisor


class SelfReport:
    """Puts the facts of its parts together; holds few of its own.

    Attributes:
        epoch: The newest life of a queen that this worker has heard of.
    """

    def __init__(self, spec: WorkerSpec, identity: ProcessIdentity, supervisor: Supervisor, meter: Meter) -> None:
        self._spec = spec
        self._identity = identity
        self._supervisor = supervisor
        self._meter = meter
        self._nonce = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self.epoch = 0

    @property
    def location(self) -> str:
        """Where this worker is reached."""
        return f"unix:{self._spec.socket_path}"

    @property
    def slots(self) -> int:
        """What the engine reports; what was asked for, before it does."""
        info = self._supervisor.info
        return info.slots if info is not None else self._spec.slots

    def registration(self) -> Registration:
        """How it introduces itself."""
        return Registration(
            rustbee_id=self._spec.rustbee_id,
            modelcell=self._spec.modelcell,
            location=self.location,
            backend=self._backend(),
            host=self._spec.host,
            status=self._status(),
            slots=self.slots,
            vram_used=self._supervisor.memory_mib(),
            pid=self._identity.pid,
            engine_pid=self._supervisor.engine_pid,
            uptime_s=max(0.0, time.time() - self._identity.started_at),
            boot_id=self._identity.boot_id,
            started_at=self._identity.started_at,
            nonce=self._nonce,
            epoch=self.epoch,
            number=next(self._numbers),
        )

    def waggle(self, now_s: float, last_rtt_ms: float) -> Waggle:
        """The heartbeat; ``now_s`` is of the meter's clock."""
        busy = min(self._meter.busy, self.slots)
        return Waggle(
            rustbee_id=self._spec.rustbee_id,
            location=self.location,
            modelcell=self._spec.modelcell,
            load=round(busy / self.slots, 4),
            vram_used=self._supervisor.memory_mib(),
            quality=round(self._meter.quality(now_s), 4),
            backend=self._backend(),
            status=self._status(),
            slots=self.slots,
            slots_busy=busy,
            engine_pid=self._supervisor.engine_pid,
            tokens_per_s=round(self._meter.tokens_per_s(now_s), 2),
            last_rtt_ms=round(last_rtt_ms, 3),
            number=next(self._numbers),
        )

    def health(self, now_s: float) -> dict[str, Any]:
        """The fields of the waggle and of the registration, so that either can be read from it."""
        waggle = msgspec.to_builtins(self.waggle(now_s, 0.0))
        return {**waggle, **msgspec.to_builtins(self.registration()), "status": str(self._supervisor.status)}

    def agent_file(self) -> AgentFile:
        """What its directory says about it."""
        engine = identify(self._supervisor.engine_pid) if self._supervisor.engine_pid else None
        return AgentFile(
            rustbee_id=self._spec.rustbee_id,
            modelcell=self._spec.modelcell,
            pid=self._identity.pid,
            started_at=self._identity.started_at,
            boot_id=self._identity.boot_id,
            socket_path=self._spec.socket_path,
            engine_socket_path=self._spec.engine_socket_path,
            nonce=self._nonce,
            backend=self._backend(),
            engine_pid=engine.pid if engine is not None else 0,
            engine_started_at=engine.started_at if engine is not None else 0.0,
        )

    def _backend(self) -> str:
        info = self._supervisor.info
        return str(info.backend if info is not None else self._spec.backend)

    def _status(self) -> WorkerStatus:
        # A worker that drains tells the queen so by leaving; to her it goes on serving until then.
        return WorkerStatus.STARTING if self._supervisor.status is WorkerStatus.STARTING else WorkerStatus.HEALTHY
