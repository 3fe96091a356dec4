"""On which host a worker is started when nobody names one."""

from __future__ import annotations

from itertools import permutations

import msgspec
import pytest

from swarmesh.core.ids import HostName
from swarmesh.core.memory_pool import PoolFree
from swarmesh.core.placement import WEIGHTS, HostCandidate, choose_host


def host(name: str, free_mib: int = 8_000, **facts: object) -> HostCandidate:
    plain = HostCandidate(host=HostName(name), need_mib=4_000, pools=(PoolFree("ram", free_mib, 10_000),))
    return msgspec.structs.replace(plain, **facts)


@pytest.mark.parametrize(
    ("candidate", "veto"),
    [
        (host("elm", usable=False), "not connected"),
        (host("elm", draining=True), "draining"),
        (host("elm", offered=False), "does not offer the backend"),
        (host("elm", 3_999), "needs 4000 MiB and has 3999 MiB of ram free"),
        (host("elm", pools=()), "needs 4000 MiB and has nothing free"),
    ],
)
def test_a_host_that_cannot_is_vetoed_with_the_reason(candidate: HostCandidate, veto: str) -> None:
    alone = choose_host([candidate])
    assert (alone.choice, alone.vetoes) == (None, {"elm": veto})
    both = choose_host([candidate, host("oak", 4_000, proximity=0.0, workers=9)])
    assert (both.choice, both.vetoes) == ("oak", {"elm": veto})


def test_gpus_hold_together_what_none_holds_alone() -> None:
    pools = (PoolFree("gpu 0", 2_500, 8_000), PoolFree("gpu 1", 1_500, 8_000))
    assert choose_host([host("elm", pools=pools)]).choice == "elm"
    less = (PoolFree("gpu 0", 2_499, 8_000), PoolFree("gpu 1", 1_500, 8_000))
    refused = choose_host([host("elm", pools=less)])
    assert refused.vetoes == {"elm": "needs 4000 MiB and has 2499 MiB of gpu 0, 1500 MiB of gpu 1 free"}


@pytest.mark.parametrize(
    "better",
    [{"file_there": True}, {"proximity": 0.6}, {"pools": (PoolFree("ram", 8_100, 10_000),)}, {"workers": 1}],
    ids=str,
)
def test_each_vote_counts_where_all_else_is_equal(better: dict[str, object]) -> None:
    assert choose_host([host("elm", workers=2), host("oak", **{"workers": 2, **better})]).choice == "oak"


def test_equals_go_by_name_and_the_order_of_asking_does_not_matter() -> None:
    candidates = [host("oak", workers=1), host("elm", workers=1), host("ash", proximity=0.1)]
    placements = {choose_host(order) for order in permutations(candidates)}
    assert len(placements) == 1
    assert placements.pop().choice == "elm"


def test_the_reasons_say_how_every_score_came_about() -> None:
    placement = choose_host([host("oak", workers=1, file_there=True, proximity=1.0), host("elm", draining=True)])
    elm, oak = placement.reasons
    assert (elm.host, elm.veto, elm.votes) == ("elm", "draining", ())
    assert dict(oak.votes) == {
        "memory left": 0.4,
        "few workers": 0.5,
        "load": 1.0,
        "proximity": 1.0,
        "file there": 1.0,
        "speed": 0.5,
    }
    assert oak.score == pytest.approx(sum(WEIGHTS[name] * vote for name, vote in oak.votes))
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)


def test_nobody_is_chosen_of_nobody() -> None:
    assert choose_host([]).choice is None
