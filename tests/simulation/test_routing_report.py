"""The table of `bench.routing`: who is best, and that losses are printed like wins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
from bench.routing import report
from bench.routing.field import Field, Setting, run_all

from swarmesh.sim.routing.outcome import Outcome, Waits

PEER = "peer:round-robin"


def outcome(mean_ms: float, share: float, p99_ms: float = 100) -> Outcome:
    waits = Waits(requests=10, ttft_ms_mean=mean_ms, ttft_ms_p50=mean_ms, ttft_ms_p99=p99_ms, within_2s_share=share)
    return Outcome("", 1, 10, waits, 1.0, 1.0, {}, 0.5, 1.0, 0, 10.0, {}, [])


def field(swarm: list[Outcome], peer: list[Outcome], fleet: str = "unequal") -> Field:
    return Field({(fleet, "agent", "swarm"): swarm, (fleet, "agent", PEER): peer}, ["agent"], [fleet], ["swarm", PEER])


def test_the_swarm_leads_only_with_mean_and_share() -> None:
    assert field([outcome(10, 0.9)], [outcome(11, 0.9)]).swarm_leads("unequal", "agent")
    assert not field([outcome(10, 0.8)], [outcome(11, 0.9)]).swarm_leads("unequal", "agent")
    assert not field([outcome(12, 0.9)], [outcome(11, 0.8)]).swarm_leads("unequal", "agent")
    over_seeds = field([outcome(10, 0.9), outcome(30, 0.9)], [outcome(19, 0.9), outcome(19, 0.9)])
    assert not over_seeds.swarm_leads("unequal", "agent"), "20 on average, for all that one seed says"


def test_losses_are_printed() -> None:
    lost = report.losses(field([outcome(20, 0.8, 300)], [outcome(10, 0.9, 100)]))
    assert [line.split(": ")[0] for line in lost] == [
        "- agent, unequal, mean",
        "- agent, unequal, p99",
        "- agent, unequal, share within 2 s",
    ]
    assert all(PEER in line for line in lost)
    text = report.markdown(field([outcome(20, 0.8)], [outcome(10, 0.9)]), {"Date": "today"})
    assert "swarm best mean and best share in 0 of 1 (unequal), wanted 5: none" in text
    assert lost[0].split(": ")[0] in text


def test_a_win_is_no_loss() -> None:
    won = field([outcome(10, 0.9, 100)], [outcome(20, 0.8, 300)])
    assert report.losses(won) == []
    assert "in 1 of 1 (unequal), wanted 5: agent" in report.markdown(won, {})
    assert "- nowhere" in report.markdown(won, {})


def test_the_tail_on_equal_workers_is_held_against_the_best() -> None:
    text = report.markdown(field([outcome(10, 0.9, 108)], [outcome(20, 0.8, 100)], "equal"), {})
    assert "- p99 within 8.0% of the best (equal), farthest in agent, wanted 10%" in text
    assert f"- agent: p99 within 8.0% of the best ({PEER}): holds" in text
    text = report.markdown(field([outcome(10, 0.9, 120)], [outcome(20, 0.8, 100)], "equal"), {})
    assert f"p99 within 20.0% of the best ({PEER}): missed" in text


def test_processes_change_nothing() -> None:
    settings = [Setting("mixed-priority", "unequal", seed, 0.7, 60) for seed in (1, 2)]
    one, two = (run_all(settings, ["swarm", PEER], processes) for processes in (1, 2))
    assert msgspec.json.encode(list(one.outcomes.values())) == msgspec.json.encode(list(two.outcomes.values()))
    assert "high: mean" in report.markdown(one, {})


def test_the_page_is_not_written_from_a_look() -> None:
    command = [sys.executable, "-m", "bench.routing", "--quick", "--write-docs"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--write-docs" in done.stderr
