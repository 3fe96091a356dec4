"""What the control plane takes and shows about hosts and the model files on them: JSON of ``/v2/swarmesh/hosts``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from swarmesh.wire.errors import ErrorBody
from swarmesh.wire.spec import Backend

HostLabel = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z0-9][a-z0-9-]{0,31}$(?!\n)",
        description="1 to 32 lower-case letters, digits and '-', a letter or digit first",
    ),
]
"""A host's name in the swarm: it goes into paths, so it is made of what is harmless there."""
Ratio = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
PROXIMITY_DEFAULT = 0.5


class HostStatus(StrEnum):
    """How the queen and a host stand."""

    LOCAL = "local"
    """The queen's own machine."""
    CONNECTING = "connecting"
    CONNECTED = "connected"
    UNREACHABLE = "unreachable"
    """The last try failed; the next one follows by itself."""


class HostAddRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v2/swarmesh/hosts``; the answer is a stream of `Step` events, then ``done`` with a `HostView`.

    Attributes:
        address: What ``ssh`` is told: a host name, an alias of the user's ssh configuration, or an IP address.
        name: Its name in the swarm; made from the address when empty.
        user: Login name; the ssh configuration decides when empty.
        port: 0 leaves the choice to the ssh configuration.
        identity: Private key file on the queen's machine; ssh's own keys and agent when empty.
        proximity: 0.0 far to 1.0 near; nearer hosts are preferred. As before, or in the middle, when left out.
        fingerprint: ``SHA256:...`` that its key has to have; without it a key seen for the first time is taken.
    """

    address: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    name: Annotated[str, msgspec.Meta(max_length=32)] = ""
    user: Annotated[str, msgspec.Meta(max_length=64)] = ""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    identity: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    proximity: Ratio | None = None
    fingerprint: Annotated[str, msgspec.Meta(max_length=128)] = ""


class StepState(StrEnum):
    """How a step stands."""

    RUNNING = "running"
    DONE = "done"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of something long. ``step`` is a stable word, ``text`` is for people; bytes are 0 where none count."""

    step: str
    state: StepState
    text: str = ""
    done_bytes: int = 0
    total_bytes: int = 0


class GpuView(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU; MiB."""

    index: int
    name: str
    backend: Backend
    total_mib: int
    free_mib: int


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    """One host. Memory in MiB; what is not known (yet) is empty or 0.

    Attributes:
        free_mib: Main memory that may still be promised to rustbees.
        draining: Nothing new is started there.
        since_s: How long it has had this status.
        home: Where what belongs to this hive lies on it.
        error: Why the last try to reach it failed.
    """

    name: str
    address: str
    user: str = ""
    port: int = 0
    status: HostStatus
    draining: bool = False
    proximity: float = PROXIMITY_DEFAULT
    fingerprint: str = ""
    version: str = ""
    system: str = ""
    machine: str = ""
    python: str = ""
    home: str = ""
    cpu_cores: int = 0
    total_mib: int = 0
    available_mib: int = 0
    free_mib: int = 0
    disk_free_mib: int = 0
    gpus: tuple[GpuView, ...] = ()
    rustbees: tuple[str, ...] = ()
    since_s: float = 0.0
    error: ErrorBody | None = None


class HostList(msgspec.Struct, frozen=True):
    """``GET /v2/swarmesh/hosts``, the queen's own machine first."""

    hosts: list[HostView]


class CheckView(msgspec.Struct, frozen=True, kw_only=True):
    """One fact ``hosts doctor`` looked at; ``verdict`` is ``ok``, ``info``, ``warn`` or ``fail``."""

    what: str
    verdict: str
    found: str
    hint: str = ""


class CheckList(msgspec.Struct, frozen=True):
    """``GET /v2/swarmesh/hosts/{name}/checks``."""

    checks: list[CheckView]


class FitRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v2/swarmesh/models/fit``: does it fit where, with so many slots of so much context?"""

    modelcell: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    slots: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    context: Annotated[int, msgspec.Meta(ge=256, le=10_000_000)] | None = None


class FitView(msgspec.Struct, frozen=True, kw_only=True):
    """One host, and one kind of memory there (``ram`` or ``gpu 0``); MiB.

    Attributes:
        file_there: Whether the host has the model's file already.
        would_help: What would make it fit; empty when it does.
    """

    host: str
    memory: str
    fits: bool
    need_mib: int
    free_mib: int
    total_mib: int
    file_there: bool
    would_help: str = ""


class FitList(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: what the modelcell needs, by part, and every host."""

    modelcell: str
    slots: int
    context: int
    need_mib: int
    weights_mib: int
    kv_cache_mib: int
    compute_mib: int
    process_mib: int
    hosts: list[FitView]


class CopyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v2/swarmesh/models/copy``; answered as `HostAddRequest` is, ``done`` carries `Copied`."""

    modelcell: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    to: HostLabel


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """Where the file is now. ``sent_bytes`` is 0 when the host had it already."""

    modelcell: str
    host: str
    path: str
    sha256: str
    size_bytes: int
    sent_bytes: int
    source: str


class ScanRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v2/swarmesh/models/scan``: look through a host's usual places; without a host, through every one's."""

    host: Annotated[str, msgspec.Meta(max_length=32)] = ""


class FoundView(msgspec.Struct, frozen=True, kw_only=True):
    """A model file on a host. ``known_as`` is the modelcell it stands for there already, if any."""

    host: str
    name: str
    path: str
    origin: str
    architecture: str
    parameters: int
    size_bytes: int
    sha256: str = ""
    known_as: str = ""


class FoundList(msgspec.Struct, frozen=True, kw_only=True):
    """What the scans found; ``errors`` are hosts that could not be asked, by name."""

    found: list[FoundView]
    errors: dict[str, ErrorBody]
