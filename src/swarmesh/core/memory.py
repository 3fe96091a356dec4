"""Memory of hosts, reserved before anything is spawned, so that none is promised twice (R-26)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from swarmesh.core.errors import NotEnoughMemoryError
from swarmesh.core.ids import HostName, ModelName, WorkerId

USABLE_SHARE: Final = 0.92
"""Of a host's memory; the rest belongs to its operating system."""


@dataclass(slots=True)
class HostMemory:
    """One host's books, in MiB.

    Attributes:
        reserved: What each worker was promised, for as long as it may hold it.
        starting: Workers whose memory is promised but not yet visible in ``available_mib``.
    """

    total_mib: int
    available_mib: int
    reserved: dict[WorkerId, int] = field(default_factory=dict)
    starting: set[WorkerId] = field(default_factory=set)

    @property
    def free_mib(self) -> int:
        """What may still be promised: the smaller of what the books and what the host say."""
        by_books = int(self.total_mib * USABLE_SHARE) - sum(self.reserved.values())
        by_host = self.available_mib - sum(self.reserved[worker_id] for worker_id in self.starting)
        return max(0, min(by_books, by_host))


class MemoryBooks:
    """The books of every host that was probed."""

    def __init__(self) -> None:
        self._hosts: dict[HostName, HostMemory] = {}

    def probed(self, host: HostName, total_mib: int, available_mib: int) -> None:
        """Take in a fresh measurement; promises stand."""
        books = self._hosts.get(host)
        if books is None:
            self._hosts[host] = HostMemory(total_mib, available_mib)
        else:
            books.total_mib, books.available_mib = total_mib, available_mib

    def reserve(self, worker_id: WorkerId, model: ModelName, host: HostName, need_mib: int) -> None:
        """Promise memory to a worker that is about to start.

        Raises:
            NotEnoughMemoryError: The host has less than ``need_mib`` free, or was never probed.
        """
        books = self._hosts.get(host)
        free_mib = books.free_mib if books else 0
        if books is None or need_mib > free_mib:
            held = ", ".join(f"{holder} {mib} MiB" for holder, mib in books.reserved.items()) if books else ""
            raise NotEnoughMemoryError(
                f"{model} needs {need_mib} MiB on {host}, which has {free_mib} MiB free"
                + (f" (held: {held})" if held else ""),
                hint="Stop a rustbee there, use a smaller quantisation, or ask for fewer slots or less context.",
            )
        books.reserved[worker_id] = need_mib
        books.starting.add(worker_id)

    def settled(self, worker_id: WorkerId) -> None:
        """The worker has loaded its model: the host's own figures show it from now on."""
        for books in self._hosts.values():
            books.starting.discard(worker_id)

    def release(self, worker_id: WorkerId) -> None:
        """The worker is gone; harmless when nothing was promised to it."""
        for books in self._hosts.values():
            books.starting.discard(worker_id)
            books.reserved.pop(worker_id, None)

    def of_host(self, host: HostName) -> HostMemory | None:
        """One host's books, if it was ever probed."""
        return self._hosts.get(host)
