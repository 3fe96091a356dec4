"""Names of things, each a type of its own, so that one is never passed for another."""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

WorkerId = NewType("WorkerId", str)
TaskId = NewType("TaskId", str)
ModelName = NewType("ModelName", str)
HostName = NewType("HostName", str)
KeyId = NewType("KeyId", str)


class Priority(StrEnum):
    """The bands of the queue, most urgent first."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Blame(StrEnum):
    """Whose fault a broken stream was; only a worker's fault is worth a second try elsewhere."""

    WORKER = "worker"
    TASK = "task"
