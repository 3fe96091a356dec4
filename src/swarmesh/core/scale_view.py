"""What the controller thought and did, for whoever asks: values, never the state itself."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.placement import Placement
from swarmesh.core.scale_bounds import Bounds


class ScaleKind(StrEnum):
    """What one decision of the controller does."""

    UP = "up"
    DOWN = "down"
    MAKE_ROOM = "make_room"
    """Workers of other models are let go, so that one of this model fits."""
    HOLD = "hold"


class ScaleStats(msgspec.Struct, frozen=True):
    """One model as the controller saw it.

    Attributes:
        serving: Workers that may take tasks now.
        starting: Workers that are being started.
        slots: Of those that serve.
        busy: Of those, in use.
        load: Mean share of slots in use over the last seconds, 0.0 to 1.0; 1.0 if tasks wait and nobody serves.
        waiting: Tasks in the queue.
        wait_ms: How long the first of them has waited.
        latency_ms: Decayed mean time from submission to the first token, or to the start where nobody saw one.
        idle_ms: Since the model had its last task; 0 while it has one.
    """

    serving: int = 0
    starting: int = 0
    slots: int = 0
    busy: int = 0
    load: float = 0.0
    waiting: int = 0
    wait_ms: int = 0
    latency_ms: int = 0
    idle_ms: int = 0


class ScaleDecision(msgspec.Struct, frozen=True):
    """One decision and why.

    Attributes:
        at_ms: On the core's clock.
        kind: What was done.
        count: By how many workers.
        target: How many the model ought to have by then.
        rule: Which rule asked for it, as a short code: ``load``, ``full``, ``queue``, ``latency``, ``first_request``,
            ``min``, ``max``, ``idle``, ``low_load``, ``room``, ``move``, ``script``, ``hold``.
        reason: The same in a sentence with the numbers.
        workers: Those that were started or stopped.
    """

    at_ms: int
    kind: ScaleKind
    count: int
    target: int
    rule: str
    reason: str
    stats: ScaleStats
    workers: tuple[WorkerId, ...] = ()


class ActionView(msgspec.Struct, frozen=True):
    """What is being done for a model right now.

    Attributes:
        phase: ``seeking`` a place, ``making_room``, or ``loading``.
        since_ms: How long it has been going on.
        host: Where, once that is known.
        load_ms: How long loading took there before; 0 when it never did.
        words: For the client that waits, in one sentence.
    """

    kind: ScaleKind
    phase: str
    since_ms: int
    host: HostName | None
    load_ms: int
    words: str


class ScaleState(msgspec.Struct, frozen=True):
    """All that `swarmesh swarmscale status` and `explain scale` show of one model.

    Attributes:
        bounds: None for a model that is not scaled by itself.
        own_bounds: They were set for this model, not for all.
        blocked: Why nothing is done now although it should be: a cool-down, a pause, a breaker; empty when nothing is.
        breaker_ms: How long no further start is tried, because too many failed; 0 when it is closed.
        breaker_reason: Why they failed.
        up_in_ms: How long until the next start is allowed by the cool-down.
        down_in_ms: How long until the next stop is allowed.
        placement: The last choice of a host, with votes.
        history: The last decisions that did something, newest first.
        would_change: One sentence each: what would make the controller decide otherwise now.
    """

    model: ModelName
    bounds: Bounds | None
    own_bounds: bool
    stats: ScaleStats
    target: int
    action: ActionView | None
    last: ScaleDecision | None
    blocked: str = ""
    breaker_ms: int = 0
    breaker_reason: str = ""
    up_in_ms: int = 0
    down_in_ms: int = 0
    placement: Placement | None = None
    history: tuple[ScaleDecision, ...] = ()
    would_change: tuple[str, ...] = ()
