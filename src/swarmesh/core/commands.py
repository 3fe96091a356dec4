"""What the core wants done, in the imperative. Frozen; executed by the queen process or by the simulator."""

from __future__ import annotations

import msgspec

from swarmesh.core.decision import Decision
from swarmesh.core.errors import SwarmeshError
from swarmesh.core.ids import Blame, HostName, ModelName, TaskId, WorkerId
from swarmesh.core.task import TaskStatus


class StartStream(msgspec.Struct, frozen=True, gc=False):
    """Run the task on that worker now, from where it stands; its slot is charged already.

    Attributes:
        watched: ``StreamProgressed`` is wanted once the stream brings something.
        timed: ``StreamBegan`` is wanted with the first token, where the answer comes as a stream.
    """

    task_id: TaskId
    attempt: int
    worker_id: WorkerId
    model: ModelName
    queue_ms: int
    decision: Decision
    watched: bool = False
    timed: bool = False


class CancelStream(msgspec.Struct, frozen=True, gc=False):
    """The task is cancelled: stop its stream, if it has one, and let the engine know; no event is expected back."""

    task_id: TaskId
    attempt: int
    worker_id: WorkerId | None


class PreemptStream(msgspec.Struct, frozen=True, gc=False):
    """A more urgent task takes the slot: stop the stream and keep what was shown; no event is expected back."""

    task_id: TaskId
    attempt: int
    worker_id: WorkerId


class BreakStream(msgspec.Struct, frozen=True, gc=False):
    """Give the stream's worker up; ``StreamBroke`` is expected back, because only the relay knows what was shown."""

    task_id: TaskId
    attempt: int
    worker_id: WorkerId
    code: str
    message: str
    blame: Blame = Blame.WORKER


class FailTask(msgspec.Struct, frozen=True, gc=False):
    """Tell the client that the task ended in this error."""

    task_id: TaskId
    error: SwarmeshError


class RecordTask(msgspec.Struct, frozen=True, gc=False):
    """Write a durable task's new state to the hivecomb."""

    task_id: TaskId
    status: TaskStatus
    attempt: int
    worker_id: WorkerId | None
    kills: int


class SpawnWorker(msgspec.Struct, frozen=True, gc=False):
    """Start a worker; its memory is reserved, on these GPUs if there are any."""

    worker_id: WorkerId
    host: HostName
    gpus: tuple[int, ...] = ()


class SeekSites(msgspec.Struct, frozen=True, gc=False):
    """Find out where a worker of the model could be started; ``SitesFound`` with that ``action`` is expected back."""

    model: ModelName
    action: int


class RecordLoadTime(msgspec.Struct, frozen=True, gc=False):
    """Keep how long a worker of the model takes to be ready on that host."""

    model: ModelName
    host: HostName
    load_ms: int


class RefuseSpawn(msgspec.Struct, frozen=True, gc=False):
    """Tell whoever asked for a worker why there will be none."""

    worker_id: WorkerId
    error: SwarmeshError


class StopWorker(msgspec.Struct, frozen=True, gc=False):
    """End a worker's processes."""

    worker_id: WorkerId
    host: HostName
    direct: bool


class ForgetWorker(msgspec.Struct, frozen=True, gc=False):
    """Strike a worker from the hivecomb."""

    worker_id: WorkerId


class RaiseAlarm(msgspec.Struct, frozen=True, gc=False):
    """Let people know; no worker for what concerns a model, a policy or the whole swarm: ``message`` names it."""

    worker_id: WorkerId
    code: str
    message: str


Command = (
    StartStream
    | CancelStream
    | PreemptStream
    | BreakStream
    | FailTask
    | RecordTask
    | SpawnWorker
    | SeekSites
    | RecordLoadTime
    | RefuseSpawn
    | StopWorker
    | ForgetWorker
    | RaiseAlarm
)
