"""How an engine, or the task given to it, fails."""

from __future__ import annotations

from typing import Final

from swarmesh.core.errors import EngineError, TaskRefusedError
from swarmesh.engines.engine_exit import EndCode


class EngineDiedError(EngineError):
    """The engine broke off in the middle of a task."""

    code = "engine_died"
    default_hint = "The rustbee restarts its engine by itself; 'engine.log' in its directory has the engine's words."


class EngineCrashedError(EngineDiedError):
    """The engine crashed in the middle of a task."""

    code = "engine_crashed"


class EngineStuckError(EngineDiedError):
    """The engine did not go on with a task, and was killed."""

    code = "engine_stuck"


ERROR_OF_END: Final[dict[EndCode, type[EngineDiedError]]] = {
    EndCode.CRASHED: EngineCrashedError,
    EndCode.DIED: EngineDiedError,
    EndCode.STUCK: EngineStuckError,
}
"""What a task is told when the engine it ran on has ended."""


class TaskFailedError(TaskRefusedError):
    """The user's own code raised an exception; it would do so on any rustbee."""

    code = "task_failed"
    status = 422
