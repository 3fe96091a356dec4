"""Swarmscale on virtual time: every trace, some seeds; what must hold held, and the figures are of that run."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmesh.core.ids import HostName, ModelName
from swarmesh.core.scale_bounds import Bounds
from swarmesh.sim.scaling import __main__ as command
from swarmesh.sim.scaling.moves import Move, MoveKind, most_within, reversals
from swarmesh.sim.scaling.outcome import live
from swarmesh.sim.scaling.plan import Ask, HostPlan, ModelPlan, Plan, least_workers
from swarmesh.sim.scaling.report import markdown
from swarmesh.sim.scaling.seeds import run_seeds
from swarmesh.sim.scaling.traces import TRACES, plan_of

SEEDS = range(1, 4)
SEEDS_OF_ZOO = range(1, 2)
"""Where ten models fight for memory an hour takes longest."""
UP, DOWN, SLEEP, EVICT = MoveKind.UP, MoveKind.DOWN, MoveKind.SLEEP, MoveKind.EVICT


@pytest.mark.parametrize("trace", TRACES)
def test_seeds_of_a_trace_hold(trace: str) -> None:
    for seed in SEEDS_OF_ZOO if trace == "zoo" else SEEDS:
        outcome = live(plan_of(trace, seed)).outcome
        assert not outcome.broken_first, f"swarmesh sim scale --trace {trace} --seed {seed}"
        assert outcome.requests > 0


def test_plans_and_runs_are_the_same_twice() -> None:
    assert plan_of("zoo", 4) == plan_of("zoo", 4)
    assert plan_of("zoo", 4) != plan_of("zoo", 5)
    assert live(plan_of("alternating", 2)) == live(plan_of("alternating", 2))


def test_the_first_request_waits_for_the_load_and_not_much_longer() -> None:
    lived = live(plan(asks=[Ask(60_000, ModelName("model"), 1_000)]))
    ((wait_ms, start_ms),) = lived.wakes
    assert lived.outcome.failed == {}
    assert 20_000 <= start_ms <= wait_ms <= start_ms + 5_000
    assert (lived.outcome.wakes, lived.outcome.sleeps) == (1, 1), "and it goes again"


def test_two_models_take_turns_where_there_is_memory_for_one() -> None:
    names = [ModelName("one"), ModelName("two")]
    asks = [Ask(minute * 60_000, names[minute // 8 % 2], 2_000) for minute in range(32)]
    outcome = live(plan(names=names, asks=asks)).outcome
    assert outcome.failed == {}
    assert not outcome.broken_first
    assert outcome.wakes >= 4
    assert outcome.swaps >= 3


def test_a_model_that_fits_nowhere_fails_its_requests_and_is_not_tried_for_ever() -> None:
    lived = live(plan(need_mib=90_000, asks=[Ask(20_000 * each, ModelName("model"), 1_000) for each in range(90)]))
    assert sum(lived.outcome.failed.values()) >= 60, "but for the durable ones"
    assert lived.waits_ms == []
    assert not lived.outcome.broken_first


def test_what_would_have_done_is_counted_from_the_requests_alone() -> None:
    asks = [Ask(0, ModelName("model"), 1_800_000) for _ in range(3)]
    one = plan(asks=asks, slots=2)
    assert least_workers(one, one.models[0]) == pytest.approx(2 * 0.5), "two workers for half of the time"


def test_changes_of_direction_are_counted_by_model_and_window() -> None:
    moves = [Move(0, UP), Move(100, UP), Move(200, DOWN), Move(300, EVICT), Move(400, UP), Move(900_000, DOWN)]
    assert reversals(moves) == [200, 400, 900_000]
    assert reversals(moves, from_ms=150) == [400, 900_000]
    assert reversals(moves, until_ms=400) == [200]
    assert reversals([Move(0, UP), Move(1, SLEEP), Move(2, UP), Move(3, DOWN)]) == [3]
    assert most_within([200, 400, 900_000]) == 2
    assert most_within([0, 600_000]) == 1
    assert most_within([]) == 0


def test_many_seeds_on_two_processes_are_those_of_one() -> None:
    traces, seeds, heard = ["step", "bursts"], [1, 2, 3], list[int]()
    one = run_seeds(traces, seeds, progress=heard.append)
    assert run_seeds(traces, seeds, processes=2) == one
    assert heard == [1, 2, 3]
    assert (one["step"].runs, one["bursts"].runs) == (1, 2)
    table = markdown(one.values())
    assert "| step | 1 |" in table
    assert "| bursts | 2 |" in table


def test_the_command_prints_figures_and_writes_them_where_they_belong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- scaling:begin -->\nold\n<!-- scaling:end -->\nafter\n")
    arguments = ["--seeds", "2", "--traces", "bursts", "--progress", "--write-docs", str(page)]
    assert command.main(arguments) == 0
    said = capsys.readouterr()
    assert "| bursts | 2 |" in said.out
    assert "2 of 2 runs" in said.err
    text = page.read_text()
    assert text.startswith("before\n<!-- scaling:begin -->\n\n`python -m swarmesh.sim.scaling --seeds 2")
    assert "old" not in text
    assert text.endswith("<!-- scaling:end -->\nafter\n")


def test_a_broken_promise_is_said_and_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("swarmesh.core.scaling.Scaler.expects", lambda *_: False)
    assert command.main(["--seeds", "1", "--traces", "bursts", "--first", "2"]) == 1
    said = capsys.readouterr().out
    assert "- bursts: no_failure broken in 1 of 1 (seeds 2)" in said
    assert "no_rustbees_available" in said


@pytest.mark.parametrize(("option", "value"), [("--traces", "storm"), ("--seeds", "0"), ("--first", "0")])
def test_what_makes_no_sense_is_refused(option: str, value: str) -> None:
    with pytest.raises(SystemExit) as refused:
        command.main([option, value])
    assert refused.value.code == 2


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    with pytest.raises(ValueError, match="scaling:begin"):
        command.write_between_marks(page, "text")
    assert page.read_text() == "nothing here\n"


def plan(
    *,
    asks: list[Ask],
    names: list[ModelName] | None = None,
    need_mib: int = 9_000,
    slots: int = 4,
) -> Plan:
    """One usual host with memory for one worker of 9,000 MiB, and models that load in 20 s."""
    models = tuple(ModelPlan(name, need_mib, slots, 20_000, 0, Bounds(0, 1)) for name in names or [ModelName("model")])
    host = HostPlan(HostName("host"), 12_000, 1.0, 0.5)
    until_ms = 3_600_000
    return Plan(
        trace="own", seed=1, hosts=(host,), models=models, asks=tuple(asks), until_ms=until_ms, wait_ms_max=900_000
    )
