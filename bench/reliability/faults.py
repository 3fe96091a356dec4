"""What is done to a rustbee while it answers, and at which token."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from . import processes
from .hive import Hive, HiveError, Rustbee
from .sight import Sight

ALARM_WAIT_S: Final = 0.3
"""How long after the end of a broken stream its alarm may still be on its way to the list."""


class Fault(Enum):
    """The value is how tables call it."""

    ENGINE_KILLED = "kill -9 of the engine"
    RUSTBEE_KILLED = "kill -9 of agent and engine"
    ENGINE_STOPPED = "SIGSTOP of the engine"
    AGENT_STOPPED = "SIGSTOP of the agent"

    def pids(self, rustbee: Rustbee) -> tuple[int, ...]:
        """The processes it is done to."""
        match self:
            case Fault.ENGINE_KILLED | Fault.ENGINE_STOPPED:
                return (rustbee.engine_pid,)
            case Fault.AGENT_STOPPED:
                return (rustbee.pid,)
            case Fault.RUSTBEE_KILLED:
                return (rustbee.pid, rustbee.engine_pid)

    @property
    def kills(self) -> bool:
        """Whether the processes end."""
        return self in {Fault.ENGINE_KILLED, Fault.RUSTBEE_KILLED}


@dataclass(frozen=True)
class Blow:
    """A fault that hit a stream; once as monotonic and once as Unix seconds."""

    rustbee: Rustbee
    struck_s: float
    struck_unix_s: float


def strike(hive: Hive, modelcell: str, fault: Fault) -> Blow | None:
    """Break the rustbee that serves ``modelcell`` now; None when the answer was over before it could be broken.

    It is stopped before it is killed, so that the cut is where the trigger was and not some milliseconds, at this
    speed a dozen tokens, later. Only when the queen's books say that the stopped one still has the task is the fault
    counted as one in the middle of a stream.
    """
    rustbee = hive.serving(modelcell)
    return None if rustbee is None else strike_at(hive, rustbee, fault)


def strike_at(hive: Hive, rustbee: Rustbee, fault: Fault, settle: Callable[[], None] | None = None) -> Blow | None:
    """As `strike`, for one that is known; ``settle`` is called while it is stopped and about to be killed."""
    pids = fault.pids(rustbee)
    processes.stop(*pids)
    stopped_s, stopped_unix_s = time.monotonic(), time.time()
    now = hive.rustbee(rustbee.rustbee_id)
    if now is None or not now.slots_busy:
        processes.go_on(*pids)
        return None
    if settle is not None:
        settle()
    if not fault.kills:
        return Blow(rustbee, stopped_s, stopped_unix_s)
    processes.kill(*pids)
    if fault is Fault.RUSTBEE_KILLED:
        hive.give_up(rustbee.rustbee_id)
    return Blow(rustbee, time.monotonic(), time.time())


@dataclass
class Cutter:
    """A reader's ``on_token`` that strikes whenever the answer has grown to the next of ``indexes``.

    Attributes:
        blows: Those that hit.
        too_late: Whether one found nobody serving.
    """

    hive: Hive
    modelcell: str
    fault: Fault
    indexes: Sequence[int]
    blows: list[Blow] = field(default_factory=list)
    too_late: bool = False

    def __call__(self, sight: Sight) -> None:
        """Called by the thread that reads the stream."""
        turn = len(self.blows)
        if self.too_late or turn == len(self.indexes) or sight.count < self.indexes[turn]:
            return
        blow = strike(self.hive, self.modelcell, self.fault)
        if blow is None:
            self.too_late = True
        else:
            self.blows.append(blow)

    @property
    def complete(self) -> bool:
        """Whether every blow hit."""
        return len(self.blows) == len(self.indexes)

    def detected_ms(self) -> float | None:
        """From the first blow to the alarm about it; None where nobody raised one."""
        return alarm_ms(self.hive, self.blows[0])


def alarm_ms(hive: Hive, blow: Blow) -> float | None:
    """Milliseconds from a blow to the first alarm about its rustbee, waiting a moment for it."""
    name, since = blow.rustbee.rustbee_id, blow.struck_unix_s
    try:
        hive.until(lambda: hive.alarm_ms(name, since) is not None, ALARM_WAIT_S, f"an alarm about {name}")
    except HiveError:
        return None
    return hive.alarm_ms(name, since)
