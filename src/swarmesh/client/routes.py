"""Every request the SDK can send: method, path, body and result, each in one place.

Both clients make their methods from these functions, so there are no twins to keep in step.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import msgspec

from swarmesh.client.call import IDEMPOTENCY_KEY, Call, StreamCall
from swarmesh.core.errors import InvalidValueError
from swarmesh.core.ids import Priority
from swarmesh.wire.flow import Accepted, FlowView, TokensView
from swarmesh.wire.spec import Backend
from swarmesh.wire.views import (
    AlarmList,
    AlarmView,
    Health,
    RustbeeList,
    RustbeeView,
    Spawned,
    WaggleList,
    WaggleView,
)

BASE: Final = "/v2/swarmesh"
EVENT_STREAM: Final = "text/event-stream"

T = TypeVar("T")


class TaskOptions(TypedDict, total=False):
    """A task: ``prompt``, ``messages`` or ``input``, and how to answer it (SPEC section 4).

    ``messages`` are a chat's turns, ``{"role", "content"}``; ``input`` is anything JSON can say, for a rustbee of
    the user's own class. What is left out is the queen's to choose.
    """

    messages: Sequence[Mapping[str, Any]]
    input: Any
    modelcell: str
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    priority: Priority | str


class _FlowList(msgspec.Struct, frozen=True):
    nectarflows: list[FlowView]


def submit(prompt: str | None = None, *, idempotency_key: str = "", **options: Unpack[TaskOptions]) -> Call[str]:
    """Submit a task and return its job id at once; `collect` and `follow` get its tokens.

    ``idempotency_key`` (up to 256 characters) makes it safe to submit again what may have got through: the same key
    gets the same job.
    """
    headers = {IDEMPOTENCY_KEY: idempotency_key} if idempotency_key else {}
    return Call("POST", f"{BASE}/nectarflow", _read_job_id, headers=headers, body=_task(prompt, options, stream=False))


def stream(prompt: str | None = None, *, idempotency_key: str = "", **options: Unpack[TaskOptions]) -> StreamCall:
    """Submit a task and iterate over its tokens as they come, the last event being `Done`.

    A connection that drops is taken up again where it broke, and no token is given twice. A submission whose fate is
    not known is sent again under its idempotency key, drawn here unless given, so that there is one task at most.

    Raises:
        RemoteError: The queen refused the task, or its answer ended in an error.
        QueenUnreachableError: No queen answers, also not after the reconnects.
    """
    headers = {"accept": EVENT_STREAM, IDEMPOTENCY_KEY: idempotency_key or f"sdk-{secrets.token_hex(16)}"}
    body = _task(prompt, options, stream=True)
    return StreamCall(Call("POST", f"{BASE}/nectarflow", read_nothing, headers=headers, body=body))


def follow(job_id: str, after: int = 0) -> StreamCall:
    """Iterate over a task's tokens after sequence number ``after``, past ones first, until it is done.

    Raises:
        RemoteError: There is no such task, or its answer ended in an error.
        QueenUnreachableError: No queen answers, also not after the reconnects.
    """
    path = f"{BASE}/honeytokens/{segment(job_id, 'job_id')}"
    call = Call("GET", path, read_nothing, query={"after": str(after)}, headers={"accept": EVENT_STREAM})
    return StreamCall(call, job_id, after)


def resume(job_id: str, last_seq: int) -> Call[None]:
    """A stream's rest after its connection dropped."""
    path = f"{BASE}/honeytokens/{segment(job_id, 'job_id')}"
    return Call("GET", path, read_nothing, headers={"accept": EVENT_STREAM, "last-event-id": str(last_seq)})


def collect(job_id: str) -> Call[TokensView]:
    """Everything a task produced so far."""
    return Call("GET", f"{BASE}/honeytokens/{segment(job_id, 'job_id')}", reader(TokensView))


def show(job_id: str) -> Call[FlowView]:
    """One task: its status, attempts, usage and error."""
    return Call("GET", f"{BASE}/nectarflow/{segment(job_id, 'job_id')}", reader(FlowView))


def list_flows(status: str = "", limit: int = 50) -> Call[list[FlowView]]:
    """The newest tasks, only those in ``status`` when one is given."""
    query = {"limit": str(limit), **({"status": status} if status else {})}
    return Call("GET", f"{BASE}/nectarflows", lambda body: reader(_FlowList)(body).nectarflows, query=query)


def cancel(job_id: str) -> Call[FlowView]:
    """Stop a task; what it produced stays and can be collected."""
    return Call("DELETE", f"{BASE}/nectarflow/{segment(job_id, 'job_id')}", reader(FlowView))


def rustbees() -> Call[list[RustbeeView]]:
    """All workers."""
    return Call("GET", f"{BASE}/rustbees", lambda body: reader(RustbeeList)(body).rustbees)


def rustbee(rustbee_id: str) -> Call[RustbeeView]:
    """One worker; one that failed to start is ``dead`` and has ``error``."""
    return Call("GET", f"{BASE}/rustbees/{segment(rustbee_id, 'rustbee_id')}", reader(RustbeeView))


def spawn(
    modelcell: str,
    *,
    type: Backend | str = Backend.AUTO,  # noqa: A002 - the field's name on the wire
    host: str = "",
    gpu: int | None = None,
    cellalloc: int | None = None,
    slots: int | None = None,
    context: int | None = None,
    url: str = "",
    api_key: str = "",
    class_path: str = "",
    python_path: str = "",
) -> Call[Spawned]:
    """Start a worker, or adopt a server at ``url``; returns at once, `rustbee` tells when it is healthy.

    ``host`` is the name of a machine of the swarm, or ``any``; the queen's own when it is left out. A modelcell that is
    an ``hf:`` reference has to be downloaded first: ``copy_model(reference, "localhost")`` does that, and its result
    says by which name to ask for it.
    """
    said = {
        "type": type,
        "modelcell": modelcell,
        "host": host,
        "gpu": gpu,
        "cellalloc": cellalloc,
        "slots": slots,
        "context": context,
        "url": url,
        "api_key": api_key,
        "class_path": class_path,
        "python_path": python_path,
    }
    body = msgspec.json.encode({name: value for name, value in said.items() if value not in {None, ""}})
    return Call("POST", f"{BASE}/rustbees", reader(Spawned), body=body)


def stop_rustbee(rustbee_id: str, grace_s: float | None = None) -> Call[None]:
    """Drain a worker and stop it; after ``grace_s`` seconds its tasks are moved to others."""
    query = {} if grace_s is None else {"grace_s": f"{grace_s:g}"}
    return Call("DELETE", f"{BASE}/rustbees/{segment(rustbee_id, 'rustbee_id')}", read_nothing, query=query)


def cut(rustbee_id: str, seconds: float) -> Call[None]:
    """Let the queen drop everything to and from a worker for so long (0.1 to 300 s): a drill, for the admin key."""
    body = msgspec.json.encode({"seconds": seconds})
    return Call("POST", f"{BASE}/rustbees/{segment(rustbee_id, 'rustbee_id')}/cut", read_nothing, body=body)


def waggles() -> Call[list[WaggleView]]:
    """The last waggle of every worker."""
    return Call("GET", f"{BASE}/waggles", lambda body: reader(WaggleList)(body).waggles)


def alarms() -> Call[list[AlarmView]]:
    """Recent alarms, newest first."""
    return Call("GET", f"{BASE}/alarms", lambda body: reader(AlarmList)(body).alarms)


def health() -> Call[Health]:
    """How the swarm is."""
    return Call("GET", f"{BASE}/health", reader(Health))


def _task(prompt: str | None, options: TaskOptions, *, stream: bool) -> bytes:
    said: dict[str, Any] = {key: value for key, value in options.items() if value is not None or key == "input"}
    if prompt is not None:
        said["prompt"] = prompt
    return msgspec.json.encode({**said, "stream": stream})


def segment(name: str, field: str) -> str:
    """A name as one step of a path, whatever characters it has.

    Raises:
        InvalidValueError: It is empty; ``field`` is what the error calls it.
    """
    if not name.strip():
        raise InvalidValueError(f"{field} is empty", hint="Say which one.", param=field)
    # Steps that are only dots would be taken for directories, and left out.
    return quote(name, safe="", errors="replace") if name.strip(".") else name.replace(".", "%2E")


def reader(result: type[T]) -> Callable[[bytes], T]:
    """What reads a body that is one JSON value."""
    return msgspec.json.Decoder(result).decode


def _read_job_id(body: bytes) -> str:
    return msgspec.json.decode(body, type=Accepted).job_id


def read_nothing(_body: bytes) -> None:
    """For an answer of which only its status counts."""
