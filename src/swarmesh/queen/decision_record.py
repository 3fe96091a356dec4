"""Writes decisions down with the facts they were made from, so that another policy can be tried on the last day's.

Of few decisions all are kept. Of many it is a sample: facts are collected only when that is due, and what a day keeps
is spread over it. What is not due costs a comparison.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec
import structlog

from swarmesh.core.decision import Decision
from swarmesh.core.errors import SwarmeshError
from swarmesh.core.script import Facts
from swarmesh.core.script_facts import task_facts
from swarmesh.core.task import Task
from swarmesh.store.records import DecisionRecord
from swarmesh.store.store import DECISIONS_KEPT

DAY_MS: Final = 86_400_000
CPU_SHARE: Final = 0.002
"""Of one core, for collecting the facts of one kind of decision; writing them takes about as much again."""
BURST_SHARE: Final = 0.1
"""Of a day's decisions, how many may be taken at once."""
FACTS_PER_TURN: Final = 8
"""Workers in one record; a record with more of them takes the place of several."""
FLUSH_S: Final = 2.0
PENDING_MAX: Final = 2_000
"""Records that wait to be written; more are left out."""

ADMIT_SHARE, SCORE_SHARE, OTHER_SHARE = 0.3, 0.6, 0.1
"""Of what a day keeps, by kind."""

log = structlog.get_logger("decisions")


class Keeper(Protocol):
    """Where records go (`swarmesh.store.store.Store`)."""

    async def append_decisions(self, records: Sequence[DecisionRecord]) -> None:
        """Keep them."""


class CandidateFacts(Protocol):
    """Who knows what a script is told of the workers that could take a task (`swarmesh.core.routing.Router`)."""

    def script_facts(self, task: Task, now_ms: int) -> Sequence[Facts]:
        """Of at most 64 workers."""


class Sampler:
    """Says when the next decision of one kind is to be taken down.

    A bucket that a day fills: few decisions are all taken, many at the rate at which it fills. And never so often that
    taking them down needs more than `CPU_SHARE` of a core.

    Attributes:
        due_ms: Not before then.
    """

    def __init__(self, per_day: float) -> None:
        self.due_ms = 0
        self._room = per_day * BURST_SHARE
        self._left = self._room
        self._per_ms = per_day / DAY_MS
        self._filled_ms = 0

    def took(self, now_ms: int, cost_ms: float, turns: int = 1) -> None:
        """One was taken down: it cost so much time, and counts for so many."""
        self._left = min(self._room, self._left + (now_ms - self._filled_ms) * self._per_ms) - turns
        self._filled_ms = now_ms
        wait_ms = max(cost_ms / CPU_SHARE, (1 - self._left) / self._per_ms if self._left < 1 else 0)
        self.due_ms = now_ms + int(wait_ms)


class DecisionRecorder:
    """The core's witness; see `swarmesh.core.witness.Witness`. Lives on the running event loop.

    Records are JSON; facts are those of `swarmesh.core.script_facts`:

    - ``admit``: ``task``, ``refused`` (the code of what kept it out, null when it was let in) and ``words``
    - ``score``: ``task``, ``workers`` (a list), ``chosen`` (an id) and ``policy``
    - ``place``: ``model``, ``hosts`` (a list) and ``chosen`` (a name, null when none would do)
    - ``scale``: ``model``, ``stats`` and ``chosen`` (a number)
    """

    def __init__(self, candidates: CandidateFacts, keeper: Keeper) -> None:
        self._candidates = candidates
        self._keeper = keeper
        self._admits = Sampler(ADMIT_SHARE * DECISIONS_KEPT)
        self._scores = Sampler(SCORE_SHARE * DECISIONS_KEPT)
        self._others = Sampler(OTHER_SHARE * DECISIONS_KEPT)
        self._pending: list[tuple[int, str, dict[str, Any]]] = []
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def let_in(self, task: Task, refusal: SwarmeshError | None, now_ms: int) -> None:
        """See `Witness`."""
        if now_ms < self._admits.due_ms:
            return
        began_ns = time.perf_counter_ns()
        refused, words = (refusal.code, refusal.message) if refusal is not None else (None, "")
        self._take("admit", {"task": task_facts(task, now_ms), "refused": refused, "words": words})
        self._admits.took(now_ms, _ms_since(began_ns))

    def chose(self, task: Task, decision: Decision, now_ms: int) -> None:
        """See `Witness`."""
        if now_ms < self._scores.due_ms:
            return
        began_ns = time.perf_counter_ns()
        workers = self._candidates.script_facts(task, now_ms)
        told = {"task": task_facts(task, now_ms), "workers": workers, "chosen": decision.chosen}
        self._take("score", {**told, "policy": decision.policy})
        self._scores.took(now_ms, _ms_since(began_ns), 1 + len(workers) // FACTS_PER_TURN)

    def placed(self, model: Facts, hosts: Sequence[Facts], chosen: str | None) -> None:
        """See `Witness`."""
        self._take_other("place", {"model": model, "hosts": hosts, "chosen": chosen})

    def scaled(self, model: Facts, stats: Facts, chosen: int) -> None:
        """See `Witness`."""
        self._take_other("scale", {"model": model, "stats": stats, "chosen": chosen})

    async def close(self) -> None:
        """Write what waits; to be called before the store is closed."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await self._writing
        await self._write()

    def _take_other(self, kind: str, told: dict[str, Any]) -> None:
        now_ms = time.monotonic_ns() // 1_000_000
        if now_ms >= self._others.due_ms:
            self._take(kind, told)
            self._others.took(now_ms, 0)

    def _take(self, kind: str, told: dict[str, Any]) -> None:
        if len(self._pending) >= PENDING_MAX:
            return
        self._pending.append((time.time_ns() // 1_000_000, kind, told))
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if self._writing is None or self._writing.done():
            self._writing = self._loop.create_task(self._write())
        elif self._pending:
            self._timer = self._loop.call_later(FLUSH_S, self._flush)

    async def _write(self) -> None:
        pending, self._pending = self._pending, []
        records = [DecisionRecord(at_ms, kind, msgspec.json.encode(told)) for at_ms, kind, told in pending]
        try:
            if records:
                await self._keeper.append_decisions(records)
        except SwarmeshError as error:  # They are a sample: what cannot be kept now is not missed.
            log.warning("decisions_not_kept", error=error.message, count=len(records))


def _ms_since(began_ns: int) -> float:
    return (time.perf_counter_ns() - began_ns) / 1e6
