"""Names of things, each a type of its own, so that one is never passed for another."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NewType

WorkerId = NewType("WorkerId", str)
TaskId = NewType("TaskId", str)
ModelName = NewType("ModelName", str)
HostName = NewType("HostName", str)
KeyId = NewType("KeyId", str)

LOCAL_HOST: Final = HostName("localhost")
"""The machine the queen runs on."""


class Priority(StrEnum):
    """The bands of the queue, most urgent first."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Blame(StrEnum):
    """Whose doing a broken stream was."""

    WORKER = "worker"
    """Another worker may do better; the task moves, a bounded number of times."""
    TASK = "task"
    """No worker would do better; the task ends."""
    SWARM = "swarm"
    """The owner stopped the worker: nobody's fault, and the move is not counted."""
