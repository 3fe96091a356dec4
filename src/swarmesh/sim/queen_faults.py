"""What befalls the queen, her disk, her clock and her network."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from swarmesh.sim.disk import LATENCY_MS
from swarmesh.sim.surroundings import Condition

if TYPE_CHECKING:
    from swarmesh.sim.world import VirtualWorld

DOWN_MS: Final = (100, 20_000)
PAUSE_MS: Final = (500, 150_000)
SLOW_MS: Final = (50, 3_000)
SLOW_FOR_MS: Final = (5_000, 60_000)
FULL_FOR_MS: Final = (2_000, 30_000)
JUMP_MS: Final = 7_200_000
SPLIT_MS: Final = (1_000, 90_000)
LOST_MS: Final = (1, 5_000)
"""How long ago the writes may lie that a power failure takes from a disk that lied."""


class QueenFaults:
    """Strikes now and then while the world lasts."""

    def __init__(self, world: VirtualWorld, rng: Random) -> None:
        self._world = world
        self._rng = rng
        weights = world.setting.queen_faults
        self._kinds: list[Callable[[], None]] = [getattr(self, name) for name in weights]
        self._weights = list(weights.values())

    def start(self) -> None:
        """Let trouble begin, in a setting that has any."""
        every_ms = self._world.setting.queen_fault_every_ms
        if every_ms:
            self._world.clock.after(self._rng.expovariate(1 / every_ms), self._strike)

    def queen_crash(self) -> None:
        """She is killed and started anew."""
        self._world.crash_queen(self._rng.randint(*DOWN_MS))

    def queen_pause(self) -> None:
        """She stands still, then all that has waited reaches her at once."""
        self._world.pause_queen(self._rng.randint(*PAUSE_MS))

    def slow_disk(self) -> None:
        """Every write takes long."""
        self._world.disk.latency_ms = self._rng.randint(*SLOW_MS)
        self._world.clock.after(self._rng.randint(*SLOW_FOR_MS), self._quick_disk)

    def full_disk(self) -> None:
        """No write succeeds."""
        self._world.disk.full = True
        self._world.clock.after(self._rng.randint(*FULL_FOR_MS), self._room)

    def clock_jump(self) -> None:
        """The wall clock is set, forwards or back."""
        self._world.disk.wall_offset_ms = self._rng.randint(-JUMP_MS, JUMP_MS)

    def split(self) -> None:
        """Many machines cannot be reached at once: it is her own network."""
        share, heal_ms = self._rng.uniform(0.3, 1.0), self._rng.randint(*SPLIT_MS)
        for machine in self._world.standing:
            if machine.condition is not Condition.OFF and not machine.silent and self._rng.random() < share:
                machine.partition(heal_ms)

    def power_loss(self) -> None:
        """She is killed, and the disk had lied about its last writes."""
        self._world.crash_queen(self._rng.randint(*DOWN_MS), lost_ms=self._rng.randint(*LOST_MS))

    def _strike(self) -> None:
        if self._world.calm:
            return
        kind = self._rng.choices(self._kinds, self._weights)[0]
        self._world.record.faults[kind.__name__] += 1
        kind()
        self.start()

    def _quick_disk(self) -> None:
        self._world.disk.latency_ms = LATENCY_MS

    def _room(self) -> None:
        self._world.disk.full = False
