"""The life of workers: spawned, registered, reporting, suspected, drained, gone."""

from __future__ import annotations

from swarmesh.core.commands import (
    Command,
    ForgetWorker,
    RaiseAlarm,
    RefuseSpawn,
    SpawnWorker,
    StopWorker,
)
from swarmesh.core.dispatch import Dispatcher
from swarmesh.core.errors import NotEnoughMemoryError
from swarmesh.core.events import (
    SpawnFailed,
    SpawnProgressed,
    SpawnRequested,
    WorkerAlarmed,
    WorkerFellSilent,
    WorkerGone,
    WorkerHeard,
    WorkerRegistered,
    WorkerStopRequested,
    WorkerWaggled,
)
from swarmesh.core.eviction import Evictions
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import Blame
from swarmesh.core.last_words import without_last_words
from swarmesh.core.liveness import WorkerFact, WorkerStatus, following, lease_fact
from swarmesh.core.memory import MemoryBooks

REST_INTERVAL_MS = 30_000
"""Between waggles of a worker at rest (R-11)."""
STARTING_INTERVAL_MS = 2_000
"""Between waggles of a worker that loads its model, so that it is used as soon as it is ready."""
STOP_RETRY_MS = 30_000
"""Between two demands to stop one worker."""
LOOK_STEP_MS_MAX = 2_000
"""What one look at the leases ages them at most. A queen that slept for longer heard nobody because she slept."""


class Roster:
    """Owns the fleet's statuses and the memory books; asks the dispatcher to move tasks."""

    def __init__(self, fleet: Fleet, memory: MemoryBooks, dispatcher: Dispatcher, *, amnesty_until_ms: int = 0) -> None:
        self._fleet = fleet
        self._memory = memory
        self._dispatcher = dispatcher
        self._evictions = Evictions(fleet)
        self._amnesty_until_ms = amnesty_until_ms
        self._looked_at_ms: int | None = None

    def spawn_requested(self, event: SpawnRequested, now_ms: int, out: list[Command]) -> None:
        """Reserve memory and start the worker, or refuse with need and have."""
        error = self.start(event, now_ms, out)
        if error is not None:
            out.append(RefuseSpawn(event.worker_id, error))

    def start(self, event: SpawnRequested, now_ms: int, out: list[Command]) -> NotEnoughMemoryError | None:
        """Reserve memory and start the worker; the shortage if there is too little, and then nothing has happened."""
        try:
            gpus = self._memory.reserve(event.worker_id, event.model, event.host, event.need_mib, event.gpus)
        except NotEnoughMemoryError as error:
            return error
        self._fleet.add(
            Worker(
                worker_id=event.worker_id,
                model=event.model,
                backend=event.backend,
                host=event.host,
                location="",
                slots=event.slots,
                direct=False,
                registered_at_ms=now_ms,
                status=WorkerStatus.STARTING,
                last_waggle_ms=now_ms,
            )
        )
        out.append(SpawnWorker(event.worker_id, event.host, gpus))
        return None

    def spawn_progressed(self, event: SpawnProgressed) -> None:
        """Renew the lease of a worker that has not introduced itself yet; one that has speaks for itself."""
        worker = self._fleet.get(event.worker_id)
        if worker is not None and not worker.location:
            worker.lease_age_ms = 0
            worker.held = False
            worker.status = following(worker.status, WorkerFact.REPORTED_STARTING)
            self._fleet.note(worker)

    def spawn_failed(self, event: SpawnFailed, out: list[Command]) -> None:
        """Free what was promised and say so; whoever waits for the worker sees it disappear."""
        self._memory.release(event.worker_id)
        worker = self._fleet.remove(event.worker_id)
        if worker is not None:
            out.append(RaiseAlarm(event.worker_id, event.code, event.message))
            # It may have registered, and been given tasks, before its start was found to have failed.
            self._dispatcher.give_up_on(worker, event.code, event.message, out)
            out.append(ForgetWorker(event.worker_id))

    def registered(self, event: WorkerRegistered, now_ms: int, out: list[Command]) -> None:
        """Take a worker in; one that comes back keeps its identity and its books."""
        known = self._fleet.get(event.worker_id)
        worker = Worker(
            worker_id=event.worker_id,
            model=event.model,
            backend=event.backend,
            host=event.host,
            location=event.location,
            slots=event.slots,
            direct=event.direct,
            registered_at_ms=now_ms - event.uptime_ms,
            status=WorkerStatus.STARTING,
            pid=event.pid,
            engine_pid=event.engine_pid,
            last_waggle_ms=now_ms,
            proximity=event.proximity,
        )
        if known is not None:
            worker.status, worker.stop_at_ms = known.status, known.stop_at_ms
            worker.stop_asked_ms, worker.last_chosen = known.stop_asked_ms, known.last_chosen
            worker.silent = known.silent
            worker.trail = known.trail
            if known.model == worker.model:
                worker.running, worker.backlog = known.running, known.backlog
                worker.pace, worker.read_until_ms = known.pace, known.read_until_ms
                worker.probation, worker.crash = known.probation, known.crash
            else:
                words = f"{known.worker_id} serves {worker.model} now"
                self._dispatcher.give_up_on(known, "rustbee_changed", words, out)
        self._fleet.add(worker)
        self._memory.restore(worker.worker_id, worker.host, event.need_mib, event.gpus)
        self._reported(worker, now_ms, out, ready=event.ready)

    def waggled(self, event: WorkerWaggled, now_ms: int, out: list[Command]) -> None:
        """Renew the lease and take in the report; an unknown worker is asked to register by the answer."""
        worker = self._fleet.get(event.worker_id)
        if worker is None:
            return
        worker.last_waggle_ms = now_ms
        worker.lease_age_ms = 0
        worker.load_ratio = event.load_ratio
        worker.vram_used_mib = event.vram_used_mib
        worker.quality = event.quality
        worker.engine_pid = event.engine_pid
        worker.backend = event.backend or worker.backend
        worker.slots = event.slots
        worker.reported = True
        self._reported(worker, now_ms, out, ready=event.ready)

    def alarmed(self, event: WorkerAlarmed, out: list[Command]) -> None:
        """Mark the worker dead at once and move its tasks (R-13)."""
        out.append(RaiseAlarm(event.worker_id, event.code, event.message))
        worker = self._fleet.get(event.worker_id)
        if worker is not None:
            self._bury(worker, WorkerFact.ALARMED, event.code, event.message, out)
            worker.returning = event.returning

    def fell_silent(self, event: WorkerFellSilent, now_ms: int, out: list[Command]) -> None:
        """Give nothing more to a worker that cannot be reached, and move its tasks unless too many fall silent."""
        worker = self._fleet.get(event.worker_id)
        if worker is None or worker.silent:
            return
        worker.silent = True
        self._fleet.note(worker)
        if worker.status is WorkerStatus.DEAD or now_ms < self._amnesty_until_ms:
            return
        # Not that it is a suspect: streams that broke came over the same network as the silence.
        overdue = lease_fact(worker.lease_age_ms, worker.interval_ms) is not None
        if self._evictions.allow(now_ms, certain=overdue):
            out.append(RaiseAlarm(worker.worker_id, "rustbee_silent", event.message))
            self._bury(worker, WorkerFact.ALARMED, "rustbee_silent", event.message, out)
            worker.returning = True  # Its lease has not expired: it may be a network that comes back.
        else:
            self._hold(worker, event.message, out)

    def heard(self, event: WorkerHeard, now_ms: int, out: list[Command]) -> None:
        """A worker can be reached again; what it can do its next report says."""
        worker = self._fleet.get(event.worker_id)
        if worker is not None and worker.silent:
            worker.silent = False
            self._fleet.note(worker)
            self._dispatcher.serve(worker.model, now_ms, out)

    def stop_requested(self, event: WorkerStopRequested, now_ms: int, out: list[Command]) -> None:
        """Drain the worker; stop it when it is empty or its grace is over."""
        worker = self._fleet.get(event.worker_id)
        if worker is None:
            return
        if worker.status is not WorkerStatus.DEAD:
            worker.status = following(worker.status, WorkerFact.DRAIN_REQUESTED)
        worker.returning = False
        worker.stop_asked_ms = 0
        self._fleet.note(worker)
        # A second request may shorten the grace, never lengthen it.
        until_ms = max(1, now_ms + event.grace_ms)
        worker.stop_at_ms = min(worker.stop_at_ms, until_ms) if worker.stop_at_ms else until_ms
        self.stop_if_drained(worker, now_ms, out)

    def stop_if_drained(self, worker: Worker, now_ms: int, out: list[Command]) -> None:
        """Stop a draining worker that is empty or out of grace; harmless for any other.

        Until its process is reported gone the wish is repeated every ``STOP_RETRY_MS``, in case it was lost.
        """
        if not worker.stop_at_ms or (worker.running and now_ms < worker.stop_at_ms):
            return
        if worker.stop_asked_ms and now_ms - worker.stop_asked_ms < STOP_RETRY_MS:
            return
        worker.stop_asked_ms = max(1, now_ms)
        words = f"{worker.worker_id} was stopped"
        self._dispatcher.give_up_on(worker, "rustbee_stopped", words, out, Blame.SWARM)
        out.append(StopWorker(worker.worker_id, worker.host, worker.direct))

    def gone(self, event: WorkerGone, out: list[Command]) -> None:
        """Forget a worker whose process has ended; its tasks move on."""
        worker = self._fleet.get(event.worker_id)
        self._memory.release(event.worker_id)
        if worker is None:
            return
        if not worker.stop_at_ms:
            out.append(RaiseAlarm(worker.worker_id, "rustbee_exited", event.reason))
        blame = Blame.SWARM if worker.stop_at_ms else Blame.WORKER
        self._dispatcher.give_up_on(worker, "rustbee_exited", without_last_words(event.reason), out, blame)
        self._fleet.remove(worker.worker_id)
        out.append(ForgetWorker(worker.worker_id))

    def look_at_leases(self, now_ms: int, out: list[Command]) -> None:
        """Suspect the overdue, bury the expired, stop the drained."""
        looked_at_ms = now_ms if self._looked_at_ms is None else self._looked_at_ms
        step_ms = min(now_ms - looked_at_ms, LOOK_STEP_MS_MAX)
        self._looked_at_ms = now_ms
        for worker in list(self._fleet):
            worker.lease_age_ms += step_ms
            if worker.status is not WorkerStatus.DEAD or worker.returning:
                self._look_at_lease(worker, now_ms, out)
            self.stop_if_drained(worker, now_ms, out)

    def _look_at_lease(self, worker: Worker, now_ms: int, out: list[Command]) -> None:
        fact = lease_fact(worker.lease_age_ms, worker.interval_ms)
        if fact is None:
            return
        if fact is WorkerFact.LEASE_EXPIRED and now_ms >= self._amnesty_until_ms:
            words = f"no waggle from {worker.worker_id} for {worker.lease_age_ms} ms"
            if self._evictions.allow(now_ms, certain=worker.silent):
                out.append(RaiseAlarm(worker.worker_id, "lease_expired", words))
                self._bury(worker, fact, "lease_expired", words, out)
                return
            self._hold(worker, words, out)
        self._suspect(worker)

    def _hold(self, worker: Worker, words: str, out: list[Command]) -> None:
        if not worker.held:
            worker.held = True
            words = f"{words}; not declared dead: so many fell silent at once that it may be this queennode's network"
            out.append(RaiseAlarm(worker.worker_id, "eviction_held", words))
        self._suspect(worker)

    def _suspect(self, worker: Worker) -> None:
        worker.status = following(worker.status, WorkerFact.SUSPECTED)
        self._fleet.note(worker)

    def _reported(self, worker: Worker, now_ms: int, out: list[Command], *, ready: bool) -> None:
        fact = WorkerFact.REPORTED_READY if ready else WorkerFact.REPORTED_STARTING
        if ready and worker.status is not WorkerStatus.HEALTHY and not worker.stop_at_ms:
            self._dispatcher.forgive(worker)
        worker.status = following(worker.status, fact)
        if worker.stop_at_ms:  # It was dead when, or since, it was asked to stop; it comes back only to end.
            worker.status = following(worker.status, WorkerFact.DRAIN_REQUESTED)
        worker.interval_ms = REST_INTERVAL_MS if ready else STARTING_INTERVAL_MS
        worker.returning = worker.held = False
        self._fleet.note(worker)
        if ready:
            self._memory.settled(worker.worker_id)
            self._dispatcher.serve(worker.model, now_ms, out)

    def _bury(self, worker: Worker, fact: WorkerFact, code: str, message: str, out: list[Command]) -> None:
        worker.status = following(worker.status, fact)
        worker.returning = False
        self._fleet.note(worker)
        self._dispatcher.give_up_on(worker, code, without_last_words(message), out)
