"""Whether keys that wait together are served alike: a second set of books, kept by events and commands alone.

It counts what each key has had since it came to wait. Whoever is started may be ahead of nobody who waits by more than
a few turns. Keys with limits are not followed: their turns pass whenever they are at one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from swarmesh.core.commands import StartStream
from swarmesh.core.decision import POLICY_RETURN
from swarmesh.core.events import StreamEnded
from swarmesh.core.fairness import QUANTUM, expected_work, real_work
from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId
from swarmesh.core.swarm import Swarm
from swarmesh.core.task import Task, TaskStatus
from swarmesh.sim.checkers import demand

TURNS_AHEAD_MAX: Final = 2
"""A turn and what its last task may be more than that, for either key."""

Band = tuple[ModelName, Priority]


@dataclass(slots=True)
class Shares:
    """One band of one model since somebody has waited there.

    Attributes:
        had: What each key has had, in token-equivalents; who came later starts from where the core lets it stand.
        given_back: What of that a key was given back since it was served last: nobody owes it that at once.
        waiting: Tasks that have not run yet, in the order they came, by key.
        clock: What the key served last had before.
        largest: The largest task so far, by what it was expected to cost or by what it has cost.
    """

    had: dict[KeyId, float] = field(default_factory=dict)
    given_back: dict[KeyId, float] = field(default_factory=dict)
    waiting: dict[KeyId, dict[TaskId, None]] = field(default_factory=dict)
    clock: float = 0.0
    largest: float = 0.0

    @property
    def slack(self) -> float:
        """How far a key that is served may be ahead of one that waits."""
        return TURNS_AHEAD_MAX * (QUANTUM + self.largest)


class FairWatch:
    """Follows who waits and who is served; see `swarmesh.sim.watch.Watch`."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._bands: dict[Band, Shares] = {}
        self._waits: dict[TaskId, tuple[Band, KeyId]] = {}
        self._runs: dict[TaskId, tuple[Band, Task, float]] = {}

    def submitted(self, task_id: TaskId) -> None:
        """A task was handed in; it may wait now."""
        task = self._swarm.dispatcher.tasks.get(task_id)
        if task is None or task.status is not TaskStatus.QUEUED:
            return
        band = task.model, task.priority
        if self._swarm.dispatcher.limits.of(task.key_id).is_limited:
            return  # Its turns pass whenever it is at its limit.
        shares = self._bands.setdefault(band, Shares())
        if task.key_id not in shares.waiting:
            shares.had[task.key_id] = self._beginning(shares, task)
            shares.given_back.pop(task.key_id, None)
        shares.waiting.setdefault(task.key_id, {})[task_id] = None
        self._waits[task_id] = band, task.key_id

    def started(self, command: StartStream) -> None:
        """A task has a slot: nobody else has waited too long for it.

        Raises:
            InvariantBrokenError: Somebody has.
        """
        task = self._swarm.dispatcher.tasks.get(command.task_id)
        waited = command.task_id in self._waits  # Not one of a limited key, which nobody follows.
        self._leaves(command.task_id)
        if task is None or command.task_id in self._runs:
            return
        band, work = (task.model, task.priority), expected_work(task)
        self._runs[command.task_id] = band, task, work
        shares = self._bands.get(band)
        if shares is None:
            return
        had = shares.had.setdefault(task.key_id, shares.clock)
        shares.largest = max(shares.largest, work)
        if waited and command.decision.policy != POLICY_RETURN:
            for key_id in self._that_wait(shares):
                behind = shares.had[key_id] + shares.given_back.get(key_id, 0.0)
                words = "{} of {} is served, which has had {} more than {}, which waits"
                demand(had - behind <= shares.slack, words, command, task.key_id, round(had - behind), key_id)
            shares.clock = max(shares.clock, had)
        shares.had[task.key_id] = had + work
        shares.given_back.pop(task.key_id, None)

    def ended(self, event: StreamEnded) -> None:
        """A task is done, and this is what it has cost."""
        band, task, expected = self._runs.pop(event.task_id, (None, None, 0.0))
        shares = self._bands.get(band) if band is not None else None
        work = real_work(task, event) if task is not None else None
        if shares is None or task is None or work is None:
            return
        shares.largest = max(shares.largest, work)
        shares.had[task.key_id] = shares.had.get(task.key_id, 0.0) + work - expected
        shares.given_back[task.key_id] = shares.given_back.get(task.key_id, 0.0) + max(0.0, expected - work)

    def over(self, task_id: TaskId) -> None:
        """A task is over, whatever way."""
        self._leaves(task_id)
        self._runs.pop(task_id, None)

    def forget_empty(self) -> None:
        """Where nobody waits nobody owes anybody anything."""
        depths = self._swarm.dispatcher.queue.depths()
        for band in [band for band in self._bands if band not in depths]:
            del self._bands[band]

    def _beginning(self, shares: Shares, task: Task) -> float:
        # Where a key stands when it comes is the core's to say: from there on it has to be served as the others are.
        queue, tasks = self._swarm.dispatcher.queue, self._swarm.dispatcher.tasks
        left = queue.left_of(task)
        for key_id, waiting in shares.waiting.items():
            other = tasks.get(next(iter(waiting)))
            others_left = None if other is None else queue.left_of(other)
            if left is not None and others_left is not None:
                return shares.had[key_id] + others_left - left
        return shares.clock

    def _leaves(self, task_id: TaskId) -> None:
        if (place := self._waits.pop(task_id, None)) is None:
            return
        band, key_id = place
        shares = self._bands.get(band)
        if shares is not None and (waiting := shares.waiting.get(key_id)) is not None:
            waiting.pop(task_id, None)
            if not waiting:
                del shares.waiting[key_id]

    def _that_wait(self, shares: Shares) -> Iterator[KeyId]:
        """Keys whose next task might have had the slot: nothing keeps it from any worker."""
        for key_id, waiting in shares.waiting.items():
            task = self._swarm.dispatcher.tasks.get(next(iter(waiting)))
            if task is not None and not task.tried and not task.on_probation:
                yield key_id
