"""Tasks that wait for a slot: per model, three bands, first come first served within a band.

A task stands in the band that `Task.band` names; whoever changes it takes the task out before and puts it back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId
from swarmesh.core.task import Task

_BANDS = tuple(Priority)


class BroodQueue:
    """Who waits, for what, and on whose account. Every change is O(1); the bound per key is the swarm's to hold."""

    def __init__(self) -> None:
        self._bands: dict[ModelName, dict[Priority, OrderedDict[TaskId, Task]]] = {}
        self._per_key: dict[KeyId, int] = {}
        self._size = 0

    def push(self, task: Task) -> None:
        """Put a task at the end of its band."""
        self._band(task)[task.task_id] = task
        self._count(task.key_id, 1)

    def push_front(self, task: Task) -> None:
        """Put a task back at the head of its band: it has waited its turn already."""
        band = self._band(task)
        band[task.task_id] = task
        band.move_to_end(task.task_id, last=False)
        self._count(task.key_id, 1)

    def remove(self, task: Task) -> bool:
        """Take a task out wherever it stands; False when it was not waiting."""
        bands = self._bands.get(task.model)
        if bands is None or bands[task.band].pop(task.task_id, None) is None:
            return False
        if not any(bands.values()):
            del self._bands[task.model]
        self._count(task.key_id, -1)
        return True

    def waiting(self, model: ModelName) -> Iterator[Task]:
        """Tasks of a model in the order they should be served; do not change the queue while iterating."""
        for band in self._bands.get(model, {}).values():
            yield from band.values()

    def has(self, model: ModelName) -> bool:
        """Whether anything waits for this model."""
        return model in self._bands

    def size_of_key(self, key_id: KeyId) -> int:
        """How many tasks of one API key wait."""
        return self._per_key.get(key_id, 0)

    def depths(self) -> dict[tuple[ModelName, Priority], int]:
        """How many tasks wait, by model and band; empty bands are left out."""
        return {
            (model, priority): len(band)
            for model, bands in self._bands.items()
            for priority, band in bands.items()
            if band
        }

    def __len__(self) -> int:
        """How many tasks wait in all."""
        return self._size

    def _band(self, task: Task) -> OrderedDict[TaskId, Task]:
        bands = self._bands.get(task.model)
        if bands is None:
            bands = self._bands[task.model] = {band: OrderedDict() for band in _BANDS}
        return bands[task.band]

    def _count(self, key_id: KeyId, change: int) -> None:
        self._size += change
        left = self._per_key.get(key_id, 0) + change
        if left:
            self._per_key[key_id] = left
        else:
            del self._per_key[key_id]
