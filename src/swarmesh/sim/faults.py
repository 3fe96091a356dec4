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
    WorkerWaggled,
)
from swarmesh.core.ids import WorkerId
from swarmesh.core.poison import ENGINE_CRASHED
from swarmesh.sim.machine import ALARM_MS, NEED_MIB, RESTART_MS, Machine
from swarmesh.sim.surroundings import Condition

if TYPE_CHECKING:
    from swarmesh.sim.world import VirtualWorld

SILENCE_MS: Final = (40_000, 400_000)
STALL_MS: Final = (30_000, 170_000)
"""Waggles that come late: from not even suspicious to beyond the lease."""
PARTITION_MS: Final = (500, 120_000)
PAUSE_MS: Final = (500, 60_000)
WEDGED_MS: Final = (8_000, 20_000)
"""Until the agent is sure that its engine stands still."""
LATE_MS: Final = (1_000, 60_000)
GRACES_MS: Final = (0, 2_000, 30_000)
NOTICED_MS: Final = (0, 5_000)
"""Until the queen knows that the connection to a host is gone."""
LOST_MS: Final = (1_000, 180_000)
DRAINED_MS: Final = (10_000, 120_000)
REMEMBERED_EVENTS: Final = 64
GREED_MIB: Final = 1_000_000


class Faults:
    """Strikes one machine after another while the world lasts."""

    def __init__(self, world: VirtualWorld, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self._past: deque[Event] = deque(maxlen=REMEMBERED_EVENTS)
        weights = world.setting.machine_faults
        self._kinds: list[Callable[[Machine], None]] = [getattr(self, name) for name in weights]
        self._weights = list(weights.values())

    def start(self) -> None:
        """Let trouble begin."""
        self._world.clock.after(self._gap_ms(), self._strike)

    def witness(self, event: Event) -> None:
        """Remember a fact, so that it can be told a second time."""
        if isinstance(event, StreamEnded | StreamBroke | TaskCancelled):
            self._past.append(event)

    def forget(self) -> None:
        """The queen they were told is gone."""
        self._past.clear()

    def _strike(self) -> None:
        if self._world.calm:
            return
        standing = self._world.standing
        machine = self._rng.choice(standing) if standing else None
        if machine is not None and machine.condition in (Condition.READY, Condition.LOADING) and not machine.cut_off:
            kind = self._rng.choices(self._kinds, self._weights)[0]
            self._world.record.faults[kind.__name__] += 1
            kind(machine)
        self.start()

    def crash(self, machine: Machine) -> None:
        """The engine is killed and comes back."""
        machine.crash(self._rng.randint(*RESTART_MS), self._rng.randint(*ALARM_MS))

    def segfault(self, machine: Machine) -> None:
        """The engine crashes for no reason, which looks as if one of its tasks had done it."""
        machine.crash(self._rng.randint(*RESTART_MS), self._rng.randint(*ALARM_MS), ENGINE_CRASHED)

    def wedge(self, machine: Machine) -> None:
        """The engine stands still; its agent notices."""
        if machine.condition is Condition.READY:
            machine.wedge(self._rng.randint(*WEDGED_MS), self._rng.randint(*RESTART_MS))

    def partition(self, machine: Machine) -> None:
        """The network to one machine is gone for a while."""
        machine.partition(self._rng.randint(*PARTITION_MS))

    def pause(self, machine: Machine) -> None:
        """A machine stands still and goes on later as if nothing had been."""
        machine.pause(self._rng.randint(*PAUSE_MS))

    def late(self, machine: Machine) -> None:
        """A report is overtaken by newer ones."""
        report = WorkerWaggled(
            machine.worker_id,
            machine.condition is Condition.READY,
            0.0,
            NEED_MIB,
            1.0,
            machine.engine_pid,
            machine.offered_slots,
        )
        delay_ms = self._rng.randint(*LATE_MS)

        def arrive() -> None:
            # It may say that the worker still starts, and those have to report often.
            self._world.trouble(machine.worker_id)
            self._world.crowd.outdated += machine.engine_pid != report.engine_pid
            self._world.tell(report)

        self._world.clock.after(delay_ms, arrive)

    def ghost(self, machine: Machine) -> None:
        """A request that was on its way to the machine for long arrives at last; nobody waits for its answer."""
        sent = [(stream, shown) for stream, shown in self._world.sent if stream.worker_id == machine.worker_id]
        if sent:
            machine.haunt(*self._rng.choice(sent))

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
        self._world.trouble(machine.worker_id)

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
        streams = [execution.stream for execution in machine.running if execution.stream is not None]
        if streams:
            stream = min(streams, key=lambda stream: stream.request.task.task_id)
            machine.drop(stream)
            self._world.cut(stream, "stream_cut")

    def echo(self, _machine: Machine) -> None:
        """An old fact is told again."""
        if self._past:
            self._world.tell(self._rng.choice(self._past))

    def greed(self, machine: Machine) -> None:
        """Somebody asks for a worker that no host can hold."""
        worker_id = WorkerId(f"{machine.worker_id}-giant")
        self._world.hosts.probe(machine.host)
        gpus = self._rng.choice(((), (0, 1)))
        self._world.tell(SpawnRequested(worker_id, machine.model, "cpu", machine.host, 1, GREED_MIB, gpus))

    def lose_host(self, machine: Machine) -> None:
        """The connection to a whole host is gone for a while, and all its machines with it."""
        self._world.hosts.lose(machine.host, self._rng.randint(*NOTICED_MS), self._rng.randint(*LOST_MS))

    def drain_host(self, machine: Machine) -> None:
        """The owner wants a whole host, and gives it back later."""
        self._world.hosts.drain(machine.host, self._rng.choice(GRACES_MS), self._rng.randint(*DRAINED_MS))

    def _telling(self, event: Event) -> Callable[[], None]:
        return lambda: self._world.tell(event)

    def _gap_ms(self) -> float:
        return self._rng.expovariate(max(1, len(self._world.standing)) / self._world.setting.fault_every_ms)
