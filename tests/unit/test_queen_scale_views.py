"""Why a host was chosen, in words and numbers that can be checked."""

from __future__ import annotations

import pytest

from swarmesh.core.ids import HostName
from swarmesh.core.memory_pool import PoolFree
from swarmesh.core.placement import ChosenBy, HostCandidate, HostVerdict, Placement, choose_host
from swarmesh.queen.scale_views import placement_view

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
