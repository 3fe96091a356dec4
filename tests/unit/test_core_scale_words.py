"""What would make the scaler decide otherwise, also while something holds it back."""

from __future__ import annotations

import pytest

from scale_bed import Kind, ScaleBed
from swarmesh.core.breaker import FAILURES_MAX
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.load_times import LoadTimes
from swarmesh.core.scale_action import Action, Phase, Room
from swarmesh.core.scale_book import Scaled
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scale_rule import Signals, Wish, reason
from swarmesh.core.scale_view import ScaleDecision, ScaleKind, ScaleStats
from swarmesh.core.scale_words import action_view, would_change

NOW_MS = 100_000


def book(low: int = 0, high: int = 3, *, paused: bool = False, own: bool = True) -> Scaled:
    return Scaled(ModelName("a"), Bounds(low, high, paused), own_bounds=own, looked_at_ms=NOW_MS)


def serving(count: int, *, load: float = 0.5, waiting: int = 0) -> Signals:
    return Signals(ScaleStats(serving=count, slots=2 * count, load=load, waiting=waiting), spare_ms=0)


def opened(state: Scaled) -> Scaled:
    for _ in range(FAILURES_MAX):
        state.breaker.failed({"elm": "its engine crashed"}, NOW_MS - 4_600)
    return state


def said(state: Scaled, signals: Signals, found: Wish | None = None, **more: object) -> tuple[str, ...]:
    return would_change(state, found or Wish(signals.present, "hold"), signals, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "target"), [(0, 0), (0, 1), (1, 1), (1, 3), (2, 0)])
def test_while_it_is_paused_only_the_end_of_the_pause_helps(count: int, target: int) -> None:
    signals, found = serving(count), Wish(target, "load")
    every, own = "'swarmesh swarmscale resume'", "'swarmesh swarmscale resume a'"
    assert said(book(), signals, found, paused=True) == (f"paused: {every} goes on",)
    assert said(book(paused=True), signals, found) == (f"paused: {own} goes on",)
    assert said(book(paused=True), signals, found, paused=True) == (f"paused: {every} and {own} go on",)


def test_what_an_open_breaker_waits_for() -> None:
    breaker = "up: the next start is tried in 25 s; 'swarmesh swarmscale set a --max 3' forgets the failures before"
    assert said(opened(book()), serving(0)) == (breaker,), "the first request would be refused"
    first, *others = said(opened(book()), serving(1))
    assert first == breaker
    assert others
    assert all(sentence.startswith("down") for sentence in others)
    (first, *_) = said(opened(book(own=False)), serving(0))
    assert "'swarmesh swarmscale set --all --max 3'" in first


def test_for_lack_of_room_it_also_waits_for_others() -> None:
    state = book()
    state.breaker.found_no_room({"elm": "b holds its memory"}, NOW_MS)
    assert said(state, serving(0)) == ("up: the next start is tried in 30 s, or as soon as others let go of memory",)


def test_what_the_breaker_says_is_true() -> None:
    bed = ScaleBed("elm").settle()
    bed.scale("a")
    bed.kinds["a"] = Kind(fails="its engine crashed")
    bed.submit("a", durable=True)
    bed.run_until(lambda: bed.state().breaker_ms)
    tried, (first, *_) = len(bed.spawned), bed.state().would_change
    assert first.endswith("'swarmesh swarmscale set a --max 1' forgets the failures before")
    bed.scale("a")
    bed.run(1_000)
    assert len(bed.spawned) > tried


def test_a_script_that_says_how_many_is_named() -> None:
    script = "the policy script 'mine.star' says how many; 'swarmesh policy deactivate' leaves it to the load"
    for found in (Wish(1, "hold"), Wish(2, "script"), Wish(0, "script")):
        assert said(book(), serving(1), found, script="mine.star") == (script,)
    assert said(book(), serving(0), script="mine.star") == (script,), "the first request alone starts none"
    assert said(book(1, 1), serving(1), script="mine.star") == (
        script,
        "up: not beyond 1 rustbee, the most it may have",
        "down: not below 1 rustbee, the least it may have",
    )
    assert said(opened(book()), serving(1), Wish(2, "script"), script="mine.star")[0] == script
    (unnamed,) = said(book(), serving(1), Wish(2, "script"))
    assert unnamed == "the policy script says how many; 'swarmesh policy deactivate' leaves it to the load"


@pytest.mark.parametrize(("low", "idle_s"), [(0, 300), (1, 600)])
def test_where_some_are_kept_the_others_stay_longer(low: int, idle_s: int) -> None:
    down = next(sentence for sentence in said(book(low), serving(2)) if sentence.startswith(f"down to {low}: "))
    assert down.startswith(f"down to {low}: {idle_s} s without any task, where it is ")


def test_a_slow_first_token_counts_also_under_load_alone() -> None:
    up = [sentence for sentence in said(book(), serving(1)) if "first token" in sentence]
    assert up == [
        "up: more than 5 s to the first token while tasks wait or the load is above 0.5; it is 0.0 s now",
    ]


@pytest.mark.parametrize(("count", "most"), [(0, 1), (1, 1), (2, 2)])
def test_the_bounds_that_are_proposed_stop_nobody(count: int, most: int) -> None:
    unbound = Scaled(ModelName("a"), None)
    assert said(unbound, serving(count)) == (
        f"bounds: 'swarmesh swarmscale set a --min 0 --max {most}' lets it be scaled",
    )


@pytest.mark.parametrize(
    ("leaving", "words"),
    [
        (set(), "making room for a on elm: nobody has to go any more"),
        ({"b"}, "making room for a on elm: b has to go"),
        ({"c", "b"}, "making room for a on elm: b, c have to go"),
    ],
)
def test_who_makes_room_is_named_if_anybody_is(leaving: set[str], words: str) -> None:
    state = book()
    decision = ScaleDecision(NOW_MS, ScaleKind.UP, 1, 1, "first_request", "1 task waits", ScaleStats())
    room = Room(HostName("elm"), 1_000, {WorkerId(name) for name in leaving}, NOW_MS + 1)
    state.action = Action(decision, NOW_MS, Phase.MAKING_ROOM, NOW_MS, room=room)
    view = action_view(state, LoadTimes(), NOW_MS)
    assert view is not None
    assert view.words == words


def test_one_is_one_rustbee_and_not_several() -> None:
    (full,) = (sentence for sentence in said(book(), serving(1)) if "full for 20 s" in sentence)
    assert full.startswith("up: the one rustbee 0.9 full")
    for rule in ("min", "max", "load", "full", "script", "hold"):
        assert "1 rustbees" not in reason(Wish(1, rule), serving(1), Bounds(1, 1))
    assert reason(Wish(1, "max"), serving(1), Bounds(1, 1)) == "1 rustbee is there and 1 is allowed"
