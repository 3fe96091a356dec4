"""What goes wrong, when, and with whom: all drawn from one seeded generator."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from swarmesh.core.events import (
    Event,
    SpawnRequested,
    StreamBroke,
    StreamEnded,
    TaskCancelled,
    WorkerAlarmed,
    WorkerGone,
    WorkerStopRequested,
)
from swarmesh.core.ids import WorkerId
from swarmesh.sim.machine import ALARM_MS, Condition, Machine

if TYPE_CHECKING:
    from swarmesh.sim.world import VirtualWorld

FAULT_EVERY_MS: Final = 300_000
"""Mean time between two faults of one machine: a hard life, so that a short run sees all kinds."""
RESTART_MS: Final = (500, 15_000)
SILENCE_MS: Final = (40_000, 400_000)
STALL_MS: Final = (30_000, 170_000)
"""Waggles that come late: from not even suspicious to beyond the lease."""
GRACES_MS: Final = (0, 2_000, 30_000)
REMEMBERED_EVENTS: Final = 64
GREED_MIB: Final = 1_000_000


class Faults:
    """Strikes one machine after another while the world lasts."""

    def __init__(self, world: VirtualWorld, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self._past: deque[Event] = deque(maxlen=REMEMBERED_EVENTS)
        kinds: dict[Callable[[Machine], None], int] = {
            self.crash: 4,
            self.exit: 2,
            self.silence: 2,
            self.stall: 3,
            self.flap: 2,
            self.drain: 3,
            self.shrink: 1,
            self.hiccup: 3,
            self.echo: 3,
            self.greed: 1,
        }
        self._kinds = list(kinds)
        self._weights = list(kinds.values())

    def start(self) -> None:
        """Let trouble begin."""
        self._world.clock.after(self._gap_ms(), self._strike)

    def witness(self, event: Event) -> None:
        """Remember a fact, so that it can be told a second time."""
        if isinstance(event, StreamEnded | StreamBroke | TaskCancelled):
            self._past.append(event)

    def _strike(self) -> None:
        if self._world.calm:
            return
        machine = self._rng.choice(self._world.standing)
        if machine.condition in (Condition.READY, Condition.LOADING):
            kind = self._rng.choices(self._kinds, self._weights)[0]
            self._world.record.faults[kind.__name__] += 1
            kind(machine)
        self.start()

    def crash(self, machine: Machine) -> None:
        """The engine is killed and comes back."""
        machine.crash(self._rng.randint(*RESTART_MS), self._rng.randint(*ALARM_MS))

    def exit(self, machine: Machine) -> None:
        """The process is killed for good; the news come in either order."""
        machine.end()
        gone = WorkerGone(machine.worker_id, "exit status 137")
        alarm = WorkerAlarmed(machine.worker_id, "engine_given_up", "three restarts in 60 s")
        for event in (gone, alarm):
            self._world.clock.after(self._rng.randint(*ALARM_MS), self._telling(event))

    def silence(self, machine: Machine) -> None:
        """The machine hangs: no waggles, no tokens, no closed connections."""
        machine.hang(self._rng.randint(*SILENCE_MS))

    def stall(self, machine: Machine) -> None:
        """Waggles are late while the work goes on."""
        machine.stall_ms = self._rng.randint(*STALL_MS)

    def flap(self, machine: Machine) -> None:
        """The agent introduces itself again without need."""
        machine.register()

    def drain(self, machine: Machine) -> None:
        """The owner wants it gone, and sometimes says so twice."""
        for _ in range(self._rng.choice((1, 1, 2))):
            self._world.tell(WorkerStopRequested(machine.worker_id, self._rng.choice(GRACES_MS)))

    def shrink(self, machine: Machine) -> None:
        """The engine offers another number of slots from the next waggle on; a second time it recovers."""
        full = machine.offered_slots == machine.slots
        machine.offered_slots = self._rng.randrange(machine.slots) if full else machine.slots

    def hiccup(self, machine: Machine) -> None:
        """One connection is lost."""
        if machine.streams:
            stream = min(machine.streams, key=lambda stream: stream.request.task.task_id)
            machine.drop(stream)
            self._world.cut(stream)

    def echo(self, _machine: Machine) -> None:
        """An old fact is told again."""
        if self._past:
            self._world.tell(self._rng.choice(self._past))

    def greed(self, machine: Machine) -> None:
        """Somebody asks for a worker that no host can hold."""
        worker_id = WorkerId(f"{machine.worker_id}-giant")
        self._world.probe(machine.host)
        self._world.tell(SpawnRequested(worker_id, machine.model, "cpu", machine.host, 1, GREED_MIB))

    def _telling(self, event: Event) -> Callable[[], None]:
        return lambda: self._world.tell(event)

    def _gap_ms(self) -> float:
        return self._rng.expovariate(len(self._world.standing) / FAULT_EVERY_MS)
