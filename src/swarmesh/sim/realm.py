"""What a virtual queen can do to the world around her."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from swarmesh.core.commands import Command, RaiseAlarm
from swarmesh.core.events import Event
from swarmesh.core.ids import Blame
from swarmesh.sim.client import Spokesmen
from swarmesh.sim.clock import Clock
from swarmesh.sim.crowd import Crowd
from swarmesh.sim.disk import VirtualDisk
from swarmesh.sim.execution import Stream
from swarmesh.sim.places import Places

if TYPE_CHECKING:
    from swarmesh.sim.queen import VirtualQueen


class Realm(Protocol):
    """All of it.

    Attributes:
        places: Where processes are started, and end.
    """

    clock: Clock
    disk: VirtualDisk
    spokesmen: Spokesmen
    crowd: Crowd
    places: Places

    def told(self, event: Event, commands: list[Command]) -> None:
        """The core has decided."""

    def started(self, stream: Stream, queue_ms: int) -> None:
        """The core has given a task a slot."""

    def send(self, queen: VirtualQueen, stream: Stream, shown: bytes, *, rejoins: bool) -> None:
        """A request leaves for a worker."""

    def drop(self, stream: Stream) -> None:
        """A connection is closed by the queen."""

    def close_later(self, queen: VirtualQueen, stream: Stream, code: str, blame: Blame) -> None:
        """Let the queen find a connection closed, a moment later."""

    def alarm(self, queen: VirtualQueen, alarm: RaiseAlarm) -> None:
        """People are told."""
