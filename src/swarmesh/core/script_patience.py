"""How long a task waits that a policy script keeps from every worker: else it could be for ever, and in silence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from swarmesh.core.ids import KeyId, ModelName, Priority
from swarmesh.core.patience import PATIENCE_MS
from swarmesh.core.routing import Router
from swarmesh.core.script import Hook
from swarmesh.core.script_asks import AGAIN_MS
from swarmesh.core.script_guard import Scripted
from swarmesh.core.task import Task

KINDS_MAX: Final = 8
"""Of tasks, by key and priority; a script is asked about one of each kind at most once per look."""


class ScriptPatience:
    """Asks the script again, for tasks that have waited long."""

    def __init__(self, router: Router, scripted: Scripted) -> None:
        self._router = router
        self._scripted = scripted

    def in_turn(self, models: list[ModelName], now_ms: int) -> list[ModelName]:
        """The models with another one first at each look, as there may be no time to ask about all."""
        if not models or not self._scripted.has(Hook.SCORE):
            return models
        first = now_ms // AGAIN_MS * KINDS_MAX % len(models)
        return models[first:] + models[:first]

    def kept_too_long(self, waiting: Iterable[Task], now_ms: int) -> list[Task]:
        """Interactive tasks that have waited long although every worker is idle, and are still kept from all."""
        if not self._scripted.has(Hook.SCORE):
            return []
        verdicts: dict[tuple[KeyId, Priority], bool] = {}
        return [task for task in waiting if self._is_tired(task, now_ms) and self._is_kept(task, verdicts, now_ms)]

    def _is_tired(self, task: Task, now_ms: int) -> bool:
        return not task.durable and now_ms - task.queued_at_ms > PATIENCE_MS

    def _is_kept(self, task: Task, verdicts: dict[tuple[KeyId, Priority], bool], now_ms: int) -> bool:
        kind = task.key_id, task.priority
        if kind not in verdicts and len(verdicts) < KINDS_MAX:
            verdicts[kind] = self._router.keeps_from_all(task, now_ms)
        return verdicts.get(kind, False)
