"""Waggleproto: what a worker reports, how it introduces itself, and what the queen answers (R-11)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from swarmesh.core.liveness import WorkerStatus

Ratio = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
ShortText = Annotated[str, msgspec.Meta(max_length=512)]
EPOCH_MAX = 10**12
"""No queen lives so often; a larger number in a header is refused by agents."""
RustbeeName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$(?!\n)",
        description="1 to 128 letters, digits, '.', '_' and '-', a letter or digit first",
    ),
]
"""It goes into headers and into paths, so it is made of what is harmless in both."""


class Waggle(msgspec.Struct, frozen=True, kw_only=True):
    """A heartbeat. ``load`` and ``quality`` are 0.0 to 1.0, ``vram_used`` is MiB (RAM where there is no VRAM).

    Attributes:
        status: ``starting`` or ``healthy``; absent means healthy, as in the shortest waggle anybody may send.
        last_rtt_ms: How long the waggle before this one took, as the worker saw it (wagglemetric).
        number: Rises with each report of one life; an older one that comes late is not news. 0 is always news.
    """

    rustbee_id: RustbeeName
    location: ShortText = ""
    modelcell: ShortText = ""
    load: Ratio = 0.0
    vram_used: Count = 0
    quality: Ratio = 1.0
    backend: ShortText = ""
    status: WorkerStatus = WorkerStatus.HEALTHY
    slots: Count | None = None
    slots_busy: Count = 0
    engine_pid: Count = 0
    tokens_per_s: float = 0.0
    last_rtt_ms: float = 0.0
    number: Count = 0


class WaggleAnswer(msgspec.Struct, frozen=True):
    """The queen's answer; ``status`` is ``unknown`` when the worker has to register (again)."""

    acknowledged: bool
    status: str
    next_waggle: float


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker introduces itself: who it is, what it serves, where it can be reached.

    Attributes:
        location: ``unix:/path/agent.sock`` or ``http://127.0.0.1:port``.
        boot_id: Identity of the machine's present boot; with ``pid`` and ``started_at`` it names one process for good.
        nonce: Drawn by the agent at its start; a changed nonce is a different life of the same id.
        epoch: The newest life of a queen that it has heard of; it obeys none before.
        number: As in a waggle.
    """

    rustbee_id: RustbeeName
    modelcell: ShortText
    location: ShortText
    backend: ShortText = "cpu"
    host: ShortText = ""
    status: WorkerStatus = WorkerStatus.STARTING
    slots: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1
    vram_used: Count = 0
    pid: Count = 0
    engine_pid: Count = 0
    uptime_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    boot_id: ShortText = ""
    started_at: float = 0.0
    nonce: ShortText = ""
    epoch: Annotated[int, msgspec.Meta(ge=0, le=EPOCH_MAX)] = 0
    number: Count = 0


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """An emergency, sent at once (R-13). ``returning`` says that the worker restarts its engine by itself."""

    rustbee_id: RustbeeName
    code: ShortText
    message: Annotated[str, msgspec.Meta(max_length=8192)]
    returning: bool = False
