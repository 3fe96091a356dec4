"""One task on one virtual engine: when it produces which token, and who listens.

Nothing happens token by token. A token's time follows from its number, so that a run of thousands costs no more than
the moments at which somebody looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from swarmesh.core.ids import WorkerId
from swarmesh.sim.workload import Request

NEVER_MS = 1 << 60


@dataclass(slots=True, eq=False)
class Execution:
    """An agent's record of a task: its token log, as far as time has filled it.

    Attributes:
        first_seq: Number of the first token it adds; those before were shown by earlier attempts.
        tokens: All it is going to add.
        first_ms: When the first of them comes.
        step_ms: Between two of them.
        crashes: Where ``tokens`` ends the engine does.
        still_ms: Since when nothing is produced any more, because it is frozen or over; None while it runs.
        over: Nothing will follow.
        code: Why it is over before its end; empty when it is whole, or while it runs.
        stream: Who listens.
        plan: Rises whenever its end is planned anew.
    """

    request: Request
    epoch: int
    attempt: int
    first_seq: int
    tokens: bytes
    first_ms: float
    step_ms: float
    crashes: bool = False
    still_ms: int | None = None
    over: bool = False
    code: str = ""
    stream: Stream | None = None
    plan: int = 0

    @property
    def due_ms(self) -> int:
        """When its last token comes, or the one that crashes the engine."""
        steps = len(self.tokens) if self.crashes else max(0, len(self.tokens) - 1)
        return math.ceil(self.first_ms + steps * self.step_ms)

    @property
    def usage(self) -> int:
        """Tokens of the whole answer, as the agent reports them at its end."""
        return self.first_seq - 1 + len(self.tokens)

    def produced(self, at_ms: int) -> int:
        """How many tokens it has added by then."""
        if self.still_ms is not None and self.still_ms < at_ms:
            at_ms = self.still_ms
        if at_ms < self.first_ms:
            return 0
        if at_ms >= self.due_ms:
            return len(self.tokens)
        return min(len(self.tokens), 1 + int((at_ms - self.first_ms) / self.step_ms))

    def freeze(self, now_ms: int) -> None:
        """Stand still."""
        if self.still_ms is None:
            self.still_ms = now_ms

    def thaw(self, now_ms: int) -> None:
        """Go on where it stood."""
        if self.still_ms is not None and not self.over:
            self.first_ms += now_ms - self.still_ms
            self.still_ms = None

    def end(self, now_ms: int, code: str = "") -> None:
        """Nothing follows; a code says that something is missing."""
        if self.still_ms is None:
            self.still_ms = now_ms
        self.over, self.code = True, code


@dataclass(slots=True, eq=False)
class Stream:
    """The queen's side of one attempt: a connection to a worker, and how far it was read.

    Attributes:
        epoch: The life of the queen that opened it.
        execution: What it listens to, once it has arrived there.
        watched: The core wants to hear of its first token; so it does if it is ``timed``, for another reason.
        taken: How many of the execution's tokens were read.
        deaf_ms: What was produced after that does not get through; None while the network works.
        closed: The queen has closed it.
        dead: The queen that opened it is gone.
    """

    request: Request
    epoch: int
    attempt: int
    worker_id: WorkerId
    watched: bool = False
    timed: bool = False
    execution: Execution | None = None
    taken: int = 0
    deaf_ms: int | None = None
    closed: bool = False
    dead: bool = False

    def arrived(self, at_ms: int) -> int:
        """How many of the execution's tokens have reached the queen by then."""
        if self.execution is None:
            return 0
        return self.execution.produced(at_ms if self.deaf_ms is None else min(at_ms, self.deaf_ms))

    def take(self, at_ms: int) -> tuple[int, bytes]:
        """The number of the first token that was not read yet, and all that have arrived from there on."""
        if self.execution is None:
            return 0, b""
        first_seq = self.execution.first_seq + self.taken
        data = self.execution.tokens[self.taken : self.arrived(at_ms)]
        self.taken += len(data)
        return first_seq, data
