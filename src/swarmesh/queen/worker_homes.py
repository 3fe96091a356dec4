"""Which host each worker lives on: a host speaks for its own workers only, whatever ids it makes keys for."""

from __future__ import annotations

from swarmesh.core.errors import ConflictError, ForbiddenError
from swarmesh.core.fleet import Fleet
from swarmesh.core.ids import WorkerId

WORKERS_PER_HOST_MAX = 256
"""Of one machine; more are not taken in, so that none can drown the queen in connections."""


class WorkerHomes:
    """Known from the hivecomb, from what the queen starts, and from who introduces himself first."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._hosts: dict[WorkerId, str] = {}

    def check(self, worker_id: WorkerId, host: str) -> None:
        """Let a host speak for a worker that is its own, or nobody's yet.

        Raises:
            ForbiddenError: The worker lives on another host.
        """
        worker = self._fleet.get(worker_id)
        known = self._hosts.get(worker_id) or (worker.host if worker is not None else host)
        if known != host:
            raise ForbiddenError(f"{worker_id} is no rustbee of {host}", hint="Each rustbee has an id of its own.")

    def settle(self, worker_id: WorkerId, host: str) -> None:
        """From now on the worker is this host's.

        Raises:
            ForbiddenError: It lives on another host.
            ConflictError: The host has too many already.
        """
        self.check(worker_id, host)
        if worker_id not in self._hosts and list(self._hosts.values()).count(host) >= WORKERS_PER_HOST_MAX:
            raise ConflictError(f"{host} has {WORKERS_PER_HOST_MAX} rustbees already, the most that one host may have")
        self._hosts[worker_id] = host

    def recall(self, worker_id: WorkerId, host: str) -> None:
        """It lived there under the queen before."""
        self._hosts[worker_id] = host

    def forget(self, worker_id: WorkerId) -> None:
        """The worker is gone; its id is free."""
        self._hosts.pop(worker_id, None)
