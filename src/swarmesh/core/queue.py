"""Tasks that wait for a slot: per model, three bands; in a band the keys take turns, and each key's tasks keep order.

A task stands in the band that `Task.band` names; whoever changes it takes the task out before and puts it back. Tasks
of a key at its limit stand there too, and are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator

from swarmesh.core.events import StreamEnded, TaskCancelled
from swarmesh.core.fairness import Holds, Running, Turns, expected_work, real_work
from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId
from swarmesh.core.task import Task

_BANDS = tuple(Priority)


class BroodQueue:
    """Who waits, for what, and on whose account. Every change is O(1) amortised.

    The bound per key is the swarm's to hold.

    Attributes:
        freed: What `take_freed` has not told yet; only to be read.

    Args:
        holds: Whether a task may not run now, however many slots are free; `look_again` says that this has changed.
    """

    def __init__(self, holds: Holds = lambda _task: False) -> None:
        self._holds = holds
        self._bands: dict[ModelName, dict[Priority, Turns]] = {}
        self._per_key: dict[KeyId, int] = {}
        self.freed: dict[ModelName, None] = {}
        self._paid: dict[TaskId, tuple[float, Running]] = {}
        self._running: dict[tuple[ModelName, Priority], Running] = {}
        self._size = 0
        self._serial = 0

    def push(self, task: Task) -> None:
        """Put a task behind all others of its key and band."""
        self._serial += 1
        self._turns(task).push(task, self._serial)
        self._count(task.key_id, 1)

    def push_front(self, task: Task) -> None:
        """Put a task back at the head of its band: it has waited its turn already."""
        self._turns(task).push_front(task)
        self._count(task.key_id, 1)

    def remove(self, task: Task) -> bool:
        """Take a task out wherever it stands; False when it was not waiting."""
        bands = self._bands.get(task.model)
        if bands is None or not bands[task.band].remove(task):
            return False
        if not any(len(turns) for turns in bands.values()):
            del self._bands[task.model]
        self._count(task.key_id, -1)
        return True

    def ready(self, model: ModelName) -> Iterator[Task]:
        """Tasks of a model that may run now, in the order they will be served if each costs what is expected.

        Nothing is changed by looking; do not change the queue while iterating.
        """
        bands = self._bands.get(model)
        if bands is not None:
            for turns in bands.values():
                yield from turns.ready()

    def waiting(self, model: ModelName) -> Iterator[Task]:
        """All tasks of a model, band by band; in each those that are `ready`, then those that may not run now."""
        for turns in self._bands.get(model, {}).values():
            yield from turns.ready()
            yield from turns.held()

    def everyone(self, model: ModelName) -> Iterator[Task]:
        """The same tasks in no order that means anything, for less."""
        for turns in self._bands.get(model, {}).values():
            yield from turns.everyone()

    def take(self, task: Task) -> None:
        """A task starts, whether it waited or not, and its key pays; one that goes on after a break was paid for."""
        if task.task_id not in self._paid:
            work, running = expected_work(task), self._running_at(task.model, task.priority)
            self._paid[task.task_id] = work, running
            if self._bands:
                self._pay(task, work)
            running.add(task.key_id, work)
        if self._bands:
            self.remove(task)

    def settle(self, task: Task, event: StreamEnded | TaskCancelled | None = None) -> None:
        """A task is over; with an event that says what it has cost, its key's account is put right."""
        paid = self._paid.pop(task.task_id, None)
        if paid is None:
            return
        work, running = paid
        if self._bands and event is not None and (real := real_work(task, event)) is not None:
            self._pay(task, real - work)
        running.remove(task.key_id, work)

    def left_of(self, task: Task) -> float | None:
        """What is left of the turn of a waiting task's key; see `swarmesh.core.fairness.Turns.left_of`."""
        bands = self._bands.get(task.model)
        return None if bands is None else bands[task.band].left_of(task.key_id)

    def look_again(self, key_id: KeyId) -> None:
        """What holds the tasks of a key may have changed."""
        if key_id not in self._per_key:
            return
        for model, bands in self._bands.items():
            # Not any(): each band has to look.
            if sum(turns.look_again(key_id) for turns in bands.values()):
                self.freed[model] = None

    def take_freed(self) -> ModelName | None:
        """A model of which tasks may run that were held before, each told once; None when there is no other."""
        return self.freed.popitem()[0] if self.freed else None

    def has(self, model: ModelName) -> bool:
        """Whether anything waits for this model."""
        return model in self._bands

    def size_of_key(self, key_id: KeyId) -> int:
        """How many tasks of one API key wait."""
        return self._per_key.get(key_id, 0)

    def depths(self) -> dict[tuple[ModelName, Priority], int]:
        """How many tasks wait, by model and band; empty bands are left out."""
        return {
            (model, priority): len(turns)
            for model, bands in self._bands.items()
            for priority, turns in bands.items()
            if len(turns)
        }

    def __len__(self) -> int:
        """How many tasks wait in all."""
        return self._size

    def _turns(self, task: Task) -> Turns:
        bands = self._bands.get(task.model)
        if bands is None:
            bands = {band: Turns(self._holds, self._running_at(task.model, band)) for band in _BANDS}
            self._bands[task.model] = bands
        return bands[task.band]

    def _running_at(self, model: ModelName, band: Priority) -> Running:
        running = self._running.get((model, band))
        if running is None:
            running = self._running[model, band] = Running()
        return running

    def _pay(self, task: Task, work: float) -> None:
        # Where it was submitted to: its band may have changed since.
        bands = self._bands.get(task.model)
        if bands is not None and len(bands[task.priority]):
            bands[task.priority].pay(task.key_id, work)

    def _count(self, key_id: KeyId, change: int) -> None:
        self._size += change
        left = self._per_key.get(key_id, 0) + change
        if left:
            self._per_key[key_id] = left
        else:
            del self._per_key[key_id]
