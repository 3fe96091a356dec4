"""What one run of the simulator is made of; two equal scenarios run identically."""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.sim.setting import OPEN, SETTINGS, Setting

HIGHEST_LOAD_RATIO: Final = 4.0


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One world, fully determined by these values.

    Attributes:
        name: Of its setting.
        events: Facts told to the core before the world calms down and every task is brought to its end.
        load_ratio: Work asked for, relative to what all machines can do; above 1.0 the queue grows.
        faults: Whether machines, clients and messages misbehave.
    """

    seed: int = 1
    name: str = OPEN
    workers: int = 1_000
    events: int = 100_000
    models: int = 4
    load_ratio: float = 0.9
    faults: bool = True

    def __post_init__(self) -> None:
        """Refuse a world that cannot be.

        Raises:
            ValueError: A value is out of its range; the words name it.
        """
        if not 1 <= self.models <= self.workers:
            raise ValueError(f"--models is {self.models}; it must be from 1 to --workers, {self.workers}")
        if self.events < 1:
            raise ValueError(f"--events is {self.events}; it must be at least 1")
        if not 0.0 < self.load_ratio <= HIGHEST_LOAD_RATIO:
            raise ValueError(f"--load is {self.load_ratio}; it must be above 0 and at most {HIGHEST_LOAD_RATIO}")

    @property
    def setting(self) -> Setting:
        """What else goes with its name."""
        return SETTINGS[self.name]

    def replay(self) -> str:
        """The command that runs this very world again, with the invariants on."""
        if self == scenario_of(self.name, self.seed) and self.name != OPEN:
            return f"python -m swarmesh.sim --setting {self.name} --seeds {self.seed} --check"
        values = f"--workers {self.workers} --events {self.events} --seed {self.seed}"
        values += f" --models {self.models} --load {self.load_ratio}"
        values += f" --setting {self.name}" if self.name != OPEN else ""
        return f"python -m swarmesh.sim {values}{'' if self.faults else ' --no-faults'} --check"


def scenario_of(name: str, seed: int) -> Scenario:
    """The world of that name and seed."""
    setting = SETTINGS[name]
    return Scenario(
        seed=seed,
        name=name,
        workers=setting.workers,
        events=setting.events,
        models=setting.models,
        load_ratio=setting.load_ratio,
    )
