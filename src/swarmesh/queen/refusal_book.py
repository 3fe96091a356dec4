"""The last tasks that were refused or given up, so that it can be asked why, and what would help."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final

import msgspec

from swarmesh.core.errors import SwarmeshError
from swarmesh.core.events import TaskSubmitted
from swarmesh.core.ids import KeyId, TaskId
from swarmesh.queen.decision_book import NOBODY

REFUSALS_MAX: Final = 1_000
"""Kept; the oldest are forgotten first."""
WORDS_MAX: Final = 2_000
"""Characters of one message or hint."""


class Refused(msgspec.Struct, frozen=True, gc=False):
    """One task that nobody works on, and why.

    Attributes:
        submitted: What was asked; None when it was refused before that was known.
        key_id: Whose task it is; empty when that is not known.
        retry_after_s: When the client was told to try again, if it was.
        at_s: Unix seconds.
    """

    task_id: TaskId
    submitted: TaskSubmitted | None
    status: int
    code: str
    message: str
    hint: str
    retry_after_s: int | None
    at_s: float
    key_id: KeyId = NOBODY


class RefusalBook:
    """Written wherever a task is refused, read by whoever asks."""

    def __init__(self, refusals_max: int = REFUSALS_MAX) -> None:
        self._refusals_max = refusals_max
        self._refused: OrderedDict[TaskId, Refused] = OrderedDict()

    def add(self, submitted: TaskSubmitted, error: SwarmeshError) -> None:
        """The task ended in ``error``."""
        # Hashes of its prompt help nobody, and there may be hundreds.
        self._keep(submitted.task_id, msgspec.structs.replace(submitted, prefix=()), error, submitted.key_id)

    def add_unread(self, task_id: TaskId, error: SwarmeshError, key_id: KeyId = NOBODY) -> None:
        """A task of that key was refused before anybody read what it asks for."""
        self._keep(task_id, None, error, key_id)

    def find(self, task_id: TaskId, key_id: KeyId | None = None) -> Refused | None:
        """Why a task was refused; None when it was not, or that is forgotten.

        Args:
            task_id: See above.
            key_id: A task of another key counts as not refused; None for those of all keys.
        """
        refused = self._refused.get(task_id)
        return refused if refused is not None and key_id in (None, refused.key_id) else None

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._refused)

    def _keep(self, task_id: TaskId, submitted: TaskSubmitted | None, error: SwarmeshError, key_id: KeyId) -> None:
        message, hint = error.message[:WORDS_MAX], error.hint[:WORDS_MAX]
        self._refused[task_id] = Refused(
            task_id, submitted, error.status, error.code, message, hint, error.retry_after_s, time.time(), key_id
        )
        self._refused.move_to_end(task_id)
        while len(self._refused) > self._refusals_max:
            self._refused.popitem(last=False)
