"""Which waiting tasks are tried for a free slot: not only the first, where a filter or a script looks at the task."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from typing import Final

from swarmesh.core.ids import ModelName
from swarmesh.core.queue import BroodQueue
from swarmesh.core.script import Hook
from swarmesh.core.script_asks import Asks
from swarmesh.core.script_guard import Scripted
from swarmesh.core.task import Task

KINDS_MAX: Final = 64
"""Kinds of waiting tasks (by the workers that failed them), each looked at once for a free slot."""
SCRIPT_KINDS_MAX: Final = 8
"""The same while a script chooses, which costs more for each."""
SCRIPT_LOOK_MAX: Final = 1_000
"""Tasks among which those kinds are looked for."""


class LookAhead:
    """Reads the queue and changes nothing in it.

    Args:
        changes: A number for each model that is another one after whatever may change a script's mind.
    """

    def __init__(self, queue: BroodQueue, scripted: Scripted, changes: Callable[[ModelName], int]) -> None:
        self._queue = queue
        self._scripted = scripted
        self._changes = changes
        self._asks = Asks()
        self._asked: dict[Hashable, int] = {}
        self._looks = 0

    def candidates(self, model: ModelName, now_ms: int) -> Iterator[Task]:
        """Waiting tasks of a model, the first of each kind: what is not free for it is not free for others like it."""
        return self._for_script(model, now_ms) if self._scripted.has(Hook.SCORE) else self._for_filters(model)

    def is_choosy(self, task: Task) -> bool:
        """Whether any filter depends on this task: then that nobody is free for it says nothing about others."""
        return bool(task.tried) or task.on_probation or self._scripted.has(Hook.SCORE)

    def _for_filters(self, model: ModelName) -> Iterator[Task]:
        kinds: set[Hashable] = set()
        for task in self._queue.ready(model):
            if not self.is_choosy(task):
                yield task
                return  # No filter depends on this task: who is not free for it is free for nobody behind it.
            kind = task.on_probation, frozenset(task.tried)
            if kind not in kinds and len(kinds) < KINDS_MAX:
                kinds.add(kind)
                yield task

    def _for_script(self, model: ModelName, now_ms: int) -> Iterator[Task]:
        # A script may look at anything; tasks of one key and priority are taken to be much the same.
        firsts: dict[Hashable, Task] = {}
        for task in islice(self._queue.ready(model), SCRIPT_LOOK_MAX):
            firsts.setdefault((model, task.on_probation, frozenset(task.tried), task.priority, task.key_id), task)
        chosen = list(firsts)
        if len(chosen) > SCRIPT_KINDS_MAX:
            # In turn: kinds that the script keeps waiting must not hide those behind them for ever.
            due = set(sorted(chosen, key=lambda kind: self._asked.get(kind, 0))[:SCRIPT_KINDS_MAX])
            chosen = [kind for kind in chosen if kind in due]
            self._note(chosen, firsts)
        changes = self._changes(model)
        for kind in chosen:
            if self._asks.may_ask((firsts[kind].task_id, kind), changes, now_ms):
                yield firsts[kind]

    def _note(self, chosen: list[Hashable], firsts: dict[Hashable, Task]) -> None:
        self._looks += 1
        self._asked = {kind: look for kind, look in self._asked.items() if kind in firsts}
        self._asked |= dict.fromkeys(chosen, self._looks)
