"""The workers of the swarm, by id and by model. One writer (`Swarm`), so no locks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from swarmesh.core.ids import HostName, ModelName, TaskId, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.speed import Pace
from swarmesh.core.trail import Trail


@dataclass(slots=True)
class Crash:
    """One crash of one engine, while its streams break one by one.

    Attributes:
        culprit: The task that did it, when that can be told: the only one on probation, or the only one at all.
        serial: Of the last dispatch to the worker before it; later ones met an engine that was gone already.
    """

    engine_pid: int
    culprit: TaskId | None
    serial: int


_EXPECTED = frozenset({WorkerStatus.STARTING, WorkerStatus.HEALTHY, WorkerStatus.SUSPECT})


@dataclass(slots=True)
class Worker:
    """One rustbee as the swarm sees it.

    Attributes:
        slots: How many tasks may run there at once.
        direct: An adopted server without an agent; the queen's own probes stand in for its waggles.
        load_ratio: What the worker itself last reported, 0.0 to 1.0; the ledger knows sooner.
        interval_ms: The waggle interval the queen last asked for.
        running: Tasks on its slots, with the work charged for each in token-equivalents.
        backlog: Sum of the charges in ``running``.
        silent: The queen hears nothing on her own connection to it, whatever its waggles say.
        lease_age_ms: How long the queen has been awake since its last waggle.
        held: Its lease has expired, but too many were declared dead just before to believe it.
        probation: The one task here that may crash engines and has not shown yet that it does not.
        crash: How its present engine crashed, while its streams are breaking one by one.
        returning: Dead or starting, but expected back without anybody's help.
        stop_at_ms: When a draining worker is stopped although tasks still run there; 0 while it is not draining.
        stop_asked_ms: When its processes were last asked to end; 0 before that.
        last_chosen: Serial number of its last dispatch; the tie-break, so that equals take turns.
        proximity: Of its host, 0.0 far to 1.0 near.
        reported: It has waggled since it registered, so that its load is known.
        pace: What is learned of its speed.
        trail: What it did badly of late.
        read_until_ms: When it will have read the prompts of its tasks, by the queen's books; 0 if it has none.
        used_at_ms: When the scaler last saw that it is used, or first saw it; 0 before that.
        used_serial: ``last_chosen`` by then.
    """

    worker_id: WorkerId
    model: ModelName
    backend: str
    host: HostName
    location: str
    slots: int
    direct: bool
    registered_at_ms: int
    status: WorkerStatus
    pid: int = 0
    engine_pid: int = 0
    load_ratio: float = 0.0
    vram_used_mib: int = 0
    quality: float = 1.0
    last_waggle_ms: int = 0
    interval_ms: int = 30_000
    running: dict[TaskId, float] = field(default_factory=dict)
    backlog: float = 0.0
    silent: bool = False
    lease_age_ms: int = 0
    held: bool = False
    probation: TaskId | None = None
    crash: Crash | None = None
    returning: bool = False
    stop_at_ms: int = 0
    stop_asked_ms: int = 0
    last_chosen: int = 0
    proximity: float = 0.5
    reported: bool = False
    pace: Pace = field(default_factory=Pace)
    trail: Trail = field(default_factory=Trail)
    read_until_ms: int = 0
    used_at_ms: int = 0
    used_serial: int = 0

    @property
    def may_serve(self) -> bool:
        """Whether a task may wait for it: it serves, or will without anybody's help, and nobody wants it gone."""
        return not self.stop_at_ms and (self.returning or self.status in _EXPECTED)

    @property
    def is_in_reach(self) -> bool:
        """Whether it `may_serve` and the queen hears it: a silent one gets nothing, however well it reports."""
        return self.may_serve and not self.silent

    @property
    def slots_free(self) -> int:
        """Slots nobody uses; never negative, also when a worker shrinks under its load."""
        return max(0, self.slots - len(self.running))


class Fleet:
    """Every known worker, dead ones too, until it is forgotten.

    Attributes:
        changed: Who was noted since `take_changed`; only to be read.
    """

    def __init__(self) -> None:
        self._by_id: dict[WorkerId, Worker] = {}
        self._by_model: dict[ModelName, dict[WorkerId, Worker]] = {}
        self.changed: dict[WorkerId, None] = {}

    def note(self, worker: Worker) -> None:
        """Something changed that a choice of workers may depend on: whoever changes it says so here."""
        self.changed[worker.worker_id] = None

    def is_noted(self, worker: Worker) -> bool:
        """Whether a change of this worker has not been taken yet."""
        return worker.worker_id in self.changed

    def take_changed(self) -> list[WorkerId]:
        """Workers that have come, changed or gone since the last call, each once."""
        changed = list(self.changed)
        self.changed.clear()
        return changed

    def add(self, worker: Worker) -> None:
        """Take a worker in, in place of one with the same id: it keeps that one's turn in every order."""
        known = self._by_id.get(worker.worker_id)
        if known is not None and known.model != worker.model:
            self.remove(known.worker_id)
        self.note(worker)
        self._by_id[worker.worker_id] = worker
        self._by_model.setdefault(worker.model, {})[worker.worker_id] = worker

    def remove(self, worker_id: WorkerId) -> Worker | None:
        """Forget a worker; None when it was not known."""
        worker = self._by_id.pop(worker_id, None)
        if worker is not None:
            self.note(worker)
            of_model = self._by_model[worker.model]
            del of_model[worker_id]
            if not of_model:
                del self._by_model[worker.model]
        return worker

    def get(self, worker_id: WorkerId) -> Worker | None:
        """The worker of that id, if known."""
        return self._by_id.get(worker_id)

    def of_model(self, model: ModelName) -> dict[WorkerId, Worker]:
        """Workers that own ``model``, in order of registration; not a copy."""
        return self._by_model.get(model, {})

    def models(self) -> list[ModelName]:
        """Models with at least one known worker, in order of first registration."""
        return list(self._by_model)

    def __iter__(self) -> Iterator[Worker]:
        """Every worker, in order of registration."""
        return iter(self._by_id.values())

    def __len__(self) -> int:
        """How many workers are known."""
        return len(self._by_id)

    def __contains__(self, worker_id: object) -> bool:
        """Whether that id is known."""
        return worker_id in self._by_id
