"""What those who hold tasks need to know of whoever starts workers by itself."""

from __future__ import annotations

from typing import Protocol

from swarmesh.core.commands import Command
from swarmesh.core.errors import SwarmeshError
from swarmesh.core.ids import ModelName


class Supply(Protocol):
    """Starts workers when they are needed. Called for tasks that find no slot, never for those that start at once."""

    def expects(self, model: ModelName) -> bool:
        """Whether tasks of a model that nobody serves may wait: a worker is being started, or will be."""

    def asked(self, model: ModelName, now_ms: int, out: list[Command]) -> None:
        """A task waits; if nobody serves its model a worker is asked for at once."""

    def shortfall(self, model: ModelName) -> SwarmeshError | None:
        """Why no worker of a model can be had now although one was wanted; None when none was, or one can."""

    def default_model(self) -> ModelName | None:
        """The model of a task that names none while no worker runs at all."""


class NoSupply:
    """Every worker is started by hand."""

    def expects(self, model: ModelName) -> bool:  # noqa: ARG002 - as the protocol has it
        """Nobody comes by itself."""
        return False

    def asked(self, model: ModelName, now_ms: int, out: list[Command]) -> None:
        """Nothing is done about it."""

    def shortfall(self, model: ModelName) -> SwarmeshError | None:  # noqa: ARG002 - as the protocol has it
        """None was wanted."""
        return None

    def default_model(self) -> ModelName | None:
        """There is none."""
        return None
