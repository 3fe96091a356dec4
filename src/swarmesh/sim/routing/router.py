"""What the simulation asks of a router, and what a router may ask for."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from swarmesh.sim.routing.engine import Job
from swarmesh.sim.routing.request import Request


class Start(NamedTuple):
    """Give the request to that worker now; if it was stopped before, it goes on from where it stood."""

    number: int
    worker: int


class Stop(NamedTuple):
    """Take the request from that worker and keep what was written."""

    number: int
    worker: int


class Refuse(NamedTuple):
    """The request will not be answered; its client is told why."""

    number: int
    code: str


Order = Start | Stop | Refuse


class Router(Protocol):
    """Decides which worker gets a request. Each call is a fact; it is given in the order in which they happen."""

    def arrived(self, request: Request, now_ms: float) -> list[Order]:
        """A client asks."""
        ...

    def first_token(self, job: Job, worker: int, now_ms: float) -> list[Order]:
        """A worker has read the prompt."""
        ...

    def ended(self, job: Job, worker: int, now_ms: float) -> list[Order]:
        """A worker has written the whole answer."""
        ...

    def passed(self, now_ms: float) -> list[Order]:
        """Another second has passed."""
        ...
