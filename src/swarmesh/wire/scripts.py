"""The policy script as ``/v2/swarmesh/policies/script`` takes and shows it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

ScriptName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,128}$(?!\n)",
        description="1 to 128 characters, no line breaks or other control characters",
    ),
]
ScriptSource = Annotated[str, msgspec.Meta(max_length=256 * 1024)]


class ScriptState(StrEnum):
    """What a queen does with a script."""

    NONE = "none"
    ACTIVE = "active"
    OFF = "off"
    """It failed too often; the built-in policy decides."""


class ScriptChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PUT /v2/swarmesh/policies/script``: let this script decide from now on.

    Attributes:
        name: For people: its file's name.
        path: Where it lies on the queen's machine; she takes what is saved there from then on. Empty for nowhere.
    """

    name: ScriptName
    source: ScriptSource
    path: Annotated[str, msgspec.Meta(max_length=4096)] = ""


class ScriptTrial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v2/swarmesh/policies/script/replay``: what would this script have changed?

    Attributes:
        hours: How far back; a day is kept.
    """

    name: ScriptName
    source: ScriptSource
    hours: Annotated[float, msgspec.Meta(gt=0, le=24)] = 24.0


class ScriptMistake(msgspec.Struct, frozen=True):
    """What is wrong in a script; line and column count from 1, and are 0 when they are not known."""

    message: str
    line: int = 0
    column: int = 0
    text: str = ""


class ScriptError(msgspec.Struct, frozen=True):
    """A question to which the script had no usable answer; ``at`` is Unix seconds."""

    at: float
    message: str


class ScriptView(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /v2/swarmesh/policies/script``.

    Attributes:
        hooks: The functions it defines of those that are asked.
        path: Where it lies on the queen's machine; empty if it was sent without one.
        watched: What is saved there is taken up.
        gone: No file lies there any more; the last text that did goes on.
        activated_at: Unix seconds; also of the last save that was taken up.
        reason: Why it is off.
        asked: Questions since then.
        failed: Of those, without a usable answer.
        late: Of those, without one in time; the built-in policy decided, which is no failure of the script.
        mean_ms: Of the answers, as the queen waited for them.
        max_ms: The longest of them.
        cpu_max_ms: The most processor time one took.
        starts: How often its process was started.
        errors: The last, newest first.
        warnings: What looks wrong and does no harm.
        unsaved: What is wrong with the text that lies at ``path`` now; the last one that was right decides.
    """

    state: ScriptState
    name: str = ""
    hooks: tuple[str, ...] = ()
    path: str = ""
    watched: bool = False
    gone: bool = False
    activated_at: float = 0.0
    reason: str = ""
    asked: int = 0
    failed: int = 0
    late: int = 0
    mean_ms: float = 0.0
    max_ms: float = 0.0
    cpu_max_ms: float = 0.0
    starts: int = 0
    errors: tuple[ScriptError, ...] = ()
    warnings: tuple[ScriptMistake, ...] = ()
    unsaved: tuple[ScriptMistake, ...] = ()


class ReplayChange(msgspec.Struct, frozen=True):
    """A decision that would have been another one.

    Attributes:
        hook: The function that was asked.
        at: Unix seconds.
        subject: The task or the modelcell.
        was: The rustbee, the host or the number; ``let in``, ``refused`` or ``waits``.
        would_be: The same with the script.
    """

    hook: str
    at: float
    subject: str
    was: str
    would_be: str


class ReplayFailure(msgspec.Struct, frozen=True):
    """A decision for which the script had no usable answer."""

    hook: str
    at: float
    subject: str
    why: str


class ReplayView(msgspec.Struct, frozen=True, kw_only=True):
    """What a script would have changed.

    Attributes:
        decisions: How many were recorded; of many, a sample is.
        asked: Of those, how many the script has a function for.
        changed: Of those, how many would have been otherwise.
        failed: Of those, how many the built-in policy would have decided, for want of an answer.
        changes: The first of them.
        failures: The first of them.
        complete: There was time for all of them; if not, the newest are left out.
    """

    decisions: int
    asked: int
    changed: int
    failed: int
    changes: tuple[ReplayChange, ...] = ()
    failures: tuple[ReplayFailure, ...] = ()
    complete: bool = True
