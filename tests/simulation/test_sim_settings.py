"""Named settings, seed by seed: whatever breaks, every accepted task ends once and every answer is whole."""

from __future__ import annotations

import pytest

from swarmesh.sim import __main__ as command
from swarmesh.sim.scenario import scenario_of
from swarmesh.sim.seeds import Broken, Tally, run_seed, run_seeds
from swarmesh.sim.setting import OPEN, SETTINGS
from swarmesh.sim.world import VirtualWorld, simulate

SEEDS = range(1, 13)
"""As few as see every kind of fault; ``make sim-seeds`` runs a thousand of each setting."""


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != OPEN])
def test_seeds_of_a_setting_hold(name: str) -> None:
    tally = run_seeds(name, SEEDS, check=True, processes=1)
    assert isinstance(tally, Tally), tally
    assert tally.seeds == len(SEEDS)
    counts, setting = tally.counts, SETTINGS[name]
    assert counts["done"] > 0.5 * counts["submitted"]
    assert counts["moves"] > 0
    assert counts["preemptions"] > 0
    assert (counts["lives"] > len(SEEDS)) == bool(setting.queen_fault_every_ms)
    assert (counts["lost"] > 0) == setting.disk_lies
    expected = {*setting.machine_faults, *(setting.queen_faults if setting.queen_fault_every_ms else ())}
    assert tally.faults.keys() == expected


def test_a_world_with_crashes_of_the_queen_runs_identically_twice() -> None:
    first = simulate(scenario_of("chaos", 3))
    assert first.lives > 1
    assert simulate(scenario_of("chaos", 3)) == first
    assert simulate(scenario_of("chaos", 3), check=False) == first


def test_an_assertion_of_the_core_is_reported_with_its_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_world: VirtualWorld) -> None:
        raise AssertionError("a task is charged once per dispatch")

    monkeypatch.setattr(VirtualWorld, "run", run)
    assert run_seed("small", 4, check=True) == Broken(
        4,
        "AssertionError: a task is charged once per dispatch",
        "python -m swarmesh.sim --setting small --seeds 4 --check",
    )


def test_the_command_runs_seeds_on_several_processes_and_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--setting", "small", "--seeds", "1-3", "--check", "--processes", "2"]) == 0
    table = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert table["seeds"] == "3"
    assert float(table["times_real_time"]) > 0


def test_the_command_stops_at_the_first_violation_and_says_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(VirtualWorld, "_check_rest", _fail)
    assert command.main(["--setting", "small", "--seeds", "5-9", "--check"]) == 1
    said = capsys.readouterr().err
    assert said == "KeyError: 'nobody'\nreplay: python -m swarmesh.sim --setting small --seeds 5 --check\n"


def _fail(_world: VirtualWorld) -> None:
    raise KeyError("nobody")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "1-3"], "--seeds needs a --setting: small, batch, chaos, scaled, unsynced"),
        (["--setting", "small", "--seeds", "3-1"], "invalid _seeds value: '3-1'"),
        (["--setting", "huge"], "invalid choice: 'huge'"),
    ],
)
def test_seeds_that_cannot_be_run_are_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        command.main(arguments)
    assert refused.value.code == 2
    assert words in capsys.readouterr().err
