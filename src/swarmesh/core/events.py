"""Facts that reach the core, in the past tense. Frozen; made by the queen process or by the simulator."""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.core.ids import Blame, HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.placement import HostCandidate
from swarmesh.core.scale_bounds import Bounds

TOKENS_TOLD_MAX: Final = 10_000_000
"""Of one answer, read or written; who tells more has told nothing. No model reads a tenth of that."""


class GpuMemory(msgspec.Struct, frozen=True, gc=False):
    """Memory of one GPU, MiB."""

    index: int
    total_mib: int
    available_mib: int


class HostProbed(msgspec.Struct, frozen=True, gc=False):
    """A host's memory was measured; MiB.

    Attributes:
        gpus: Those with memory of their own. One that shares the host's (Metal) has none and is left out.
    """

    host: HostName
    total_mib: int
    available_mib: int
    gpus: tuple[GpuMemory, ...] = ()


class HostDrainRequested(msgspec.Struct, frozen=True, gc=False):
    """The owner wants every worker of a host gone; what nobody else could go on with gets ``grace_ms`` to end there."""

    host: HostName
    grace_ms: int


class HostLost(msgspec.Struct, frozen=True, gc=False):
    """The connection to a host broke, and with it every stream from there; ``message`` says why."""

    host: HostName
    message: str


class SpawnRequested(msgspec.Struct, frozen=True, gc=False):
    """Somebody wants a worker started on a host that was probed just before; ``need_mib`` is the estimate.

    Attributes:
        gpus: Those whose memory it may take; none for main memory.
    """

    worker_id: WorkerId
    model: ModelName
    backend: str
    host: HostName
    slots: int
    need_mib: int
    gpus: tuple[int, ...] = ()


class SpawnProgressed(msgspec.Struct, frozen=True, gc=False):
    """A worker's start takes long, and goes on: its model is being copied."""

    worker_id: WorkerId


class SpawnFailed(msgspec.Struct, frozen=True, gc=False):
    """A worker that was to start did not; its memory is free again."""

    worker_id: WorkerId
    code: str
    message: str


class WorkerRegistered(msgspec.Struct, frozen=True, gc=False):
    """A worker introduced itself, or a server without an agent was adopted (``direct``).

    Attributes:
        need_mib: What it was promised when it was spawned, for a queen who was not there; 0 when nobody knows.
        gpus: On which GPUs; none for main memory.
        proximity: Of its host, 0.0 far to 1.0 near.
    """

    worker_id: WorkerId
    model: ModelName
    backend: str
    host: HostName
    location: str
    slots: int
    ready: bool
    direct: bool = False
    pid: int = 0
    engine_pid: int = 0
    uptime_ms: int = 0
    need_mib: int = 0
    gpus: tuple[int, ...] = ()
    proximity: float = 0.5


class WorkerWaggled(msgspec.Struct, frozen=True, gc=False):
    """A worker reported: load 0.0 to 1.0, memory in MiB, quality 0.0 to 1.0; an empty backend is not news."""

    worker_id: WorkerId
    ready: bool
    load_ratio: float
    vram_used_mib: int
    quality: float
    engine_pid: int
    slots: int
    backend: str = ""


class WorkerAlarmed(msgspec.Struct, frozen=True, gc=False):
    """A worker, or whoever watches it, cried for help.

    Attributes:
        returning: It restarts its engine by itself, so tasks may wait for it.
    """

    worker_id: WorkerId
    code: str
    message: str
    returning: bool = False


class WorkerFellSilent(msgspec.Struct, frozen=True, gc=False):
    """The queen's own connection to a worker has brought nothing for too long, or cannot be made."""

    worker_id: WorkerId
    message: str


class WorkerHeard(msgspec.Struct, frozen=True, gc=False):
    """The queen's own connection to a worker works (again)."""

    worker_id: WorkerId


class WorkerStopRequested(msgspec.Struct, frozen=True, gc=False):
    """The owner wants a worker gone; what runs there may end within ``grace_ms``, then it is moved."""

    worker_id: WorkerId
    grace_ms: int


class WorkerGone(msgspec.Struct, frozen=True, gc=False):
    """A worker's process has ended, as asked or by itself; it will not return under this id."""

    worker_id: WorkerId
    reason: str


class TaskSubmitted(msgspec.Struct, frozen=True, gc=False):
    """A client wants something done.

    Attributes:
        model: Empty means: whichever the swarm serves by default.
        model_known: The catalog has the model, so that a worker could be spawned for it.
        durable: The task is in the hivecomb already.
        resumable: What will be shown of it can be gone on with, so that it may be preempted.
        fingerprint: Equal for requests that ask the same; 0 when nobody knows.
        accepted: It was accepted before, by a queen that is gone; it waits if it must, and is not refused.
        attempts: How often it was dispatched by that queen.
        kills: Engines that crashed because of it then.
        running_on: The worker that had it last, and may have gone on with it alone.
        prefix: Hashes of the prompt's first blocks, each chained to the one before; see `swarmesh.wire.prefix`.
        checked: `Dispatcher.refusal` had nothing against it a moment ago: the policy script is not asked once more.
    """

    task_id: TaskId
    model: ModelName
    priority: Priority
    key_id: KeyId
    prompt_chars: int
    max_tokens: int
    durable: bool = False
    model_known: bool = False
    resumable: bool = False
    fingerprint: int = 0
    accepted: bool = False
    attempts: int = 0
    kills: int = 0
    running_on: WorkerId | None = None
    prefix: tuple[int, ...] = ()
    checked: bool = False


class KeyLimited(msgspec.Struct, frozen=True, gc=False):
    """An API key may have no more than so many tasks at once and tokens in a minute; 0 for as many as it likes."""

    key_id: KeyId
    concurrency: int = 0
    tokens_per_minute: int = 0


class KeyRevoked(msgspec.Struct, frozen=True, gc=False):
    """An API key opens nothing any more; tasks that were accepted with it go on, within its limits."""

    key_id: KeyId


class ModelScaled(msgspec.Struct, frozen=True, gc=False):
    """Somebody said how many workers a model may have; ``bounds`` None: it is not scaled any more.

    Attributes:
        model: Empty for the bounds of every model that has none of its own.
    """

    model: ModelName
    bounds: Bounds | None


class ScalingPaused(msgspec.Struct, frozen=True, gc=False):
    """Nothing is started or stopped by itself, of no model, until this is said again with ``paused`` False."""

    paused: bool


class SitesFound(msgspec.Struct, frozen=True, gc=False):
    """The answer to ``SeekSites``: where a worker of the model could be started now.

    Attributes:
        sites: One per host that could be asked, also those that lack the memory.
        failures: Why the others could not be asked, by host; an empty host if no place at all can help (no such file).
    """

    model: ModelName
    action: int
    sites: tuple[HostCandidate, ...]
    failures: tuple[tuple[HostName, str], ...] = ()


class LoadTimeKnown(msgspec.Struct, frozen=True, gc=False):
    """An earlier queen measured how long a worker of the model takes on that host from its start until it is ready."""

    model: ModelName
    host: HostName
    load_ms: int


class TaskCancelled(msgspec.Struct, frozen=True, gc=False):
    """The client left, or asked for an end.

    Attributes:
        shown_tokens: About how much of the answer it has got by then.
    """

    task_id: TaskId
    shown_tokens: int = 0


class StreamEnded(msgspec.Struct, frozen=True, gc=False):
    """A stream reached its end mark; a client's own mistake answered by the engine counts as an end too.

    Attributes:
        prompt_tokens: As the engine counted them; 0 when nobody knows.
        cached_tokens: Those of them it did not have to read again; -1 when it does not say.
        first_token_ms: From the dispatch to the first token; -1 when nobody saw it.
        shown_tokens: About how much passed, of an answer whose engine did not count; 0 otherwise.
    """

    task_id: TaskId
    attempt: int
    completion_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = -1
    first_token_ms: int = -1
    shown_tokens: int = 0

    def bounded(self) -> StreamEnded:
        """Itself; without its counts when one of them cannot be."""
        if 0 <= self.completion_tokens <= TOKENS_TOLD_MAX and 0 <= self.prompt_tokens <= TOKENS_TOLD_MAX:
            return self
        return msgspec.structs.replace(self, completion_tokens=0, prompt_tokens=0, cached_tokens=-1)


class StreamBegan(msgspec.Struct, frozen=True, gc=False):
    """The first token of a timed stream has come: its prompt is read."""

    task_id: TaskId
    attempt: int


class StreamProgressed(msgspec.Struct, frozen=True, gc=False):
    """A watched stream has brought something: the task did not crash this engine at once."""

    task_id: TaskId
    attempt: int


class StreamBroke(msgspec.Struct, frozen=True, gc=False):
    """A stream ended without its end mark.

    Attributes:
        code: Why; ``engine_crashed`` is held against the task as well.
        resumable: The answer can be gone on with: nothing was shown, or it is known what.
        final: The worker answered, and would answer the same again; only another one can help.
    """

    task_id: TaskId
    attempt: int
    blame: Blame
    code: str
    message: str
    resumable: bool = True
    final: bool = False


class Ticked(msgspec.Struct, frozen=True, gc=False):
    """Time has passed; leases and patience are looked at."""


Event = (
    TaskSubmitted
    | StreamEnded
    | WorkerWaggled
    | StreamBroke
    | StreamBegan
    | StreamProgressed
    | TaskCancelled
    | Ticked
    | KeyLimited
    | KeyRevoked
    | SitesFound
    | ModelScaled
    | ScalingPaused
    | LoadTimeKnown
    | WorkerRegistered
    | WorkerAlarmed
    | WorkerFellSilent
    | WorkerHeard
    | WorkerStopRequested
    | WorkerGone
    | HostProbed
    | HostDrainRequested
    | HostLost
    | SpawnRequested
    | SpawnProgressed
    | SpawnFailed
)
