"""What the clients see, and all that may be demanded of it."""

from __future__ import annotations

from dataclasses import dataclass

from swarmesh.core.ids import TaskId, WorkerId
from swarmesh.core.task import TaskStatus
from swarmesh.sim.checkers import InvariantBrokenError, demand
from swarmesh.sim.workload import Request


@dataclass(slots=True, eq=False)
class Client:
    """One client and its task, over all lives of the queen.

    Attributes:
        accepted: The submission was acknowledged.
        seen: How many tokens it has; each was compared with the final text.
        first_ms: When the first one came.
        end: How the task ended, once the client was told, or the store says so to one that does not listen.
        leaving: It wants the task cancelled.
        struck: Engines that crashed under its task for no reason, or because of another task.
        crashed: Engines its request has crashed.
        unheard: Of those, how many crashed in the moment in which the task lost its slot to another: nobody listened.
        orphaned: Queens that died while its task was open; each may have taken the knowledge of one crash with her.
    """

    request: Request
    accepted: bool = False
    seen: int = 0
    first_ms: int | None = None
    end: TaskStatus | None = None
    leaving: bool = False
    struck: int = 0
    crashed: int = 0
    unheard: int = 0
    orphaned: int = 0

    @property
    def task_id(self) -> TaskId:
        """Name of its task."""
        return self.request.task.task_id

    def receive(self, first_seq: int, tokens: bytes, first_ms: float) -> None:
        """Take tokens in, the first of which came at ``first_ms``.

        Raises:
            InvariantBrokenError: They leave a gap, repeat something, or are not the next of the final text.
        """
        demand(self.end is None, "{} is {} and is sent number {}", self.task_id, self.end, first_seq)
        due = self.seen + 1
        demand(first_seq == due, "the client of {} is sent number {}, due is {}", self.task_id, first_seq, due)
        next_ones = self.request.answer[self.seen : self.seen + len(tokens)]
        demand(tokens == next_ones, "after number {} {} is not its final text", self.seen, self.task_id)
        if self.first_ms is None:
            self.first_ms = round(first_ms)
        self.seen += len(tokens)

    def over(self, status: TaskStatus) -> None:
        """Be told how it ended.

        Raises:
            InvariantBrokenError: It had ended before.
        """
        if self.end is not None:
            raise InvariantBrokenError(f"{self.task_id} is {self.end} and comes to a second end, {status}")
        self.end = status


class Spokesmen:
    """Which attempt of which queen may add to a task's answer now."""

    def __init__(self) -> None:
        self._of: dict[TaskId, tuple[int, int] | None] = {}
        self._agents: dict[tuple[WorkerId, int], int] = {}

    def appoint(self, task_id: TaskId, epoch: int, attempt: int) -> None:
        """The core has started this attempt."""
        before = self._of.get(task_id)
        demand(before is None, "attempt {} of {} starts while {} may speak", attempt, task_id, before)
        self._of[task_id] = epoch, attempt

    def dismiss(self, task_id: TaskId) -> None:
        """Its stream is over for the core."""
        self._of[task_id] = None

    def dismiss_all(self) -> None:
        """The queen is dead."""
        self._of.clear()

    def forget(self, task_id: TaskId) -> None:
        """The task is over."""
        self._of.pop(task_id, None)

    def append(self, task_id: TaskId, epoch: int, attempt: int) -> None:
        """Somebody adds to the answer.

        Raises:
            InvariantBrokenError: It is not this attempt's turn.
        """
        speaker = self._of.get(task_id)
        demand(speaker == (epoch, attempt), "epoch {} attempt {} adds to {}; {} may", epoch, attempt, task_id, speaker)

    def obey(self, agent: tuple[WorkerId, int], epoch: int) -> None:
        """An agent, a process of a worker, has begun to work for a queen.

        Raises:
            InvariantBrokenError: It had obeyed a later one before.
        """
        highest = self._agents.get(agent, 0)
        demand(epoch >= highest, "{} obeys epoch {} after {}", agent, epoch, highest)
        self._agents[agent] = epoch
