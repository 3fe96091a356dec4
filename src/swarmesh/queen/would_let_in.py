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
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import ModelName
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.poison import QUARANTINE_MS
from swarmesh.core.scale_sites import BARRED
from swarmesh.core.swarm import Swarm
from swarmesh.queen.refusal_book import Refused
from swarmesh.queen.spawning import OTHER_GPUS

KEPT_FROM_ALL: Final = "keeps this task from every rustbee of"
"""In the queennode's own words for a task that a script's scores leave no worker for."""
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


def would_let_in(refused: Refused, swarm: Swarm, at_ms: int) -> tuple[str, ...]:
    """One sentence each; the first is the nearest.

    Args:
        refused: What was refused, and how.
        swarm: By whom.
        at_ms: Now: a worker that was free then may not be so any more.
    """
    sentences: list[str] = []
    if refused.retry_after_s is not None:
        sentences.append(f"to come again after {refused.retry_after_s} s")
    model = refused.submitted.model if refused.submitted is not None else ModelName("")
    if refused.code in _NOBODY_CODES:
        sentences += _for_nobody(model, swarm, at_ms)
    elif refused.code == ModelCannotBePlacedError.code:
        sentences += _for_no_place(model, refused.message, swarm.scripted.name)
    elif refused.code == PolicyRefusedError.code:
        sentences += _for_script(refused.message)
    else:
        sentences += _FOR_CODE.get(refused.code, ())
    return tuple(sentences) or (refused.hint or "nothing that the queennode knows of",)


def _for_nobody(model: ModelName, swarm: Swarm, at_ms: int) -> list[str]:
    workers = list(swarm.fleet.of_model(model).values())
    sentences = [_for_worker(worker) for worker in workers[:WORKERS_NAMED_MAX]]
    if len(workers) > WORKERS_NAMED_MAX:
        sentences.append(f"or any of {len(workers) - WORKERS_NAMED_MAX} more")
    name = model or "NAME"
    sentences.append(f"a rustbee with {model or 'any modelcell'}: swarmesh spawn rustbee --modelcell {name}")
    if model and not workers:
        sentences += _for_scaling(model, swarm, at_ms)
    sentences.append("a nectarflow in place of an interactive request: it waits for a rustbee")
    return sentences


def _for_scaling(model: ModelName, swarm: Swarm, at_ms: int) -> list[str]:
    """What would have started one by itself: bounds, or an end of what holds the scaler back."""
    try:
        state = swarm.scaler.state_of(model, at_ms)
    except KeyError:
        state = None
    if state is None or state.bounds is None:
        return [f"rustbees that are started when they are asked for: swarmesh swarmscale set {model} --max 1"]
    return [sentence for sentence in state.would_change if not sentence.startswith("down")]


def _for_no_place(model: ModelName, words: str, script: str) -> list[str]:
    """By the reasons that were told by host: room helps none that lacks a GPU, or from which a script keeps it."""
    sentences = []
    if BARRED in words:
        named = f"policy script {script!r}" if script else "the policy script"
        sentences.append(f"{named} letting it onto a host, or no script: swarmesh policy deactivate")
    if OTHER_GPUS in words:
        name = model or "NAME"
        sentences.append(f"rustbees of any type, that take what a host has: swarmesh swarmscale set {name} --type auto")
        sentences.append(f"or one started without --type: swarmesh spawn rustbee --modelcell {name}")
    if " MiB" in words or not (BARRED in words or OTHER_GPUS in words):
        placement = f"swarmesh explain placement {model or 'NAME'}"
        sentences.append(f"a host with room for it: {placement} shows what each of them lacks")
        sentences.append("a smaller quantisation, or fewer slots or less context: it needs less memory then")
    return [*sentences, "a nectarflow in place of an interactive request: it waits for a rustbee"]


def _for_script(words: str) -> list[str]:
    # `score` gives no reasons, so the words are ours then; what `admit` says is the script's own.
    lets_in = "wants on some rustbee" if KEPT_FROM_ALL in words else "lets in: the words above are the script's own"
    return [f"a task that the policy script {lets_in}", "another script, or none: swarmesh policy deactivate"]


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
    ModelNotFoundError.code: ("a modelcell of that name: swarmesh models list shows those there are",),
    PoisonTaskError.code: ("another request: this one crashed the engines that ran it", "a mended engine"),
    QuarantinedError.code: (
        f"another request, or the same one {QUARANTINE_MS // 60_000} minutes after the last crash",
        "a mended engine",
    ),
    TooManyStreamsError.code: (
        "fewer answers under way",
        "a larger streams_max under [queennode] in swarmesh.toml",
    ),
    RustbeeLostError.code: ("another rustbee with this modelcell, for the task to be moved to",),
}
