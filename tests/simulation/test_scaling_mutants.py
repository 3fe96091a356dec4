"""Every promise of scaling is broken once on purpose, in the core's own controller; some seed must notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from swarmesh.core import scaling
from swarmesh.core.commands import SeekSites
from swarmesh.core.events import ModelScaled, WorkerStopRequested
from swarmesh.core.fleet import Fleet
from swarmesh.core.memory_pool import Pool
from swarmesh.core.roster import Roster
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scale_relocation import Relocations
from swarmesh.core.scaling import Scaler
from swarmesh.sim.scaling.outcome import live
from swarmesh.sim.scaling.traces import plan_of
from swarmesh.sim.scaling.verdicts import Check

SEEDS_MOST = 15
GRACE_MS = 3_600_000
Patch = pytest.MonkeyPatch
Beat = Callable[[Fleet, Roster, int, list[Any]], None]


def on_every_tick(patch: Patch, beat: Beat) -> None:
    """Let something happen whenever the controller has looked."""
    parts: dict[Scaler, tuple[Fleet, Roster]] = {}
    init, look = Scaler.__init__, Scaler.look

    def watched(scaler: Scaler, *args: Any, **kwargs: Any) -> None:
        parts[scaler] = (
            next(each for each in args if isinstance(each, Fleet)),
            next(each for each in args if isinstance(each, Roster)),
        )
        init(scaler, *args, **kwargs)

    def looked(scaler: Scaler, now_ms: int, out: list[Any]) -> None:
        look(scaler, now_ms, out)
        beat(*parts[scaler], now_ms, out)

    patch.setattr(Scaler, "__init__", watched)
    patch.setattr(Scaler, "look", looked)


def hears(patch: Patch, change: Callable[[Bounds], Bounds]) -> None:
    """Let the controller hear of other bounds than the owner set."""
    scaled = Scaler.scaled

    def misheard(scaler: Scaler, event: ModelScaled, now_ms: int, out: list[Any]) -> None:
        bounds = change(event.bounds) if event.bounds is not None else None
        scaled(scaler, msgspec.structs.replace(event, bounds=bounds), now_ms, out)

    patch.setattr(Scaler, "scaled", misheard)


def starts_more_than_it_may(patch: Patch) -> None:
    hears(patch, lambda bounds: Bounds(bounds.max_workers + 1, bounds.max_workers + 1))


def keeps_none(patch: Patch) -> None:
    hears(patch, lambda bounds: Bounds(0, bounds.max_workers))


def seeks_again_and_again(patch: Patch) -> None:
    def beat(fleet: Fleet, _roster: Roster, _now_ms: int, out: list[Any]) -> None:
        out += [SeekSites(worker.model, 10**6) for worker in fleet if not worker.reported][:1]

    on_every_tick(patch, beat)


def changes_its_mind(patch: Patch) -> None:
    def beat(fleet: Fleet, roster: Roster, now_ms: int, out: list[Any]) -> None:
        idle = [worker for worker in fleet if worker.reported and not worker.running and not worker.stop_at_ms]
        if now_ms % 120_000 == 0 and len(idle) > 1:
            for worker in idle[1:]:
                roster.stop_requested(WorkerStopRequested(worker.worker_id, GRACE_MS), now_ms, out)

    on_every_tick(patch, beat)
    hears(patch, lambda bounds: Bounds(min(3, bounds.max_workers), bounds.max_workers))


def expects_nobody(patch: Patch) -> None:
    patch.setattr(Scaler, "expects", lambda _scaler, _model: False)


def stops_the_busy(patch: Patch) -> None:
    def beat(fleet: Fleet, roster: Roster, now_ms: int, out: list[Any]) -> None:
        for worker in [worker for worker in fleet if worker.running and now_ms % 60_000 == 0][:1]:
            roster.stop_requested(WorkerStopRequested(worker.worker_id, 0), now_ms, out)

    on_every_tick(patch, beat)


def promises_memory_twice(patch: Patch) -> None:
    patch.setattr(Pool, "free_without", lambda pool, _gone: pool.usable_mib)


def forgets_everybody(patch: Patch) -> None:
    look = Scaler.look
    patch.setattr(Scaler, "look", lambda scaler, now_ms, out: look(scaler, now_ms, out) if now_ms < 60_000 else None)
    patch.setattr(Scaler, "asked", lambda *_: None)


def does_not_pause(patch: Patch) -> None:
    patch.setattr(Scaler, "paused", lambda *_: None)
    hears(patch, lambda bounds: msgspec.structs.replace(bounds, paused=False))


def lets_nobody_go(patch: Patch) -> None:
    patch.setattr(scaling, "is_idle", lambda _worker: False)


def never_gives_up(patch: Patch) -> None:
    def beat(_fleet: Fleet, _roster: Roster, now_ms: int, out: list[Any]) -> None:
        if now_ms % 20_000 == 0:
            out.append(SeekSites("giant", 10**6))  # type: ignore[arg-type] # a name is a name

    on_every_tick(patch, beat)


def moves_nobody(patch: Patch) -> None:
    patch.setattr(Relocations, "find", lambda *_: None)


@pytest.mark.parametrize(
    ("mutate", "trace", "check"),
    [
        (starts_more_than_it_may, "sine", Check.BOUNDS),
        (keeps_none, "steady", Check.MIN),
        (seeks_again_and_again, "step", Check.ONE_ACTION),
        (changes_its_mind, "steady", Check.REVERSALS),
        (changes_its_mind, "steady", Check.SETTLES),
        (expects_nobody, "bursts", Check.NO_FAILURE),
        (moves_nobody, "kept", Check.NO_FAILURE),
        (stops_the_busy, "step", Check.BUSY),
        (promises_memory_twice, "alternating", Check.MEMORY),
        (forgets_everybody, "bursts", Check.PATIENCE),
        (does_not_pause, "step", Check.PAUSE),
        (lets_nobody_go, "bursts", Check.IDLE),
        (never_gives_up, "zoo", Check.BREAKER),
    ],
)
def test_a_broken_promise_is_noticed(
    mutate: Callable[[Patch], None], trace: str, check: Check, monkeypatch: Patch
) -> None:
    mutate(monkeypatch)
    plans = (plan_of(trace, seed) for seed in range(1, 10 * SEEDS_MOST))
    wanted = (plan for plan in plans if check is not Check.BREAKER or any(m.name == "giant" for m in plan.models))
    for _ in range(SEEDS_MOST):
        if str(check) in live(next(wanted)).outcome.broken:
            return
    pytest.fail("nobody noticed")


def test_every_promise_has_a_mutant() -> None:
    marks = test_a_broken_promise_is_noticed.pytestmark  # type: ignore[attr-defined] # pytest puts it there
    assert {check for _, _, check in marks[0].args[1]} == set(Check)
