"""What the control plane shows and takes about workers (SPEC section 4): JSON bodies of ``/v2/swarmesh/*``."""

from __future__ import annotations

from typing import Annotated

import msgspec

from swarmesh.wire.errors import ErrorBody
from swarmesh.wire.hosts import Step
from swarmesh.wire.spec import Backend


class SpawnRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v2/swarmesh/rustbees``: start a worker, or adopt a server (``type: openai`` with ``url``).

    Attributes:
        host: Name of the machine to start it on; empty for the queen's own, ``any`` for her choice.
        cellalloc: MiB to reserve in place of the estimate.
        context: Tokens of prompt plus answer per slot.
        api_key: Key of the adopted server.
        class_path: ``module:Class`` for ``type: python``; ``python_path`` is where its module lies.
    """

    type: Backend = Backend.AUTO
    modelcell: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    host: Annotated[str, msgspec.Meta(max_length=128)] = ""
    gpu: Annotated[int, msgspec.Meta(ge=0, le=64)] | None = None
    cellalloc: Annotated[int, msgspec.Meta(ge=1)] | None = None
    slots: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    context: Annotated[int, msgspec.Meta(ge=256, le=10_000_000)] | None = None
    url: Annotated[str, msgspec.Meta(max_length=512)] = ""
    api_key: Annotated[
        str, msgspec.Meta(pattern=r"^[!-~]{0,512}$(?!\n)", description="up to 512 visible ASCII characters, no spaces")
    ] = ""
    class_path: Annotated[str, msgspec.Meta(max_length=256)] = ""
    python_path: Annotated[str, msgspec.Meta(max_length=1024)] = ""


class Spawned(msgspec.Struct, frozen=True):
    """The answer to a spawn: the worker is starting; ask for it by its id until it is healthy."""

    rustbee_id: str
    status: str


class RustbeeView(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. ``load`` is the share of its slots in use by the queen's own books.

    Attributes:
        error: Why a dead worker is dead, for as long as the queen remembers it.
        progress: What a worker that is not there yet waits for, such as a model that is being copied.
    """

    rustbee_id: str
    modelcell: str
    backend: str
    host: str
    location: str
    status: str
    load: float
    slots: int
    slots_busy: int
    vram_used: int
    quality: float
    uptime_s: float
    pid: int
    engine_pid: int
    next_waggle: float
    error: ErrorBody | None = None
    progress: Step | None = None


class RustbeeList(msgspec.Struct, frozen=True):
    """``GET /v2/swarmesh/rustbees``."""

    rustbees: list[RustbeeView]


class WaggleView(msgspec.Struct, frozen=True, kw_only=True):
    """The last waggle of one worker, how old it is and how long it took (wagglemetric).

    Attributes:
        quality: What it says of its own work.
        trail: What the queennode has seen of it, 0.0 to 1.0: lower after streams that broke or were slow, and
            evaporating, so that 1.0 comes back with time.
    """

    rustbee_id: str
    modelcell: str
    status: str
    load: float
    vram_used: int
    quality: float
    tokens_per_s: float
    waggle_age_s: float | None
    waggle_rtt_ms: float | None
    next_waggle: float
    trail: float = 1.0


class WaggleList(msgspec.Struct, frozen=True):
    """``GET /v2/swarmesh/waggles``."""

    waggles: list[WaggleView]


class AlarmView(msgspec.Struct, frozen=True):
    """One alarm; ``at`` is Unix seconds."""

    rustbee_id: str
    code: str
    message: str
    at: float


class AlarmList(msgspec.Struct, frozen=True):
    """``GET /v2/swarmesh/alarms``, newest first."""

    alarms: list[AlarmView]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /v2/swarmesh/health``: ``status`` is ``healthy``, or ``no_rustbees`` while nobody serves."""

    status: str
    version: str
    pid: int
    uptime_s: float
    url: str
    rustbees: dict[str, int]
    modelcells: list[str]
    queue_depth: int
    streams: int
