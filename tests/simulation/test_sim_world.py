"""The same core in a virtual world: seeds that must hold, and runs that must be the same twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest

from swarmesh.core.script import Facts, Hook
from swarmesh.sim import __main__ as command
from swarmesh.sim.checkers import InvariantBrokenError
from swarmesh.sim.result import Result
from swarmesh.sim.scenario import Scenario
from swarmesh.sim.setting import SETTINGS
from swarmesh.sim.world import VirtualWorld, simulate

SEEDS = range(1, 9)


def small(seed: int = 1, **changes: object) -> Scenario:
    return msgspec.structs.replace(Scenario(seed=seed, workers=12, models=2, events=4_000), **changes)


@pytest.mark.parametrize("seed", SEEDS)
def test_small_worlds_hold(seed: int) -> None:
    result = simulate(small(seed))
    assert result.events >= 4_000
    assert result.done + result.cancelled + sum(result.failed.values()) == result.submitted


def test_a_middle_sized_world_under_more_work_than_it_can_do_holds() -> None:
    result = simulate(Scenario(seed=5, workers=200, models=3, events=12_000, load_ratio=1.3))
    assert result.queue_depth_max > 100
    assert result.moves > 0


def test_small_seeds_see_every_kind_of_fault() -> None:
    wanted, seen = SETTINGS[""].machine_faults.keys(), set[str]()
    for seed in range(100, 105):
        seen |= simulate(small(seed, events=10_000), check=False).faults.keys()
        if seen == wanted:
            break
    assert seen == wanted


def test_nothing_is_lost_or_moved_where_nothing_goes_wrong() -> None:
    result = simulate(small(faults=False))
    assert (result.failed, result.cancelled, result.faults) == ({}, 0, {})
    assert result.moves == result.preemptions > 0
    assert result.done == result.submitted == result.starts - result.preemptions


def test_a_script_is_asked_once_about_each_task_that_comes() -> None:
    world, asked = VirtualWorld(small(faults=False), check=True), Counter[str]()

    class Asked:
        """Lets everything in."""

        name, hooks = "asked.star", frozenset({Hook.ADMIT})

        def admit(self, task: Facts) -> str | None:
            asked[str(task["id"])] += 1
            return None

        def score(self, _task: Facts, workers: Sequence[Facts]) -> Sequence[float | None]:
            return [None for _ in workers]

        def place(self, _model: Facts, hosts: Sequence[Facts]) -> Sequence[float | None]:
            return [None for _ in hosts]

        def scale(self, _model: Facts, _stats: Facts) -> int | None:
            return None

    assert world.queen is not None
    world.queen.swarm.set_script(Asked())
    result = world.run()
    assert len(asked) == result.submitted
    assert set(asked.values()) == {1}


def test_equal_scenarios_run_identically_and_watching_changes_nothing() -> None:
    first = simulate(small())
    assert simulate(small()) == first
    assert simulate(small(), check=False) == first
    assert simulate(small(2)).trace != first.trace


def test_a_run_does_not_depend_on_how_python_hashes() -> None:
    def run(hash_seed: str) -> Result:
        arguments = ["--workers", "12", "--events", "4000", "--models", "2", "--seed", "1", "--json"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-m", "swarmesh.sim", *arguments], env=environment, capture_output=True, check=True
        )
        return msgspec.json.decode(done.stdout, type=Result)

    assert run("1") == run("2") == simulate(small())


def test_a_broken_core_is_caught_and_the_hint_replays_it() -> None:
    world = VirtualWorld(small(7), check=True)
    assert world.queen is not None
    world.queen.swarm.dispatcher.serve = lambda *_: None  # type: ignore[method-assign] # waiting tasks are never served
    with pytest.raises(InvariantBrokenError, match="slots free and task") as broken:
        world.run()
    replay = "python -m swarmesh.sim --workers 12 --events 4000 --seed 7 --models 2 --load 0.9 --check"
    assert broken.value.hint == replay


def test_the_command_prints_the_replay_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(scenario: Scenario, *, check: bool) -> Result:
        raise InvariantBrokenError("a slot is free", hint=scenario.replay())

    monkeypatch.setattr(command, "simulate", broken)
    assert command.main(["--seed", "9", "--no-faults"]) == 1
    said = capsys.readouterr().err
    assert "invariant_broken: a slot is free" in said
    assert "replay: python -m swarmesh.sim --workers 1000 --events 100000 --seed 9" in said
    assert "--no-faults --check" in said


def test_the_command_prints_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--workers", "4", "--events", "200", "--models", "1", "--check"]) == 0
    printed = capsys.readouterr().out
    assert "events_per_wall_s" in printed
    assert "queue_ms_p99" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "5", "--workers", "4"], "--models is 5; it must be from 1 to --workers, 4"),
        (["--events", "0"], "--events is 0"),
        (["--load", "0"], "--load is 0.0"),
    ],
)
def test_worlds_that_cannot_be_are_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        command.main(arguments)
    assert refused.value.code == 2
    assert words in capsys.readouterr().err
