"""Who is let in: whether a task is taken at all, may wait, or is refused with a reason."""

from __future__ import annotations

from typing import Final

from swarmesh.core import refusals
from swarmesh.core.errors import PolicyRefusedError, SwarmeshError
from swarmesh.core.events import TaskSubmitted
from swarmesh.core.fleet import Fleet
from swarmesh.core.ids import ModelName
from swarmesh.core.limits import Limits
from swarmesh.core.poison import KILLS_MAX, PoisonBooks
from swarmesh.core.queue import BroodQueue
from swarmesh.core.routing import default_model
from swarmesh.core.script import Hook
from swarmesh.core.script_facts import task_facts
from swarmesh.core.script_guard import Scripted
from swarmesh.core.supply import NoSupply, Supply
from swarmesh.core.task import Task

QUEUE_MAX_PER_KEY: Final = 1_000
_ADMIT: Final = Hook.ADMIT


class Admission:
    """Reads everybody's books and changes none.

    Attributes:
        poison: Requests that have crashed engines.
        supply: Who starts workers by itself.
    """

    def __init__(
        self, fleet: Fleet, queue: BroodQueue, limits: Limits, scripted: Scripted, queue_max_per_key: int
    ) -> None:
        self.poison = PoisonBooks()
        self.supply: Supply = NoSupply()
        self._fleet = fleet
        self._queue = queue
        self._limits = limits
        self._scripted = scripted
        self._queue_max_per_key = queue_max_per_key

    def task(self, event: TaskSubmitted, now_ms: int) -> Task:
        """What a client wants, with the model it gets when it names none."""
        kills = event.kills
        if self.poison.crashes:
            kills = max(kills, min(1, self.poison.kills_of(event.fingerprint, now_ms)))
        return Task(
            task_id=event.task_id,
            model=event.model or default_model(self._fleet) or self.supply.default_model() or event.model,
            priority=event.priority,
            key_id=event.key_id,
            durable=event.durable,
            prompt_chars=event.prompt_chars,
            max_tokens=event.max_tokens,
            submitted_at_ms=now_ms,
            band=event.priority,
            resumable=event.resumable,
            fingerprint=event.fingerprint,
            prefix=event.prefix,
            attempt=event.attempts,
            kills=kills,
            queued_at_ms=now_ms,
        )

    def not_let_in(self, task: Task, now_ms: int, *, script_asked: bool = False) -> SwarmeshError | None:
        """Why the task is not taken, whoever is free; None when it is.

        Limits hold always; the script has said what it has to say where ``script_asked``.
        """
        if self.poison.crashes and (kills := self.poison.kills_of(task.fingerprint, now_ms)) >= KILLS_MAX:
            return refusals.quarantined(kills)
        refusal = self._limits.refusal(task, now_ms)
        if refusal is None and not script_asked and self._scripted.has(_ADMIT):
            reason = self._scripted.admit(task_facts(task, now_ms))
            return PolicyRefusedError(f"policy script {self._scripted.name!r}: {reason}") if reason else None
        return refusal

    def not_queued(self, task: Task, *, model_known: bool, gets_a_slot: bool) -> SwarmeshError | None:
        """Why a task that found no free slot may not wait for one; None when it may.

        One that ``gets_a_slot`` takes that of another task at once, so it does not really wait.
        """
        if not model_known and not self._fleet.of_model(task.model):
            return refusals.unknown_model(task)
        if not (task.durable or refusals.is_expected(self._fleet, task.model) or self.supply.expects(task.model)):
            return self.nobody_for(task)
        waiting = self._queue.size_of_key(task.key_id)
        return None if waiting < self._queue_max_per_key or gets_a_slot else refusals.queue_full(waiting)

    def nobody_for(self, task: Task) -> SwarmeshError:
        """Nobody serves the task's model, or nobody that may have it, and why."""
        return self.supply.shortfall(task.model) or refusals.no_rustbees(self._fleet, task)

    def expects(self, model: ModelName) -> bool:
        """Whether a worker of a model that has none is being started, or will be."""
        return self.supply.expects(model)
