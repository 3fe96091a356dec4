"""The rule alone: numbers in, a number of workers out."""

from __future__ import annotations

import msgspec
import pytest

from swarmesh.core.peak import PART_MS, Peak
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scale_rule import (
    FULL_MS,
    HEADROOM,
    IDLE_KEPT_MS,
    IDLE_MS,
    LATENCY_UP_MS,
    PEAK_MS,
    QUEUE_UP,
    Signals,
    Wish,
    reason,
    wish,
)
from swarmesh.core.scale_view import ScaleStats

FREE = Bounds(0, 20)


def signals(
    *,
    full_ms: int = 0,
    low_ms: int = 0,
    spare_ms: int = -1,
    load_without: float = 0.0,
    tasks_mean: float = 0.0,
    **stats: object,
) -> Signals:
    plain = ScaleStats(serving=2, slots=8, busy=4, load=0.5)
    return Signals(
        msgspec.structs.replace(plain, **stats),
        full_ms=full_ms,
        low_ms=low_ms,
        spare_ms=spare_ms,
        load_without=load_without,
        slots_each=4.0,
        tasks_mean=tasks_mean,
    )


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (signals(load=0.8), Wish(2, "hold")),
        (signals(load=0.81, tasks_mean=6.5), Wish(3, "load")),
        (signals(load=0.81, tasks_mean=9.6), Wish(3, "load")),
        (signals(load=0.81, tasks_mean=9.7), Wish(4, "load")),
        (signals(load=0.81, tasks_mean=60.0), Wish(4, "load")),
        (signals(load=0.81, tasks_mean=6.5, busy=8, waiting=60), Wish(3, "load")),
        (signals(full_ms=FULL_MS - 1), Wish(2, "hold")),
        (signals(full_ms=FULL_MS), Wish(3, "full")),
        (signals(full_ms=FULL_MS, busy=8, waiting=4), Wish(3, "full")),
        (signals(full_ms=FULL_MS, busy=8, waiting=5), Wish(4, "full")),
        (signals(waiting=QUEUE_UP), Wish(2, "hold")),
        (signals(waiting=QUEUE_UP + 1), Wish(4, "queue")),
        (signals(latency_ms=LATENCY_UP_MS + 1, waiting=1), Wish(3, "latency")),
        (signals(latency_ms=LATENCY_UP_MS + 1, load=0.51), Wish(3, "latency")),
        (signals(wait_ms=LATENCY_UP_MS + 1, waiting=1), Wish(3, "latency")),
        (signals(latency_ms=LATENCY_UP_MS + 1, load=0.5), Wish(2, "hold")),
        (signals(wait_ms=LATENCY_UP_MS + 1, waiting=1, spare_ms=0), Wish(2, "hold")),
        (signals(waiting=QUEUE_UP + 1, spare_ms=1_000), Wish(2, "hold")),
        (signals(load=0.81, tasks_mean=6.5, spare_ms=0), Wish(3, "load")),
        (signals(load=0.81, starting=2), Wish(4, "hold")),
        (signals(serving=8, slots=32, load=0.9, tasks_mean=400.0, busy=30, waiting=400), Wish(10, "load")),
        (signals(serving=8, slots=32, load=0.7, full_ms=FULL_MS, busy=32, waiting=400), Wish(16, "full")),
    ],
)
def test_up(seen: Signals, wanted: Wish) -> None:
    assert wish(seen, FREE) == wanted


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (signals(load=0.19, spare_ms=IDLE_MS), Wish(1, "low_load")),
        (signals(load=0.19, spare_ms=0, low_ms=IDLE_MS), Wish(1, "low_load")),
        (signals(load=0.19, spare_ms=IDLE_MS - 1, low_ms=IDLE_MS - 1), Wish(2, "hold")),
        (signals(load=0.19, low_ms=IDLE_MS), Wish(2, "hold")),
        (signals(load=0.2, spare_ms=IDLE_MS), Wish(2, "hold")),
        (signals(load=0.19, spare_ms=IDLE_MS, waiting=10), Wish(2, "hold")),
        (signals(load=0.19, spare_ms=IDLE_MS, load_without=HEADROOM), Wish(2, "hold")),
        (signals(load=0.19, spare_ms=IDLE_MS, starting=1), Wish(3, "hold")),
        (signals(load=0.0, spare_ms=IDLE_MS, idle_ms=IDLE_MS), Wish(0, "idle")),
        (signals(load=0.0, serving=1, spare_ms=IDLE_MS, idle_ms=IDLE_MS - 1), Wish(1, "hold")),
    ],
)
def test_down(seen: Signals, wanted: Wish) -> None:
    assert wish(seen, FREE) == wanted


@pytest.mark.parametrize(
    ("seen", "bounds", "wanted"),
    [
        (signals(load=0.99, tasks_mean=20.0), Bounds(0, 3), Wish(3, "load")),
        (signals(load=0.99), Bounds(0, 2), Wish(2, "hold")),
        (signals(), Bounds(0, 1), Wish(1, "max")),
        (signals(), Bounds(5, 8), Wish(5, "min")),
        (signals(load=0.0, spare_ms=IDLE_MS, idle_ms=IDLE_MS), Bounds(1, 8), Wish(1, "low_load")),
        (signals(load=0.0, serving=4, spare_ms=IDLE_MS, idle_ms=IDLE_KEPT_MS - 1), Bounds(1, 8), Wish(3, "low_load")),
        (signals(load=0.0, serving=4, spare_ms=IDLE_MS, idle_ms=IDLE_KEPT_MS), Bounds(1, 8), Wish(1, "idle")),
        (signals(load=0.0, spare_ms=IDLE_MS, idle_ms=IDLE_MS), Bounds(2, 8), Wish(2, "hold")),
        (signals(serving=0, busy=0, slots=0, waiting=1), Bounds(0, 8), Wish(1, "first_request")),
        (signals(serving=0, busy=0, slots=0, waiting=90), Bounds(0, 8), Wish(2, "first_request")),
        (signals(serving=0, busy=0, slots=0, waiting=90), Bounds(0, 1), Wish(1, "first_request")),
        (signals(serving=0, busy=0, slots=0, waiting=1), Bounds(3, 8), Wish(3, "first_request")),
        (signals(serving=0, starting=1, busy=0, slots=0, waiting=9), Bounds(0, 8), Wish(1, "hold")),
        (signals(serving=0, busy=0, slots=0), Bounds(0, 8), Wish(0, "hold")),
    ],
)
def test_bounds(seen: Signals, bounds: Bounds, wanted: Wish) -> None:
    assert wish(seen, bounds) == wanted


def test_every_rule_says_its_numbers() -> None:
    seen = signals(load=0.99, waiting=101, full_ms=4_000, latency_ms=6_200, idle_ms=300_000, load_without=0.25)
    said = {
        rule: reason(Wish(3, rule), seen, Bounds(1, 2))
        for rule in (
            "load",
            "full",
            "queue",
            "latency",
            "idle",
            "low_load",
            "min",
            "max",
            "first_request",
            "script",
            "hold",
        )
    }
    assert said["load"] == "the mean load is 0.99, above 0.8, on 2 rustbees"
    assert said["latency"] == "the first token takes 6.2 s, more than 5 s"
    assert said["hold"].endswith("101 tasks wait; no more than 2 are allowed")
    assert len(set(said.values())) == len(said)
    assert reason(Wish(0, "hold"), signals(serving=0), FREE) == "nobody asks for it"
    assert reason(Wish(1, "hold"), signals(serving=0, starting=1), FREE) == "1 rustbee is starting"


def test_the_busiest_minute_is_remembered_and_a_busy_moment_is_not() -> None:
    peak = Peak()
    assert peak.slots == 0.0
    for second in range(600):
        peak.see(4 if second < 60 else 1, second * 1_000)
    assert peak.slots == 4 + 2, "and as they come by chance, its root more"
    peak.see(50, 600_000)
    for second in range(601, 660):
        peak.see(1, second * 1_000)
    assert peak.slots == 4 + 2, "a queue of one second is no minute with as many tasks"
    peak.see(1, PEAK_MS + PART_MS)
    assert peak.slots < 4
    peak.see(0, 10 * PEAK_MS)
    assert peak.slots == 0.0
