"""One standing connection to each agent, which brings a sign of life each second: how a lost host is noticed in 5 s."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from swarmesh.core.events import WorkerFellSilent, WorkerHeard
from swarmesh.core.ids import WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.net.upstream import UpstreamCall
from swarmesh.queen.driver import Driver
from swarmesh.queen.links import WorkerLink
from swarmesh.queen.vigil import TICK_S, Vigil
from swarmesh.wire.http1 import ResponseHead

SILENT_TICKS_MAX: Final = 10
"""5 s without a byte, or without a connection."""
DOUBT_TICKS: Final = 6
"""A suspect is asked how it is after 3 s, not at its next waggle, which may be half a minute away."""
RETRY_S: Final = 1.0
WATCH_TARGET: Final = b"/watch"


class ControlLinks:
    """The standing connections, one per agent for as long as its worker is known."""

    def __init__(self, driver: Driver, vigil: Vigil) -> None:
        self._driver = driver
        self._vigil = vigil
        self._links: dict[WorkerId, ControlLink] = {}

    def watch(self, worker_id: WorkerId) -> None:
        """Hold a connection to this worker; one that is silent is made anew, since there is news of its worker."""
        link = self._links.get(worker_id)
        if link is None:
            link = self._links[worker_id] = ControlLink(worker_id, self._driver, self.forget)
            self._vigil.add(link)
            link.connect()
        elif link.silent:
            link.reconnect()

    def lose(self, worker_id: WorkerId) -> None:
        """The way to this worker is known to be broken: it is silent from now on, until it is heard again."""
        link = self._links.get(worker_id)
        if link is not None:
            link.silent = True
            link.reconnect()

    def forget(self, worker_id: WorkerId) -> None:
        """Let the connection go; harmless when there is none."""
        link = self._links.pop(worker_id, None)
        if link is not None:
            self._vigil.remove(link)
            link.close()

    def close(self) -> None:
        """Let all go."""
        for worker_id in list(self._links):
            self.forget(worker_id)


class ControlLink:
    """One standing connection: a `Sink` to it, and under watch.

    Args:
        gone: Called when the worker is not known any more.

    Attributes:
        silent: The core was told that the worker cannot be heard.
    """

    def __init__(self, worker_id: WorkerId, driver: Driver, gone: Callable[[WorkerId], None]) -> None:
        self._worker_id = worker_id
        self._driver = driver
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._call: UpstreamCall | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._quiet_ticks = 0
        self._doubted_ticks = 0
        self.silent = False

    def connect(self) -> None:
        """Ask for signs of life, over the way that is known now."""
        link = self._link()
        if link is not None:
            self._call = link.get(WATCH_TARGET, self)

    def reconnect(self) -> None:
        """Hang up, and ask anew."""
        self.close()
        self.connect()

    def close(self) -> None:
        """Hang up."""
        if self._retry is not None:
            self._retry.cancel()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def tick(self) -> None:
        """See `swarmesh.queen.vigil.Watched`."""
        self._quiet_ticks += 1
        if self._quiet_ticks < SILENT_TICKS_MAX:
            self._ask_a_suspect()
            return
        if self._worker_id not in self._driver.swarm.fleet:
            self._gone(self._worker_id)
            return
        self._quiet_ticks = 0
        if not self.silent:
            self.silent = True
            words = f"{self._worker_id} was not heard for {SILENT_TICKS_MAX * TICK_S:g} s"
            self._driver.post(WorkerFellSilent(self._worker_id, words))
        # Now and later: a connection whose other end is lost stays open, and would be waited on for ever.
        self._again("it is silent")

    def received(self, head: ResponseHead | None, data: bytes, *, ended: bool) -> None:
        """See `swarmesh.net.upstream.Sink`."""
        if head is not None and head.status != 200:
            self._again(f"it answered {head.status}")
            return
        self._quiet_ticks = 0
        is_back = self.silent and bool(data)
        if is_back:
            self.silent = False
            self._driver.post(WorkerHeard(self._worker_id))
        # Also after a break too short for silence: what it was to be told meanwhile has not arrived.
        if (is_back or head is not None) and (link := self._driver.links.get(self._worker_id)) is not None:
            link.end_abandoned()
        if ended:
            self._again("it hung up")

    def broken(self, reason: str) -> None:
        """See `swarmesh.net.upstream.Sink`."""
        self._again(reason)

    def _ask_a_suspect(self) -> None:
        # Its stream broke and yet it lives: who begins to watch an agent is told at once how it is.
        worker = self._driver.swarm.fleet.get(self._worker_id)
        doubted = worker is not None and worker.status is WorkerStatus.SUSPECT and not self.silent
        self._doubted_ticks = self._doubted_ticks + 1 if doubted else 0
        if self._doubted_ticks >= DOUBT_TICKS:
            self._doubted_ticks = 0
            self.reconnect()

    def _again(self, _reason: str) -> None:
        # Why is nobody's business: an end is told by the process, a broken stream by the stream.
        self.close()
        if self._worker_id in self._driver.swarm.fleet:
            self._retry = self._loop.call_later(RETRY_S, self.connect)
        else:
            self._loop.call_soon(self._gone, self._worker_id)

    def _link(self) -> WorkerLink | None:
        link = self._driver.links.get(self._worker_id)
        if link is None:
            self._retry = self._loop.call_later(RETRY_S, self.connect)
        return link
