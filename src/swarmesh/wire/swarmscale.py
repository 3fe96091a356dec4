"""How many rustbees each modelcell has, as ``/v2/swarmesh/swarmscale`` and ``/v2/swarmesh/explain`` show it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from swarmesh.wire.spec import Backend

Count = Annotated[int, msgspec.Meta(ge=0, le=1_000)]
Modelcell = Annotated[str, msgspec.Meta(max_length=128)]


class RustbeeWish(msgspec.Struct, frozen=True, kw_only=True):
    """What every rustbee that is started by itself gets; what is null is the queennode's choice.

    Attributes:
        slots: Tasks at once.
        context: Tokens of prompt plus answer per slot.
        cellalloc: MiB to reserve in place of the estimate.
    """

    type: Backend = Backend.AUTO
    slots: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    context: Annotated[int, msgspec.Meta(ge=256, le=10_000_000)] | None = None
    cellalloc: Annotated[int, msgspec.Meta(ge=1)] | None = None


class RustbeeChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said anew of `RustbeeWish`, option by option; what is null stays as it was.

    Attributes:
        type: ``auto`` takes back what was said.
        slots: 0 takes back what was said, also below.
        context: 0, or 256 and more.
    """

    type: Backend | None = None
    slots: Annotated[int, msgspec.Meta(ge=0, le=4096)] | None = None
    context: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] | None = None
    cellalloc: Annotated[int, msgspec.Meta(ge=0)] | None = None


class BoundsChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``PUT /v2/swarmesh/swarmscale[/{modelcell}]``: from now on, and after every restart.

    What is null stays as it was. Where nothing was said before, ``min`` is 0, and ``max`` the greater of 1 and ``min``.

    Attributes:
        min: Kept running also when nobody asks; 0 lets the modelcell go when it is idle.
        max: Never more than so many.
        rustbee: What each of them gets.
    """

    min: Count | None = None
    max: Count | None = None
    rustbee: RustbeeChange | None = None


class PauseChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v2/swarmesh/swarmscale/pause`` and ``/resume``.

    Attributes:
        modelcell: Whose; empty for all of them.
    """

    modelcell: Modelcell = ""


class BoundsView(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds as they hold.

    Attributes:
        own: They were set for this modelcell; else they are those of all.
        paused: Nothing is started or stopped by itself, for this modelcell alone.
    """

    min: int
    max: int
    own: bool
    paused: bool
    rustbee: RustbeeWish | None = None


class ScaleActionView(msgspec.Struct, frozen=True, kw_only=True):
    """What is being done for a modelcell right now.

    Attributes:
        kind: ``up``, ``down`` or ``make_room``.
        phase: ``seeking`` a place, ``making_room``, or ``loading``.
        since_s: How long it has been going on.
        host: Where, once that is known.
        load_s: How long loading took there before; null when it never did.
        words: The same in one sentence.
    """

    kind: str
    phase: str
    since_s: float
    host: str | None
    load_s: float | None
    words: str


class ScaleDecisionView(msgspec.Struct, frozen=True, kw_only=True):
    """One decision to start or stop rustbees.

    Attributes:
        ago_s: How long ago it was.
        kind: ``up``, ``down`` or ``make_room``.
        target: How many rustbees the modelcell ought to have by then.
        rule: Which rule asked for it, as a short code such as ``load``, ``first_request`` or ``idle``.
        reason: The same in a sentence with the numbers.
        rustbees: Those that were started or stopped.
    """

    ago_s: float
    kind: str
    count: int
    target: int
    rule: str
    reason: str
    rustbees: tuple[str, ...] = ()


class ScaleView(msgspec.Struct, frozen=True, kw_only=True):
    """One modelcell.

    Attributes:
        bounds: Null for one that is not scaled by itself.
        target: How many rustbees it ought to have now.
        rustbees: Those that may take tasks now.
        adopted: Of these, adopted servers: they count, and are never stopped by itself.
        starting: Those that are being started.
        slots_busy: Of ``slots``, in use.
        load: Mean share of slots in use over the last seconds, 0.0 to 1.0.
        waiting: Tasks in the broodqueue.
        wait_s: How long the first of them has waited.
        latency_s: Decayed mean time to the first token.
        idle_s: Since the modelcell had its last task; 0 while it has one.
        blocked: Why nothing is done now although it should be: a cool-down, a pause, a breaker; empty when nothing is.
        breaker_s: How long no further start is tried, because too many failed; 0 when starts are tried.
        breaker_reason: Why they failed.
        up_in_s: How long until the next start is allowed by the cool-down.
        down_in_s: How long until the next stop is allowed.
        action: What is under way.
        last: The last decision that did something.
    """

    modelcell: str
    bounds: BoundsView | None
    target: int
    rustbees: int
    starting: int
    slots: int
    slots_busy: int
    load: float
    waiting: int
    wait_s: float
    latency_s: float
    idle_s: float
    adopted: int = 0
    blocked: str = ""
    breaker_s: float = 0.0
    breaker_reason: str = ""
    up_in_s: float = 0.0
    down_in_s: float = 0.0
    action: ScaleActionView | None = None
    last: ScaleDecisionView | None = None


class LoadTimeView(msgspec.Struct, frozen=True):
    """How long a rustbee of the modelcell took to be ready on a host, from its start on, as last measured."""

    host: str
    load_s: float


class ScaleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /v2/swarmesh/swarmscale``.

    Attributes:
        paused: Nothing is started or stopped by itself, of no modelcell.
        all: The bounds of every modelcell that has none of its own; null when those are left alone.
        modelcells: By name: those with bounds, rustbees, or something under way.
    """

    paused: bool
    all: BoundsView | None
    modelcells: list[ScaleView]


class SiteView(msgspec.Struct, frozen=True, kw_only=True):
    """One host as a place for one more rustbee.

    Attributes:
        veto: Why it is out of the question; empty when it is not.
        votes: By name, each 0.0 to 1.0.
        score: Their weighted sum; the highest wins.
        need_mib: What the rustbee would need there; 0 when it could not be asked.
        free_mib: What could still be promised there in the memory it would use.
        file_there: The modelcell's file need not be copied first.
    """

    host: str
    veto: str = ""
    votes: dict[str, float] = {}
    score: float = 0.0
    need_mib: int = 0
    free_mib: int = 0
    file_there: bool = False


class PlacementExplained(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /v2/swarmesh/explain/placement/{modelcell}``: where its next rustbee goes and why; nothing is started.

    Attributes:
        live: Asked of the hosts just now; else what was decided when the last rustbee was placed.
        choice: The host that wins; null when there is none.
        by: What the choice follows: ``votes``, ``last`` (it was chosen before, and nobody beats it by enough) or
            ``script``.
        words: The same in a sentence.
        weights: How much each vote counts.
        hosts: Best first, then those that are out of the question.
        would_change: One sentence each: what would make another host win.
    """

    modelcell: str
    live: bool
    choice: str | None
    by: str
    words: str
    weights: dict[str, float]
    hosts: tuple[SiteView, ...]
    would_change: tuple[str, ...] = ()


class ScaleExplained(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /v2/swarmesh/explain/scale/{modelcell}``: how many rustbees it has, and why not more or fewer.

    Attributes:
        words: In a sentence: what was decided last and why, or why nothing is.
        history: The last decisions that did something, newest first.
        placement: Where the last rustbee was placed and why; null when none was since the queennode was started.
        load_times: As measured, by host.
        would_change: One sentence each: what would make the queennode decide otherwise now.
    """

    state: ScaleView
    words: str
    history: tuple[ScaleDecisionView, ...] = ()
    placement: PlacementExplained | None = None
    load_times: tuple[LoadTimeView, ...] = ()
    would_change: tuple[str, ...] = ()
