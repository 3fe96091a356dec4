"""The guide to routing says the figures that the code goes by."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmesh.core import exploration, ledger_rule, policies, preemption, speed, trail
from swarmesh.core.policies import PolicyName
from swarmesh.wire.prefix import BLOCK_BYTES

GUIDE = Path(__file__).parents[2] / "docs" / "foragexec-strategies.md"

SAID = {
    "cost of swarm": f"({ledger_rule.BACKLOG_SHARE:g} · backlog + {ledger_rule.DECODE_WORK:g} · running + "
    "prefill_weight · uncached) / speed",
    "votes of nest-site": "score = 0.4 · (1 - load) + 0.3 · proximity + 0.3 · match",
    "depleted": f"is below {policies.DEPLETED_QUALITY:g}",
    "unknown load": f"counts as {policies.UNKNOWN_LOAD:g} at least",
    "stable": f"up for {policies.STABLE_UPTIME_MS // 60_000} minutes and has broken no stream for "
    f"{policies.STABLE_CALM_MS // 60_000}",
    "half-life of speed": f"after {speed.HALF_LIFE_WORK:,.0f} token-equivalents",
    "blocks": f"in blocks of {BLOCK_BYTES} bytes",
    "back": f"gets one after {exploration.DEADLINE_MS // 1_000} s in any case",
    "unused": f"after {exploration.STALE_DEADLINE_MS // 1_000} s more",
    "overdue": f"has waited {preemption.PREEMPTED_MS_MAX // 1_000} s for a slot",
}


@pytest.mark.parametrize("what", SAID)
def test_the_guide_says_what_holds(what: str) -> None:
    assert SAID[what] in " ".join(GUIDE.read_text(encoding="utf-8").split())


def test_the_guide_has_every_policy() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert [name for name in PolicyName if f"| `{name}` |" not in text] == []


def test_what_the_guide_says_in_words_holds() -> None:
    assert ledger_rule.AFFINITY == 1, "the guide leaves it out"
    assert (exploration.SHARE, exploration.SPACING, exploration.STALE_SPACING) == (100, 4, 50)
    assert exploration.STALE_MS == 120_000
    assert (trail.FAILURE, trail.SLOW, trail.SLOW_FACTOR, trail.HALF_LIFE_MS) == (1.0, 0.25, 4.0, 60_000)
    assert (speed.CLASSES_PER_DOUBLING, speed.RETURN_FADE) == (4, 0.1)
