"""What would have let a refused task in, from the code it was refused with and the workers as they are now."""

from __future__ import annotations

from typing import Final

from swarmesh.core.errors import (
    KeyConcurrencyError,
    KeyTokensError,
    ModelCannotBePlacedError,
    ModelNotFoundError,
    NoExperiencedRustbeesError,
    NoRustbeesAvailableError,
    NoStableRustbeesError,
    PoisonTaskError,
    PolicyRefusedError,
    QuarantinedError,
    QueueFullError,
    RustbeeLostError,
    TooManyStreamsError,
)
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import ModelName
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.poison import QUARANTINE_MS
from swarmesh.queen.refusal_book import Refused

WORKERS_NAMED_MAX: Final = 8
"""Workers of which is said what they lack."""

_NOBODY_CODES: Final = frozenset(
    kind.code for kind in (NoRustbeesAvailableError, NoStableRustbeesError, NoExperiencedRustbeesError)
)
_LACKS: Final = {
    WorkerStatus.STARTING: "having started",
    WorkerStatus.HEALTHY: "a free slot",
    WorkerStatus.SUSPECT: "reporting again",
    WorkerStatus.DRAINING: "not being drained",
    WorkerStatus.DEAD: "being alive",
}


def would_let_in(refused: Refused, fleet: Fleet) -> tuple[str, ...]:
    """One sentence each; the first is the nearest."""
    sentences: list[str] = []
    if refused.retry_after_s is not None:
        sentences.append(f"to come again after {refused.retry_after_s} s")
    model = refused.submitted.model if refused.submitted is not None else ModelName("")
    sentences += _for_nobody(model, fleet) if refused.code in _NOBODY_CODES else _FOR_CODE.get(refused.code, ())
    return tuple(sentences) or (refused.hint or "nothing that the queennode knows of",)


def _for_nobody(model: ModelName, fleet: Fleet) -> list[str]:
    workers = list(fleet.of_model(model).values())
    sentences = [_for_worker(worker) for worker in workers[:WORKERS_NAMED_MAX]]
    if len(workers) > WORKERS_NAMED_MAX:
        sentences.append(f"or any of {len(workers) - WORKERS_NAMED_MAX} more")
    name = model or "NAME"
    sentences.append(f"a rustbee with {model or 'any modelcell'}: swarmesh spawn rustbee --modelcell {name}")
    if model and not workers:
        sentences.append(f"rustbees that are started when they are asked for: swarmesh swarmscale set {name} --max 1")
    sentences.append("a nectarflow in place of an interactive request: it waits for a rustbee")
    return sentences


def _for_worker(worker: Worker) -> str:
    lack = "an answer on the queennode's connection" if worker.silent else _LACKS[worker.status]
    return f"{worker.worker_id} with {lack}"


_FOR_CODE: Final[dict[str, tuple[str, ...]]] = {
    QueueFullError.code: (
        "fewer tasks of this key in the broodqueue",
        "another rustbee with this modelcell",
        "a larger queue_max_per_key under [queennode] in swarmesh.toml",
    ),
    KeyConcurrencyError.code: (
        "fewer tasks of this key under way",
        "a key that may have more at once",
        "a nectarflow in place of an interactive request: it waits for its turn",
    ),
    KeyTokensError.code: (
        "a shorter prompt or a lower max_tokens",
        "a key that may use more tokens per minute",
        "a nectarflow in place of an interactive request: it waits for its turn",
    ),
    ModelCannotBePlacedError.code: (
        "a host with room for it: swarmesh explain placement shows what each of them lacks",
        "a smaller quantisation, or fewer slots or less context: it needs less memory then",
        "a nectarflow in place of an interactive request: it waits for a rustbee",
    ),
    ModelNotFoundError.code: ("a modelcell of that name: swarmesh models list shows those there are",),
    PoisonTaskError.code: ("another request: this one crashed the engines that ran it", "a mended engine"),
    QuarantinedError.code: (
        f"another request, or the same one {QUARANTINE_MS // 60_000} minutes after the last crash",
        "a mended engine",
    ),
    PolicyRefusedError.code: (
        "a task that the policy script lets in: the words above are the script's own",
        "another script, or none: swarmesh policy deactivate",
    ),
    TooManyStreamsError.code: (
        "fewer answers under way",
        "a larger streams_max under [queennode] in swarmesh.toml",
    ),
    RustbeeLostError.code: ("another rustbee with this modelcell, for the task to be moved to",),
}
