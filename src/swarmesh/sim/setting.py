"""Worlds by name: how big, how busy, and what goes wrong in them."""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.core.events import KeyLimited
from swarmesh.core.ids import KeyId, Priority
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.swarm import Swarm

_SHARES: Final = {Priority.HIGH: 0.2, Priority.MEDIUM: 0.6, Priority.LOW: 0.2}
_MACHINE_FAULTS: Final = {
    "crash": 4,
    "exit": 2,
    "silence": 2,
    "stall": 3,
    "flap": 2,
    "drain": 3,
    "shrink": 1,
    "hiccup": 3,
    "echo": 3,
    "greed": 1,
    "partition": 3,
    "pause": 3,
    "wedge": 2,
    "late": 2,
    "ghost": 2,
    "lose_host": 2,
    "drain_host": 1,
}
_QUEEN_FAULTS: Final = {"queen_crash": 6, "queen_pause": 2, "slow_disk": 2, "full_disk": 2, "clock_jump": 1, "split": 2}


_KEY_LIMITS: Final = (
    KeyLimited(KeyId("key-1"), tokens_per_minute=4_000),
    KeyLimited(KeyId("key-2"), concurrency=2),
    KeyLimited(KeyId("key-4"), concurrency=1, tokens_per_minute=10_000),
)


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same in all worlds of one name; seeds make the rest.

    Attributes:
        events: Facts told to the core before the world calms down.
        load_ratio: Work asked for, relative to what all machines can do.
        slots: Sizes of machines.
        machines_per_host: As many share a host, its memory and its connection.
        priorities: Shares of the bands.
        durable_share: Tasks that are kept in the hivecomb.
        resumable_share: Tasks that can be gone on with after something was shown.
        poison_share: Tasks that crash the engine at some token; half of them ask what another one asked before.
        machine_faults: Kinds of `swarmesh.sim.faults` by weight.
        fault_every_ms: Mean time between two faults of one machine.
        queen_faults: Kinds of `swarmesh.sim.queen_faults` by weight.
        queen_fault_every_ms: Mean time between two of them; 0 for never.
        key_limits: What some keys may have at once and in a minute.
        bounds: For models, by number, of which the queen decides how many machines there are.
        disk_lies: Acknowledged writes may vanish in a power failure, and tasks with them.
    """

    workers: int
    models: int
    events: int
    load_ratio: float
    slots: tuple[int, ...] = (1, 2, 4)
    machines_per_host: int = 4
    priorities: dict[Priority, float] = msgspec.field(default_factory=_SHARES.copy)
    durable_share: float = 0.3
    resumable_share: float = 0.9
    poison_share: float = 0.0
    machine_faults: dict[str, int] = msgspec.field(default_factory=_MACHINE_FAULTS.copy)
    fault_every_ms: int = 300_000
    queen_faults: dict[str, int] = msgspec.field(default_factory=_QUEEN_FAULTS.copy)
    queen_fault_every_ms: int = 0
    key_limits: tuple[KeyLimited, ...] = ()
    bounds: dict[int, Bounds] = msgspec.field(default_factory=dict)
    disk_lies: bool = False

    def limit_keys(self, swarm: Swarm, now_ms: int) -> None:
        """Tell a new core what keys may have."""
        for limit in self.key_limits:
            swarm.handle(limit, now_ms)


OPEN: Final = ""
"""The world whose size is given on the command line."""

SETTINGS: Final[dict[str, Setting]] = {
    OPEN: Setting(workers=1_000, models=4, events=100_000, load_ratio=0.9, slots=(1, 2, 4, 8)),
    "small": Setting(
        workers=3,
        models=1,
        events=2_000,
        load_ratio=0.8,
        machines_per_host=1,
        durable_share=0.1,
        poison_share=0.004,
        fault_every_ms=60_000,
    ),
    "batch": Setting(
        workers=8,
        models=2,
        events=2_000,
        load_ratio=1.3,
        machines_per_host=2,
        priorities={Priority.HIGH: 0.15, Priority.MEDIUM: 0.2, Priority.LOW: 0.65},
        durable_share=0.7,
        poison_share=0.002,
        fault_every_ms=120_000,
        key_limits=_KEY_LIMITS,
    ),
    "chaos": Setting(
        workers=20,
        models=3,
        events=2_500,
        load_ratio=0.9,
        durable_share=0.6,
        poison_share=0.004,
        fault_every_ms=150_000,
        machine_faults={**_MACHINE_FAULTS, "segfault": 2},
        queen_fault_every_ms=60_000,
        key_limits=_KEY_LIMITS,
    ),
    "scaled": Setting(
        workers=8,
        models=4,
        events=2_500,
        load_ratio=0.5,
        machines_per_host=2,
        durable_share=0.5,
        fault_every_ms=200_000,
        queen_fault_every_ms=120_000,
        bounds={1: Bounds(0, 4), 2: Bounds(1, 3), 3: Bounds(0, 2)},
    ),
    "unsynced": Setting(
        workers=6,
        models=2,
        events=1_200,
        load_ratio=0.8,
        machines_per_host=2,
        durable_share=0.8,
        fault_every_ms=150_000,
        queen_faults={"power_loss": 3, "queen_crash": 1},
        queen_fault_every_ms=60_000,
        disk_lies=True,
    ),
}
