"""What a virtual machine may be in, and what it can reach of the world around it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from swarmesh.core.events import Event, WorkerWaggled
from swarmesh.core.ids import TaskId, WorkerId
from swarmesh.sim.clock import Clock
from swarmesh.sim.execution import Stream

if TYPE_CHECKING:
    from swarmesh.sim.machine import Machine


class Condition(StrEnum):
    """What a machine is really doing, whatever the swarm believes."""

    OFF = "off"
    LOADING = "loading"
    READY = "ready"
    WEDGED = "wedged"
    """The engine stands still; the agent does not."""
    PAUSED = "paused"
    """All of it stands still, and goes on later as if nothing had been."""
    HUNG = "hung"
    """All of it stands still until it is started anew."""


SILENT: Final = frozenset({Condition.PAUSED, Condition.HUNG})


class Surroundings(Protocol):
    """What a machine can reach of the world around it."""

    clock: Clock

    def tell(self, event: Event) -> None:
        """Let the queen know a fact, if she can be reached."""

    def waggle(self, machine: Machine, event: WorkerWaggled | None) -> int | None:
        """A report, or only the question for the interval; None asks for a registration, or means that nobody hears."""

    def finish(self, stream: Stream) -> None:
        """The stream reached its end mark."""

    def cut(self, stream: Stream, code: str) -> None:
        """The stream's connection closed without an end mark."""

    def crashed(self, worker_id: WorkerId, code: str, culprit: TaskId | None, seen: list[TaskId]) -> None:
        """An engine ended, because of a task if one is named, and with it all its streams that somebody sees."""

    def accepted(self, machine: Machine, stream: Stream) -> None:
        """The agent has begun to work for this stream."""

    def fell_silent(self, machine: Machine) -> None:
        """Nothing that the machine sends gets through from now on."""

    def heard_again(self, machine: Machine) -> None:
        """What it sends gets through."""
