"""Why a task is not taken in, or not gone on with, in words that say what would help."""

from __future__ import annotations

from typing import Final

from swarmesh.core.errors import (
    InternalError,
    KeyConcurrencyError,
    KeyTokensError,
    ModelNotFoundError,
    NoExperiencedRustbeesError,
    NoRustbeesAvailableError,
    NoStableRustbeesError,
    PoisonTaskError,
    PolicyRefusedError,
    QuarantinedError,
    QueueFullError,
    ResumeDivergedError,
    RustbeeLostError,
    SwarmeshError,
    TaskRefusedError,
)
from swarmesh.core.events import StreamBroke
from swarmesh.core.fleet import Fleet
from swarmesh.core.ids import Blame, ModelName, Priority
from swarmesh.core.poison import KILLS_MAX, QUARANTINE_MS
from swarmesh.core.task import Task
from swarmesh.core.way_on import way_on

NOT_READY: Final = "rustbee_not_ready"
"""Code of a worker that says itself that it cannot take anything now: its engine is starting (again)."""
MOVES_MAX: Final = 3
"""Times a task may be given to another worker because one failed it."""
RETRY_AFTER_S: Final = 5


def is_expected(fleet: Fleet, model: ModelName) -> bool:
    """Whether any worker serves the model, or will without anybody's help."""
    return any(worker.may_serve for worker in fleet.of_model(model).values())


def is_in_reach(fleet: Fleet, model: ModelName) -> bool:
    """Whether any of those is heard: one that only reports is not waited for without end."""
    return any(worker.is_in_reach for worker in fleet.of_model(model).values())


def has_prospects(fleet: Fleet, task: Task, *, in_reach: bool = False) -> bool:
    """Whether any worker may yet take this task."""
    owners = (worker for worker in fleet.of_model(task.model).values() if worker.worker_id not in task.barred)
    return any(worker.is_in_reach if in_reach else worker.may_serve for worker in owners)


def unknown_model(task: Task) -> SwarmeshError:
    """Nobody serves the model and nobody could."""
    if not task.model:
        return NoRustbeesAvailableError("no rustbee is running, so there is no default modelcell")
    return ModelNotFoundError(f"no modelcell is called {task.model!r}", param="model")


def queue_full(waiting: int) -> SwarmeshError:
    """The key has its share of the queue."""
    return QueueFullError(
        f"{_tasks_of_key(waiting, 'waits', 'wait')} already, the most one key may have", retry_after_s=RETRY_AFTER_S
    )


def key_concurrency(taken: int, concurrency: int, retry_after_s: int) -> SwarmeshError:
    """The key has its share of tasks at once."""
    return KeyConcurrencyError(
        f"{_tasks_of_key(taken, 'is', 'are')} under way, and it may have {concurrency} at once",
        retry_after_s=retry_after_s,
    )


def key_tokens(expected: int, left: int, per_minute: int, retry_after_s: int) -> SwarmeshError:
    """The key has its share of tokens for now."""
    return KeyTokensError(
        f"this key may use {per_minute} tokens per minute and has {left} left, and this task may take {expected}",
        retry_after_s=retry_after_s,
    )


def quarantined(kills: int) -> SwarmeshError:
    """The same request has shown what it does."""
    return QuarantinedError(f"the same request crashed {kills} engines less than {QUARANTINE_MS // 60_000} minutes ago")


def kept_from_all(script: str, task: Task) -> SwarmeshError:
    """A policy script does not want the task anywhere."""
    return PolicyRefusedError(f"policy script {script!r} keeps this task from every rustbee of {task.model!r}")


def no_rustbees(fleet: Fleet, task: Task) -> NoRustbeesAvailableError:
    """Nobody can take this task now; the code says what its priority asks for (R-16)."""
    owners = fleet.of_model(task.model)
    states = ", ".join(
        f"{worker_id} is {worker.status}"
        + (" and silent" if worker.silent else "")
        + (" and failed this task" if worker_id in task.tried else "")
        for worker_id, worker in owners.items()
    )
    wanted, kind = "", NoRustbeesAvailableError
    if is_expected(fleet, task.model) and task.priority is not Priority.LOW:
        high = task.priority is Priority.HIGH
        wanted, kind = ("experienced ", NoExperiencedRustbeesError) if high else ("stable ", NoStableRustbeesError)
    return kind(
        f"no {wanted}rustbee serves {task.model!r}" + (f": {states}" if states else ""),
        hint=f"'swarmesh spawn rustbee --modelcell {task.model}' starts one.",
        retry_after_s=RETRY_AFTER_S,
    )


def reason_not_to_move(fleet: Fleet, task: Task, event: StreamBroke, *, supplied: bool = False) -> SwarmeshError | None:
    """Why a task whose stream broke ends there; None when another worker may go on with it.

    ``supplied``: a worker will be started in place of those that are gone.
    """
    if event.blame is Blame.TASK:
        kinds: dict[str, type[SwarmeshError]] = {kind.code: kind for kind in (ResumeDivergedError, InternalError)}
        return kinds.get(event.code, TaskRefusedError)(event.message, hint=way_on(event.message))
    lost = f"{event.message} ({event.code}, attempt {task.attempt})"
    if task.kills >= KILLS_MAX:
        return PoisonTaskError(f"{lost}; it crashed {task.kills} engines")
    if not event.resumable:
        return RustbeeLostError(f"{lost}; part of the answer was sent and cannot be gone on with")
    if task.moves > MOVES_MAX:
        return RustbeeLostError(f"{lost}; given up after {task.moves} rustbees failed it")
    # A durable task waits for a worker that somebody starts, as it would have done had it never run.
    waits = supplied or (task.durable and not is_expected(fleet, task.model))
    if not waits and not has_prospects(fleet, task):
        return RustbeeLostError(f"{lost}; no other rustbee serves {task.model!r}")
    return None


def _tasks_of_key(count: int, does: str, do: str) -> str:
    return f"1 task of this key {does}" if count == 1 else f"{count} tasks of this key {do}"
