"""How an engine, or the task given to it, fails."""

from __future__ import annotations

from swarmesh.core.errors import EngineError, TaskRefusedError


class EngineDiedError(EngineError):
    """The engine broke off in the middle of a task."""

    code = "engine_died"
    default_hint = "The rustbee restarts its engine by itself; 'engine.log' in its directory has the engine's words."


class TaskFailedError(TaskRefusedError):
    """The user's own code raised an exception; it would do so on any rustbee."""

    code = "task_failed"
    status = 422
