"""What would have changed a decision: sentences that can be checked against the numbers they were made of."""

from __future__ import annotations

import msgspec
import pytest

from swarmesh.core.decision import MEASURED, POLICY_PREEMPT, POLICY_RETURN, SENIOR, Candidate, Decision
from swarmesh.core.ids import TaskId, WorkerId
from swarmesh.queen.would_change import would_change


def candidate(name: str, score: float, **parts: float) -> Candidate:
    return Candidate(WorkerId(name), score, tuple(parts.items()))


def decision(
    policy: str, *candidates: Candidate, chosen: str = "a", vetoes: dict[str, int] | None = None, better: str = "lower"
) -> Decision:
    return Decision(
        task_id=TaskId("t"),
        policy=policy,
        chosen=WorkerId(chosen) if chosen else None,
        cost=0.0,
        considered=len(candidates) + sum((vetoes or {}).values()),
        vetoes=tuple((vetoes or {}).items()),
        candidates=candidates,
        reason="because",
        better=better,
    )


def test_less_backlog_would_have_been_enough() -> None:
    runner_up = candidate("b", 1.8, backlog_s=1.2, prefill_s=0.5, speed=40.0)
    (said,) = would_change(decision("swarm", candidate("a", 1.0), runner_up))
    assert said == (
        "b would have been chosen with 0.8 s less backlog (it had 1.2 s), or at a speed of about 72 in place of 40"
    )


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"backlog_s": 0.5, "prefill_s": 0.5},
            "b would have been chosen with nothing else to do and 0.3 s less of the prompt",
        ),
        ({"backlog_s": 0.5, "decode_s": 0.5}, "b would have been chosen with nothing else to do"),
        ({"backlog_s": 0.1, "prefill_s": 0.9}, "with 0.8 s less of the prompt to read (it had 0.9 s)"),
        ({"backlog_s": 0.1, "prefill_s": 0.1}, "b would not have been chosen even idle: its score lacked 0.8"),
        ({"speed": 10.0}, "b would have been chosen at a speed of about 18 in place of 10"),
    ],
)
def test_what_backlog_alone_would_not_have_changed(parts: dict[str, float], words: str) -> None:
    (said,) = would_change(decision("swarm", candidate("a", 1.0), candidate("b", 1.8, **parts)))
    assert words in said


def test_votes_are_changed_by_load_by_nearness_and_by_a_warm_prompt() -> None:
    runner_up = candidate("b", 0.7, load=0.75, proximity=0.25, match=0.5)
    (said,) = would_change(decision("nest-site", candidate("a", 0.79), runner_up, better="higher"))
    assert said == (
        "b would have been chosen with a load lower by 0.23 (it was 0.75), or with a proximity of 0.55 in place of "
        "0.25, or with a match of 0.80 in place of 0.50"
    )
    far = candidate("b", 0.5, load=0.5, proximity=1.0, match=0.5)
    assert "even idle" in would_change(decision("nest-site", candidate("a", 0.9), far, better="higher"))[0]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("foraging", "b would have been chosen with a load lower by 0.25 (it was 0.50)"),
        ("least-work", "b would have been chosen with 0.25 token-equivalents less"),
        ("round-robin", "b has its turn later"),
        ("some-script", "b would have been chosen with a score lower by 0.25"),
    ],
)
def test_each_policy_has_its_lever(policy: str, words: str) -> None:
    (said,) = would_change(decision(policy, candidate("a", 0.25), candidate("b", 0.5, load=0.5)))
    assert words in said


@pytest.mark.parametrize(
    ("chosen", "other", "words"),
    [
        (candidate("a", 100.0, uptime_s=100.0), candidate("b", 40.0, uptime_s=40.0), "with 60 s more uptime"),
        (candidate("a", -40.0, uptime_s=40.0), candidate("b", -100.0, uptime_s=100.0), "with 60 s less uptime"),
        (candidate("a", 1.8, stable=1.0), candidate("b", 1.0, uptime_s=9.0), "calm and uptime enough to be stable"),
        (candidate("a", 0.8), candidate("b", 0.5, uptime_s=9.0, load=0.5), "with a load lower by 0.30"),
    ],
)
def test_ages_count_as_the_priority_has_them(chosen: Candidate, other: Candidate, words: str) -> None:
    (said,) = would_change(decision("division-of-labour", chosen, other, better="higher"))
    assert words in said


def test_equals_and_explorations_are_called_that() -> None:
    crowd = (candidate("c", 0.5), candidate("a", 1.0), candidate("b", 1.0))
    better, equal = would_change(msgspec.structs.replace(decision("swarm", *crowd), reason=MEASURED))
    assert equal == "b had the same score; equals take turns"
    assert better == "c had the better score by 0.5; a was only taken to be measured again"


def test_who_was_left_out() -> None:
    said = would_change(decision("swarm", chosen="", vetoes={"busy": 2, "tried": 1, "odd": 3}))
    assert said == (
        "2 rustbees would have been considered with a free slot",
        "one rustbee would have been considered with not having failed this task before",
        "3 rustbees would have been considered with not being odd",
    )


def test_nothing_to_choose_from() -> None:
    assert would_change(decision("swarm", candidate("a", 1.0)))[0].startswith("only another rustbee")
    assert would_change(decision("swarm", chosen=""))[0].endswith("there was none")
    assert would_change(decision(POLICY_RETURN))[0].startswith("nothing, while")
    assert would_change(decision(POLICY_PREEMPT, candidate("a", 1.0)))[0].startswith("a free slot anywhere")


def test_only_the_next_best_are_spoken_of() -> None:
    crowd = [candidate(f"w{number}", 2.0 + number) for number in range(7)]
    assert len(would_change(decision("swarm", candidate("a", 1.0), *crowd))) == 3


def test_the_younger_of_equals_is_told_why() -> None:
    of_equals = decision("swarm", candidate("a", 1.0), candidate("b", 1.0))
    (sentence,) = would_change(msgspec.structs.replace(of_equals, reason=SENIOR))
    assert sentence == "b had the same score and less uptime"


def test_large_numbers_are_said_as_the_table_shows_them() -> None:
    runner_up = candidate("b", 2.388, backlog_s=0.1, speed=1_020.0)
    (said,) = would_change(decision("swarm", candidate("a", 1.0), runner_up))
    assert said == "b would have been chosen at a speed of about 2436 in place of 1020"
    waits = candidate("b", 12_345.0, backlog_s=20_000.0)
    assert (
        "with 12344 s less backlog (it had 20000 s)" in would_change(decision("swarm", candidate("a", 1.0), waits))[0]
    )
