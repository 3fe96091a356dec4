"""The rows of the hivecomb as immutable values.

Times are milliseconds since the Unix epoch. Fields are in the order of the columns that
``sql/queries.sql`` selects, required ones first.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET, Struct, UnsetType

from swarmesh.core.errors import InvalidValueError
from swarmesh.core.ids import HostName, KeyId, ModelName, TaskId, WorkerId
from swarmesh.core.scale_bounds import Bounds, checked
from swarmesh.core.task import TaskStatus

UNFINISHED: Final = tuple(status.value for status in TaskStatus if not status.is_final)
FINISHED: Final = tuple(status.value for status in TaskStatus if status.is_final)
DECISION_KINDS: Final = ("admit", "score", "place", "scale")
_PORT_MAX: Final = 65_535
_STATUSES: Final = frozenset(UNFINISHED + FINISHED)


class TaskRecord(Struct, frozen=True, gc=False):
    """One durable task, from its submission to its end.

    Attributes:
        status: A value of ``core.task.TaskStatus``: one of ``UNFINISHED`` or ``FINISHED``.
        request: The JSON exactly as it was submitted.
        idempotency_key: Unique per ``key_id`` when given; a second submission with it is the first one.
        attempts: How often the task was handed to a worker, counted before each hand-over.
        kills: How many engines crashed by themselves while they ran it.
        epoch: Fences streams of earlier queens; an attempt speaks only for its own epoch.

    Raises:
        InvalidValueError: ``status`` is not a known one.
    """

    task_id: TaskId
    status: str
    modelcell: ModelName
    priority: str
    key_id: KeyId
    request: bytes
    created_at_ms: int
    idempotency_key: str | None = None
    attempts: int = 0
    kills: int = 0
    epoch: int = 0
    worker_id: WorkerId | None = None
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    error_hint: str | None = None

    def __post_init__(self) -> None:
        _check_status(self.status)


class TaskPatch(Struct, frozen=True, gc=False, omit_defaults=True):
    """Changes of a task; a field left ``UNSET`` keeps its value, ``None`` clears it.

    Raises:
        InvalidValueError: ``status`` is given and not a known one.
    """

    status: str | UnsetType = UNSET
    attempts: int | UnsetType = UNSET
    kills: int | UnsetType = UNSET
    epoch: int | UnsetType = UNSET
    worker_id: WorkerId | UnsetType | None = UNSET
    started_at_ms: int | UnsetType | None = UNSET
    finished_at_ms: int | UnsetType | None = UNSET
    prompt_tokens: int | UnsetType | None = UNSET
    completion_tokens: int | UnsetType | None = UNSET
    finish_reason: str | UnsetType | None = UNSET
    error_code: str | UnsetType | None = UNSET
    error_message: str | UnsetType | None = UNSET
    error_hint: str | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        if self.status is not UNSET:
            _check_status(self.status)

    def changes(self) -> dict[str, str | int | None]:
        """The fields that are set, by name, in the order of their declaration."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not UNSET}


class TokenRow(Struct, frozen=True, gc=False):
    """One event of a task's output.

    Attributes:
        seq: Position in the task's output, from 1 without gaps.
        text: What the event adds to the text; may be empty.
        token_ids: The engine's own token ids behind ``text``, when it told them.
        data: A piece of binary output, such as a PNG, with its ``media_type``.

    Raises:
        InvalidValueError: ``seq`` is below 1.
    """

    seq: int
    text: str
    token_ids: tuple[int, ...] = ()
    data: bytes | None = None
    media_type: str | None = None

    def __post_init__(self) -> None:
        if self.seq < 1:
            raise InvalidValueError(f"token seq is {self.seq}; the first is 1", param="seq")

    @property
    def size_bytes(self) -> int:
        """About how much it takes, in memory and on disk."""
        return len(self.text) + len(self.data or b"")


class WorkerRecord(Struct, frozen=True, gc=False):
    """A registered worker, as much of it as a restarted queen needs to adopt it.

    Attributes:
        backend: What computes: ``cuda``, ``metal``, ``rocm``, ``vulkan``, ``cpu``, ``openai``, ``python``.
        location: How the queen reaches it, a URL or a socket path.
        pid: Of the agent; with ``boot_id`` and ``nonce`` it names one process and no later one.
        engine_pid: Of the engine child; ``None`` where the agent owns no process.
        key_sha256: Hash of the key the worker authenticates with.
        direct: The queen relays straight to the engine, no agent is between.
        spec: The JSON the worker was started from, enough to start its like again.
    """

    worker_id: WorkerId
    modelcell: ModelName
    backend: str
    host: str
    location: str
    slots: int
    status: str
    pid: int | None
    engine_pid: int | None
    boot_id: str
    nonce: str
    key_sha256: bytes
    direct: bool
    spec: bytes
    registered_at_ms: int


class HostRecord(Struct, frozen=True, gc=False):
    """A machine that was added, as much of it as a restarted queen needs to reach it again.

    Attributes:
        address: What ``ssh`` is told.
        user: Login name; the ssh configuration decides when empty.
        port: 0 leaves the choice to the ssh configuration.
        identity: Path of a private key file on the queen's machine; ssh's own keys and agent when empty.
        proximity: 0.0 far to 1.0 near.
        fingerprint: ``SHA256:...`` of the host key it was added with.
        draining: Nothing new is started there.

    Raises:
        InvalidValueError: ``proximity`` or ``port`` is outside its range.
    """

    name: HostName
    address: str
    user: str
    port: int
    identity: str
    proximity: float
    fingerprint: str
    added_at_ms: int
    draining: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.proximity <= 1.0:
            raise InvalidValueError(f"proximity is {self.proximity}; it is 0.0 to 1.0", param="proximity")
        if not 0 <= self.port <= _PORT_MAX:
            raise InvalidValueError(f"port is {self.port}; it is 0 to {_PORT_MAX}", param="port")


class KeyRecord(Struct, frozen=True, gc=False):
    """An API key without the key: only its hash is kept.

    Attributes:
        role: What it may do: ``admin``, ``client`` or ``worker``.
        concurrency: Tasks it may have at once; 0 for as many as it likes.
        tokens_per_minute: Tokens it may use in a minute; 0 for as many as it likes.
    """

    key_id: KeyId
    name: str
    role: str
    sha256: bytes
    created_at_ms: int
    concurrency: int = 0
    tokens_per_minute: int = 0


class ScaleRecord(Struct, frozen=True, gc=False):
    """What somebody said about how many workers a model may have.

    Attributes:
        model: Empty for every model without a record of its own.
        min_workers: None, as ``max_workers``, if only ``paused`` or ``wish`` was said.
        paused: Nothing is started or stopped by itself; of no model at all if ``model`` is empty.
        wish: JSON: what every worker gets that is started by itself.

    Raises:
        InvalidValueError: The bounds exclude each other.
    """

    model: ModelName
    min_workers: int | None
    max_workers: int | None
    paused: bool = False
    wish: bytes = b"{}"

    def __post_init__(self) -> None:
        if (self.min_workers is None) != (self.max_workers is None):
            raise InvalidValueError("bounds have both ends or none", param="max")
        if self.min_workers is not None and self.max_workers is not None:
            checked(Bounds(self.min_workers, self.max_workers))


class LoadTimeRecord(Struct, frozen=True, gc=False):
    """How long a worker of a model took on a host from its start until it was ready, when it was last measured."""

    model: ModelName
    host: HostName
    load_ms: int
    measured_at_ms: int


class LaunchRecord(Struct, frozen=True, gc=False):
    """What the last worker of a model that got ready had been started with: the JSON of the request."""

    model: ModelName
    request: bytes


class AlarmRecord(Struct, frozen=True, gc=False):
    """Something that went wrong with a worker.

    Attributes:
        alarm_id: Given by the store, rising; what the caller puts there is ignored.
        worker_id: ``None`` when no worker is to blame.
    """

    worker_id: WorkerId | None
    code: str
    message: str
    at_ms: int
    alarm_id: int = 0


class DecisionRecord(Struct, frozen=True, gc=False):
    """A decision as it was made.

    Attributes:
        kind: ``admit``, ``score``, ``place`` or ``scale``.
        facts: JSON: what was known, and what was chosen.
        decision_id: Given by the store, rising; what the caller puts there is ignored.
    """

    at_ms: int
    kind: str
    facts: bytes
    decision_id: int = 0

    def __post_init__(self) -> None:
        if self.kind not in DECISION_KINDS:
            known = ", ".join(DECISION_KINDS)
            raise InvalidValueError(f"decision kind is {self.kind!r}; it is one of {known}", param="kind")


def _check_status(status: str) -> None:
    if status not in _STATUSES:
        known = ", ".join(UNFINISHED + FINISHED)
        raise InvalidValueError(f"task status is {status!r}; it is one of {known}", param="status")
