"""What befalls all workers of one host at once: its connection breaks, or its owner wants it free."""

from __future__ import annotations

from swarmesh.core.candidates import SERVING
from swarmesh.core.commands import BreakStream, Command
from swarmesh.core.dispatch import Dispatcher
from swarmesh.core.events import HostDrainRequested, HostLost, WorkerFellSilent, WorkerStopRequested
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import Blame, HostName
from swarmesh.core.roster import Roster


class Hosts:
    """Turns what is true of a host into what is true of its workers; holds nothing of its own."""

    def __init__(self, fleet: Fleet, roster: Roster, dispatcher: Dispatcher) -> None:
        self._fleet = fleet
        self._roster = roster
        self._dispatcher = dispatcher

    def lost(self, event: HostLost, now_ms: int, out: list[Command]) -> None:
        """Every worker that is reached over the connection falls silent; ``WorkerHeard`` brings each one back.

        Streams are not broken off: they broke with the connection, and are told one by one. A worker that has not
        introduced itself yet cannot be heard again either, so its lease, or its failed start, decides.
        """
        for worker in self._of(event.host):
            if not worker.direct and worker.location:
                words = f"{worker.worker_id} is out of reach: the connection to {event.host} broke: {event.message}"
                self._roster.fell_silent(WorkerFellSilent(worker.worker_id, words), now_ms, out)

    def drain_requested(self, event: HostDrainRequested, now_ms: int, out: list[Command]) -> None:
        """Stop every worker there without losing a stream.

        What can be gone on with moves at once where another host serves the model now; all else gets the grace.
        """
        workers = self._of(event.host)
        for worker in workers:
            self._roster.stop_requested(WorkerStopRequested(worker.worker_id, event.grace_ms), now_ms, out)
        for worker in workers:
            if not worker.stop_asked_ms and self._serves_elsewhere(worker):
                self._move_streams(worker, out)

    def _of(self, host: HostName) -> list[Worker]:
        return [worker for worker in self._fleet if worker.host == host]

    def _serves_elsewhere(self, worker: Worker) -> bool:
        others = self._fleet.of_model(worker.model).values()
        return any(
            other.host != worker.host and other.status in SERVING and other.is_in_reach and other.slots
            for other in others
        )

    def _move_streams(self, worker: Worker, out: list[Command]) -> None:
        words = f"{worker.worker_id} is stopped, as its host {worker.host} is drained"
        # The last first: each goes to the head of the queue, so they wait there in the order they came in.
        for task_id in reversed(worker.running):
            task = self._dispatcher.tasks[task_id]
            if task.resumable:
                out.append(BreakStream(task_id, task.attempt, worker.worker_id, "rustbee_stopped", words, Blame.SWARM))
