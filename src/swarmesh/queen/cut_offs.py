"""Drills: workers that are cut off for a while, as a lost network would cut them off. Kept in memory only."""

from __future__ import annotations

import asyncio

import structlog

from swarmesh.core.errors import NotFoundError, SwarmeshError
from swarmesh.core.ids import WorkerId
from swarmesh.queen.links import Links

log = structlog.get_logger("cut_offs")


class CutOffError(SwarmeshError):
    """This rustbee is cut off for a drill."""

    code = "cut_off"
    status = 503


class CutOffs:
    """Who is cut off, and until when."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._until_s: dict[WorkerId, float] = {}

    def cut(self, worker_id: WorkerId, seconds: float) -> None:
        """Break every connection to a worker, make none, and take no word from it, for so long.

        Raises:
            NotFoundError: There is no connection to such a worker.
        """
        link = self._links.get(worker_id)
        if link is None:
            raise NotFoundError(f"there is no connection to {worker_id!r} that could be cut")
        log.warning("cut_for_a_drill", rustbee_id=worker_id, seconds=seconds)
        self._until_s[worker_id] = asyncio.get_running_loop().time() + seconds
        link.cut(seconds)

    def check(self, worker_id: WorkerId) -> None:
        """Let the word of a worker through that is not cut off.

        Raises:
            CutOffError: It is.
        """
        if self._until_s and asyncio.get_running_loop().time() < self._until_s.get(worker_id, 0.0):
            raise CutOffError(f"{worker_id} is cut off for a drill")

    def forget(self, worker_id: WorkerId) -> None:
        """The worker is gone."""
        self._until_s.pop(worker_id, None)
