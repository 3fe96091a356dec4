"""Why a host was chosen, in words and numbers that can be checked."""

from __future__ import annotations

import msgspec
import pytest

from swarmesh.core.ids import HostName, ModelName
from swarmesh.core.memory_pool import PoolFree
from swarmesh.core.placement import ChosenBy, HostCandidate, HostVerdict, Placement, choose_host
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scale_view import ScaleDecision, ScaleKind, ScaleState, ScaleStats
from swarmesh.queen.scale_views import ScriptWish, placement_view, scale_words

NEED_MIB = 1_000


def host(name: str, *, free_mib: int = 5_000, **more: object) -> HostCandidate:
    pools = (PoolFree("ram", free_mib, 10_000),)
    return HostCandidate(host=HostName(name), need_mib=NEED_MIB, pools=pools, **more)  # type: ignore[arg-type]


def test_the_votes_decide() -> None:
    near, far = host("near", proximity=1.0, file_there=True), host("far", proximity=0.5, file_there=True)
    view = placement_view("demo", choose_host([far, near]), live=True, candidates=[far, near])
    first, second = view.hosts
    assert (view.choice, view.by, first.host) == ("near", "votes", "near")
    assert first.score == pytest.approx(sum(view.weights[name] * vote for name, vote in first.votes.items()), abs=1e-3)
    assert (first.need_mib, first.free_mib, first.file_there) == (NEED_MIB, 5_000, True)
    assert view.words == f"near with {first.score:.3f}; next is far with {second.score:.3f}"
    assert view.would_change == ("far needs 0.150 more, such as proximity 1.00 instead of 0.50",)


def test_what_would_change_it_changes_it() -> None:
    near, far = host("near", proximity=0.9), host("far", proximity=0.7, load=0.25)
    before = choose_host([near, far])
    (said,) = placement_view("demo", before, live=True).would_change
    needed = float(said.split("such as proximity ")[1].split(" instead of 0.70")[0])
    after = choose_host([near, host("far", proximity=needed + 0.01, load=0.25)])
    assert (before.choice, after.choice) == ("near", "far")
    far_away = host("far", proximity=0.1, load=0.5)
    (said,) = placement_view("demo", choose_host([near, far_away]), live=True).would_change
    assert "such as" not in said, "no vote alone suffices"


def test_who_was_chosen_last_stays() -> None:
    here, there = host("here", proximity=0.5), host("there", proximity=0.6)
    placement = choose_host([here, there], last=HostName("here"))
    view = placement_view("demo", placement, live=False)
    assert (view.choice, view.by, view.live) == ("here", "last", False)
    assert view.words.startswith("here with ")
    assert " stays: there with " in view.words
    assert view.words.endswith("is no better than 1.2 times that")
    assert view.would_change[0].startswith("there needs")


def test_a_script_decides_by_its_own_numbers() -> None:
    verdicts = (HostVerdict(HostName("a"), "", (("load", 1.0),), 7.0), HostVerdict(HostName("b"), "", (), 9.0))
    view = placement_view("demo", Placement(HostName("b"), verdicts, ChosenBy.SCRIPT), live=False)
    assert view.words.startswith("the policy script chose b")
    assert "policy script" in view.would_change[0]


def test_every_veto_is_said_with_its_numbers() -> None:
    full, closed = host("full", free_mib=400), host("closed", draining=True)
    placement = choose_host([full, closed])
    view = placement_view("demo", placement, live=True, candidates=[full, closed], failures={"mac": "out of reach"})
    assert view.choice is None
    assert view.words == (
        "no host takes a rustbee of 'demo' now: closed: draining; "
        "full: needs 1000 MiB and has 400 MiB of ram free; mac: out of reach"
    )
    assert view.would_change == ("full needs 600 MiB more free",)
    assert placement_view("demo", Placement(None, ()), live=True).words.endswith("no host is connected")
    nowhere = placement_view("demo", Placement(None, ()), live=True, failures={"": "no such file"})
    assert nowhere.words.endswith("everywhere: no such file")


def test_an_only_host_needs_no_comparison() -> None:
    view = placement_view("demo", choose_host([host("a"), host("b", draining=True)]), live=True)
    assert view.words == "a is the only host that takes a rustbee of 'demo' now"
    assert view.would_change == ()


def test_what_was_chosen_before_is_told_as_past() -> None:
    placed, nowhere = choose_host([host("a")]), choose_host([host("b", draining=True)])
    assert (
        placement_view("demo", placed, live=False).words
        == "a was the only host that could take a rustbee of 'demo' then"
    )
    assert placement_view("demo", nowhere, live=False).words == "no host took a rustbee of 'demo': b: draining"


def scaled(kind: ScaleKind, *, paused: bool = False, blocked: str = "", breaker_ms: int = 0) -> ScaleState:
    stats, target = ScaleStats(serving=1), {ScaleKind.UP: 2, ScaleKind.DOWN: 0}.get(kind, 1)
    wanted = ScaleDecision(0, kind, int(kind is not ScaleKind.HOLD), target, "load", "the load is 0.95", stats)
    bounds = Bounds(0, 3, paused)
    held = {"blocked": blocked, "breaker_ms": breaker_ms, "breaker_reason": "elm: it crashed" if breaker_ms else ""}
    return ScaleState(ModelName("a"), bounds, True, stats, target, None, wanted, **held)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "every", "held"),
    [
        (scaled(ScaleKind.UP), False, ""),
        (scaled(ScaleKind.DOWN, breaker_ms=25_000), False, ""),
        (scaled(ScaleKind.DOWN, blocked="cool-down: 9 s"), False, "cool-down: 9 s"),
        (scaled(ScaleKind.UP, blocked="paused"), True, "scaling of every modelcell is paused"),
        (scaled(ScaleKind.DOWN, blocked="paused", paused=True), False, "scaling of this modelcell is paused"),
        (scaled(ScaleKind.UP, paused=True), True, "scaling of every modelcell and of this one is paused"),
        (scaled(ScaleKind.UP, breaker_ms=25_000), False, "no start is tried for another 25 s, because elm: it crashed"),
    ],
)
def test_what_is_wanted_and_what_holds_it_back(state: ScaleState, *, every: bool, held: str) -> None:
    assert state.last is not None
    what = f"{state.last.kind} 1"
    words = f"{what} is held back: {held}; wanted because the load is 0.95" if held else f"{what}: the load is 0.95"
    assert scale_words(state, paused=every) == words


def test_what_would_hold_it_back_is_said_while_nothing_is_wanted() -> None:
    crashed = scaled(ScaleKind.HOLD, breaker_ms=25_000)
    assert scale_words(scaled(ScaleKind.HOLD)) == "the load is 0.95"
    assert scale_words(scaled(ScaleKind.HOLD), paused=True) == "the load is 0.95; scaling of every modelcell is paused"
    assert scale_words(crashed).endswith("; no start is tried for another 25 s, because elm: it crashed")


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (4, "policy script 'sc.star' wants 4, at most 3 are allowed"),
        (0, "policy script 'sc.star' wants 0, at least 1 is kept"),
        (1, "policy script 'sc.star' wants 1, and 1 is there"),
    ],
)
def test_what_a_script_wants_is_the_reason_also_beyond_the_bounds(count: int, words: str) -> None:
    state = msgspec.structs.replace(scaled(ScaleKind.HOLD), bounds=Bounds(1, 3))
    assert scale_words(state, script=ScriptWish("sc.star", count)) == words
    up = msgspec.structs.replace(scaled(ScaleKind.UP), bounds=Bounds(1, 3))
    assert scale_words(up, script=ScriptWish("sc.star", count)) == f"up 1: {words}"


def test_what_an_engine_said_is_a_part_of_the_sentence() -> None:
    said = "elm: rustbee-7: the engine ended\n  CUDA error: no kernel\nno usable GPU.\n"
    held = msgspec.structs.replace(scaled(ScaleKind.UP, breaker_ms=25_000), breaker_reason=said)
    assert scale_words(held) == (
        "up 1 is held back: no start is tried for another 25 s, because elm: rustbee-7: the engine ended ... "
        "CUDA error: no kernel ... no usable GPU; wanted because the load is 0.95"
    )
    blocked = msgspec.structs.replace(scaled(ScaleKind.DOWN), blocked="no host has room: elm: full.\n" + "x" * 9_000)
    assert scale_words(blocked).endswith("xxx ...; wanted because the load is 0.95")
    assert len(scale_words(blocked)) < 500
