"""What the scaler does and would do, in sentences with the numbers."""

from __future__ import annotations

import math

from swarmesh.core.load_times import LoadTimes
from swarmesh.core.scale_action import Action, Phase
from swarmesh.core.scale_book import Scaled
from swarmesh.core.scale_rule import (
    FULL_MS,
    FULL_SHARE,
    HEADROOM,
    IDLE_MS,
    LATENCY_UP_MS,
    LOAD_DOWN,
    LOAD_UP,
    QUEUE_DOWN,
    QUEUE_UP,
    Signals,
    Wish,
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


def would_change(state: Scaled, found: Wish, signals: Signals) -> tuple[str, ...]:
    """One sentence each: what would make the scaler decide otherwise now."""
    bounds, stats, present = state.bounds, signals.stats, signals.present
    if bounds is None:
        return (f"bounds: 'swarmesh swarmscale set {state.model} --min 0 --max 1' lets it be scaled",)
    if not present:
        return _from_zero(stats.waiting, bounds.min_workers)
    said: list[str] = []
    if present >= bounds.max_workers and found.target <= present:
        said.append(f"up: not beyond {bounds.max_workers} rustbees, the most it may have")
    elif found.target <= present:
        said += _up(signals)
    if present <= bounds.min_workers and found.target >= present:
        said.append(f"down: not below {bounds.min_workers} rustbees, the least it may have")
    elif found.target >= present:
        said += _down(signals, bounds.min_workers)
    return tuple(said)


def _from_zero(waiting: int, min_workers: int) -> tuple[str, ...]:
    return () if waiting or min_workers else ("up: the first request starts one",)


def _up(signals: Signals) -> list[str]:
    stats = signals.stats
    busy = math.floor(LOAD_UP * stats.slots) + 1
    full_s, delay_s = signals.full_ms / 1000, max(stats.latency_ms, stats.wait_ms) / 1000
    return [
        f"up: a mean load above {LOAD_UP}, that is {busy} of {stats.slots} slots in use; it is {stats.load:.2f} now",
        f"up: all {stats.serving} rustbees {FULL_SHARE} full for {FULL_MS / 1000:.0f} s; it is {full_s:.0f} s now",
        f"up: more than {QUEUE_UP} waiting tasks; there are {stats.waiting} now",
        f"up: more than {LATENCY_UP_MS / 1000:.0f} s to the first token while tasks wait; it is {delay_s:.1f} s now",
    ]


def _down(signals: Signals, min_workers: int) -> list[str]:
    stats = signals.stats
    said = [
        f"down to {min_workers}: {IDLE_MS / 1000:.0f} s without any task, where it is {stats.idle_ms / 1000:.0f} s now"
    ]
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
            return f"making room for {model} on {action.room.host}: {', '.join(sorted(action.room.leaving))} has to go"
        case Phase.MAKING_ROOM:
            return f"{model} waits for its turn: other modelcells use all memory"
        case Phase.LOADING:
            hosts = ", ".join(dict.fromkeys(start.host for start in action.starts.values()))
            before = f", which took {load_ms / 1000:.1f} s before" if load_ms else ""
            return f"loading {model} on {hosts}{before}"
        case Phase.STOPPING:
            return f"stopping {', '.join(sorted(action.stopping))}"
