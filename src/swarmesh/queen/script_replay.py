"""Recorded decisions once more, with a script: what would it have changed?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from swarmesh.core.errors import PolicyRefusedError
from swarmesh.core.script import Hook
from swarmesh.policy.replay import ADMITTED, REFUSED, WAITS, Recorded, Replay, ReplayReport
from swarmesh.store.records import DecisionRecord
from swarmesh.store.store import Store
from swarmesh.wire.scripts import ReplayChange, ReplayFailure, ReplayView, ScriptTrial

PAGE_ROWS: Final = 500
REPLAY_S_MAX: Final = 120.0
"""Older decisions come first; what is not reached by then is left out, and the answer says so."""
_HOUR_MS: Final = 3_600_000


class _Told(msgspec.Struct, frozen=True):
    """The facts of one record, of whatever kind; see `swarmesh.queen.decision_record`."""

    chosen: str | int | None = None
    task: dict[str, Any] = {}
    workers: tuple[dict[str, Any], ...] = ()
    model: dict[str, Any] = {}
    hosts: tuple[dict[str, Any], ...] = ()
    stats: dict[str, Any] = {}
    refused: str | None = None


_read: Final = msgspec.json.Decoder(_Told).decode


async def replay(store: Store, trial: ScriptTrial) -> ReplayView:
    """What the script would have changed. It runs in a process and a thread of its own, beside everything else.

    Raises:
        ScriptFailedError: It cannot be loaded.
        StoreError: The records cannot be read.
    """
    since_ms, until_s = round(time.time() * 1_000 - trial.hours * _HOUR_MS), time.monotonic() + REPLAY_S_MAX
    run = await asyncio.to_thread(Replay, trial.name, trial.source)
    try:
        after_id = 0
        while page := await store.decisions(since_ms, after_id=after_id, limit=PAGE_ROWS):
            after_id = page[-1].decision_id
            if not await asyncio.to_thread(_take, run, page, until_s):
                return _view(run.report(), complete=False)
    finally:
        await asyncio.to_thread(run.close)
    return _view(run.report(), complete=True)


def recorded(record: DecisionRecord) -> Recorded | None:
    """A record as a question; None for one that a script would not have been asked."""
    told, hook, at_s = _read(record.facts), Hook(record.kind), record.at_ms / 1_000
    chosen = str(told.chosen) if told.chosen is not None else WAITS
    match hook:
        case Hook.ADMIT if told.refused in (None, PolicyRefusedError.code):  # Limits come before any script is asked.
            outcome = ADMITTED if told.refused is None else REFUSED
            return Recorded(hook, at_s, _id(told.task), (told.task,), outcome)
        case Hook.SCORE if told.workers:
            options = tuple(_id(worker) for worker in told.workers)
            return Recorded(hook, at_s, _id(told.task), (told.task, told.workers), chosen, options)
        case Hook.PLACE if told.hosts:
            options = tuple(_name(host) for host in told.hosts)
            return Recorded(hook, at_s, _name(told.model), (told.model, told.hosts), chosen, options)
        case Hook.SCALE:
            return Recorded(hook, at_s, _name(told.model), (told.model, told.stats), chosen)
        case _:
            return None


def _take(run: Replay, page: Sequence[DecisionRecord], until_s: float) -> bool:
    """Ask about a page; whether there was time for all of it."""
    for record in page:
        if time.monotonic() > until_s:
            return False
        question = recorded(record)
        if question is not None:
            run.take(question)
    return True


def _view(report: ReplayReport, *, complete: bool) -> ReplayView:
    return ReplayView(
        complete=complete,
        decisions=report.decisions,
        asked=report.asked,
        changed=report.changed,
        failed=report.failed,
        changes=tuple(
            ReplayChange(change.hook, change.at_s, change.subject, change.was, change.would_be)
            for change in report.changes
        ),
        failures=tuple(
            ReplayFailure(failure.hook, failure.at_s, failure.subject, failure.why) for failure in report.failures
        ),
    )


def _id(facts: dict[str, Any]) -> str:
    return str(facts.get("id", ""))


def _name(facts: dict[str, Any]) -> str:
    return str(facts.get("name", ""))
