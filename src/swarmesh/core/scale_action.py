"""One action of the scaler while it is under way: a place is sought, room is made, workers load, or workers stop."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.placement import HostCandidate
from swarmesh.core.scale_view import ScaleDecision

SEEK_LIMIT_MS: Final = 60_000
"""How long the hosts may take to say what they could do."""
STOP_LIMIT_MS: Final = 120_000
"""How long an idle worker that was asked to stop may take to be gone."""
DRAIN_GRACE_MS: Final = 600_000
"""What a busy worker that has to give way gets for what it runs; then its tasks are moved, not lost."""
WHOLE_GRACE_MS: Final = 3_600_000
"""The same where an answer could only start over elsewhere: one that takes longer than the grace would never end."""
STAY_MS: Final = 300_000
"""After a worker could not move out of another model's way, until that is tried again with any of its model."""


class Phase(StrEnum):
    """Where an action stands."""

    SEEKING = "seeking"
    MAKING_ROOM = "making_room"
    LOADING = "loading"
    STOPPING = "stopping"


@dataclass(slots=True)
class Start:
    """One worker that is being started.

    Attributes:
        signed_ms: When it last gave a sign of progress that is not loading: it was asked for, its file was copied.
        heard_ms: When anything was last heard of it.
        limit_ms: How long it may take from `signed_ms` on while it is heard of.
        trouble: What was last heard of it that was no good.
    """

    worker_id: WorkerId
    host: HostName
    begun_ms: int
    signed_ms: int
    heard_ms: int
    limit_ms: int
    trouble: str = ""


@dataclass(slots=True)
class Room:
    """Memory that is being made free, or was: kept for this action until it is taken.

    Attributes:
        leaving: Those that have to go and have not gone yet.
        made_ms: When the last of them was gone; None while not.
    """

    host: HostName
    need_mib: int
    leaving: set[WorkerId]
    until_ms: int
    made_ms: int | None = None


class Relocation(NamedTuple):
    """A worker that moves: another of its model is started elsewhere, because a newcomer needs the place."""

    worker_id: WorkerId
    model: ModelName
    host: HostName
    newcomer: ModelName


@dataclass(slots=True)
class Action:
    """Of one model.

    Attributes:
        missing: Workers that are still to be placed.
        seek: Number of the last question to the hosts; an answer to an earlier one is late.
        sites: What they last said.
        room: Promised to this action by workers that leave, or have left.
        stuck: Workers that did not go in time; their memory is not counted on any more.
        relocation: What it is done for, if that is to let another model have a place; nothing is started there then.
    """

    decision: ScaleDecision
    begun_ms: int
    phase: Phase
    phase_ms: int
    missing: int = 0
    seek: int = 0
    sites: tuple[HostCandidate, ...] = ()
    starts: dict[WorkerId, Start] = field(default_factory=dict)
    stopping: set[WorkerId] = field(default_factory=set)
    room: Room | None = None
    stuck: set[WorkerId] = field(default_factory=set)
    relocation: Relocation | None = None

    def go(self, phase: Phase, now_ms: int) -> None:
        """On to the next phase."""
        self.phase, self.phase_ms = phase, now_ms
