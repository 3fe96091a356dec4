"""What the scaler does and would do, in sentences with the numbers."""

from __future__ import annotations

import math
from collections.abc import Collection

from swarmesh.core.ids import ModelName, WorkerId
from swarmesh.core.load_times import LoadTimes
from swarmesh.core.scale_action import Action, Phase
from swarmesh.core.scale_book import Scaled
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scale_rule import (
    FULL_MS,
    FULL_SHARE,
    HEADROOM,
    IDLE_KEPT_MS,
    IDLE_MS,
    LATENCY_LOAD_MIN,
    LATENCY_UP_MS,
    LOAD_DOWN,
    LOAD_UP,
    QUEUE_DOWN,
    QUEUE_UP,
    Signals,
    Wish,
    all_of,
    rustbees,
)
from swarmesh.core.scale_view import ActionView


def action_view(state: Scaled, loads: LoadTimes, now_ms: int) -> ActionView | None:
    """What is being done for a model right now; None when nothing is."""
    action = state.action
    if action is None:
        return None
    start = next(iter(action.starts.values()), None)
    host = start.host if start is not None else action.room.host if action.room is not None else None
    load_ms = loads.of(state.model, host) if host is not None else 0
    return ActionView(
        kind=action.decision.kind,
        phase=action.phase,
        since_ms=now_ms - action.begun_ms,
        host=host,
        load_ms=load_ms,
        words=_words(state, action, load_ms),
    )


def would_change(
    state: Scaled, found: Wish, signals: Signals, *, paused: bool = False, script: str = ""
) -> tuple[str, ...]:
    """One sentence each: what would make the scaler decide otherwise now.

    What holds it back comes first, and what could not change anything while that lasts is left out.

    Args:
        state: As it was looked at just now.
        found: What is wanted, before anything holds it back.
        signals: What that was decided by.
        paused: Nothing is begun for any model.
        script: The policy script that says how many; empty where the rule does.
    """
    bounds, present = state.bounds, signals.present
    if bounds is None:
        return (f"bounds: {bounds_for(state.model, present)} lets it be scaled",)
    if paused or bounds.paused:
        return (f"paused: {goes_on(state.model, every=paused, own=bounds.paused)}",)
    scripted = bool(script) or found.rule == "script"
    said = [_deactivate(script)] if scripted else []
    if present >= bounds.max_workers and found.target <= present:
        said.append(f"up: not beyond {rustbees(bounds.max_workers)}, the most it may have")
    elif state.breaker.left_ms(state.looked_at_ms or 0):
        said.append(_trial(state, bounds))
    elif found.target <= present and not scripted:
        said += _up(signals) if present else _from_zero(signals.stats.waiting, bounds.min_workers)
    if present <= bounds.min_workers and found.target >= present:
        said += [f"down: not below {rustbees(bounds.min_workers)}, the least it may have"] if present else []
    elif found.target >= present and not scripted:
        said += _down(signals, bounds.min_workers)
    return tuple(said)


def goes_on(model: ModelName, *, every: bool, own: bool) -> str:
    """What ends a pause: of every model, of this one by itself, or both where both are paused."""
    commands = ["'swarmesh swarmscale resume'"] if every else []
    commands += [f"'swarmesh swarmscale resume {model}'"] if own else []
    return f"{' and '.join(commands)} {'go' if every and own else 'goes'} on"


def bounds_for(model: ModelName, present: int) -> str:
    """The command that gives a model without bounds some that stop none of the ``present`` workers at once."""
    return f"'swarmesh swarmscale set {model} --min 0 --max {max(1, present)}'"


def _deactivate(script: str) -> str:
    named = f"the policy script {script!r}" if script else "the policy script"
    return f"{named} says how many; 'swarmesh policy deactivate' leaves it to the load"


def _trial(state: Scaled, bounds: Bounds) -> str:
    breaker = state.breaker
    said = f"up: the next start is tried in {breaker.left_ms(state.looked_at_ms or 0) / 1000:.0f} s"
    if breaker.for_room:
        return f"{said}, or as soon as others let go of memory"
    whose = state.model if state.own_bounds else "--all"
    return f"{said}; 'swarmesh swarmscale set {whose} --max {bounds.max_workers}' forgets the failures before"


def _from_zero(waiting: int, min_workers: int) -> list[str]:
    return [] if waiting or min_workers else ["up: the first request starts one"]


def _up(signals: Signals) -> list[str]:
    stats = signals.stats
    busy = math.floor(LOAD_UP * stats.slots) + 1
    full_s, delay_s = signals.full_ms / 1000, max(stats.latency_ms, stats.wait_ms) / 1000
    pressed = f"while tasks wait or the load is above {LATENCY_LOAD_MIN}"
    return [
        f"up: a mean load above {LOAD_UP}, that is {busy} of {stats.slots} slots in use; it is {stats.load:.2f} now",
        f"up: {all_of(stats.serving)} {FULL_SHARE} full for {FULL_MS / 1000:.0f} s; it is {full_s:.0f} s now",
        f"up: more than {QUEUE_UP} waiting tasks; there are {stats.waiting} now",
        f"up: more than {LATENCY_UP_MS / 1000:.0f} s to the first token {pressed}; it is {delay_s:.1f} s now",
    ]


def _down(signals: Signals, min_workers: int) -> list[str]:
    stats = signals.stats
    long_s = (IDLE_KEPT_MS if min_workers else IDLE_MS) / 1000
    said = [f"down to {min_workers}: {long_s:.0f} s without any task, where it is {stats.idle_ms / 1000:.0f} s now"]
    if stats.serving > 1:
        low_s = max(signals.low_ms, signals.spare_ms, 0) / 1000
        said.append(
            f"down by one: a mean load below {LOAD_DOWN} for {IDLE_MS / 1000:.0f} s with fewer than {QUEUE_DOWN} tasks "
            f"waiting, and the others below {HEADROOM} in the busiest minute; the load is {stats.load:.2f}, low for "
            f"{low_s:.0f} s now, {stats.waiting} tasks wait, the others would have been {signals.load_without:.2f} full"
        )
    return said


def _words(state: Scaled, action: Action, load_ms: int) -> str:
    model = state.model
    match action.phase:
        case Phase.SEEKING:
            return f"looking for a host for a rustbee of {model}"
        case Phase.MAKING_ROOM if action.room is not None:
            return f"making room for {model} on {action.room.host}{_leavers(action.room.leaving)}"
        case Phase.MAKING_ROOM:
            return f"{model} waits for its turn: other modelcells use all memory"
        case Phase.LOADING:
            hosts = ", ".join(dict.fromkeys(start.host for start in action.starts.values()))
            before = f", which took {load_ms / 1000:.1f} s before" if load_ms else ""
            return f"loading {model} on {hosts}{before}"
        case Phase.STOPPING:
            return f"stopping {', '.join(sorted(action.stopping))}"


def _leavers(leaving: Collection[WorkerId]) -> str:
    if not leaving:
        return ": nobody has to go any more"
    return f": {', '.join(sorted(leaving))} {'has' if len(leaving) == 1 else 'have'} to go"
