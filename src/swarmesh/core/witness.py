"""Who may look on while the core decides: it is told what was known and what was chosen, and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from swarmesh.core.decision import Decision
from swarmesh.core.errors import SwarmeshError
from swarmesh.core.script import Facts
from swarmesh.core.task import Task


class Witness(Protocol):
    """Called on the way of every task, so that it must cost nothing unless it takes something down. Never raises."""

    def let_in(self, task: Task, refusal: SwarmeshError | None, now_ms: int) -> None:
        """A task was let in, or refused."""

    def chose(self, task: Task, decision: Decision, now_ms: int) -> None:
        """A worker was chosen for a task, and the books are still as they were."""

    def placed(self, model: Facts, hosts: Sequence[Facts], chosen: str | None) -> None:
        """A host was chosen for a worker of a model; None when none would do."""

    def scaled(self, model: Facts, stats: Facts, chosen: int) -> None:
        """It was decided how many workers a model ought to have, and something is done about it."""
