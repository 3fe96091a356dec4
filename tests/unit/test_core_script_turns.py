"""Of many models some are asked about at each tick, all in turn; who only looks asks nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from scale_bed import ScaleBed
from swarmesh.core.ids import ModelName
from swarmesh.core.script import Facts, Hook
from swarmesh.core.script_turns import ASKED_MAX, ScaleTurns

MODELS = [ModelName(f"m{number}") for number in range(3 * ASKED_MAX - 1)]


class Counting:
    """A script that wants one rustbee of each, and remembers what it was asked about."""

    name = "counting.star"
    hooks = frozenset({Hook.SCALE})

    def __init__(self) -> None:
        self.asked: list[str] = []

    def admit(self, _task: Facts) -> str | None:
        return None

    def score(self, _task: Facts, workers: Sequence[Facts]) -> Sequence[float | None]:
        return [0.0] * len(workers)

    def place(self, _model: Facts, hosts: Sequence[Facts]) -> Sequence[float | None]:
        return [0.0] * len(hosts)

    def scale(self, model: Facts, _stats: Facts) -> int | None:
        self.asked.append(str(model["name"]))
        return 0


def asked_in_a_round(turns: ScaleTurns, models: Sequence[ModelName]) -> list[ModelName]:
    turns.begin(models)
    due = []
    for model in models:
        if turns.is_due(model):
            turns.answered(model, 1)
            due.append(model)
    turns.end()
    return due


def test_few_models_are_asked_about_in_each_round() -> None:
    turns = ScaleTurns()
    for _ in range(3):
        assert asked_in_a_round(turns, MODELS[:ASKED_MAX]) == MODELS[:ASKED_MAX]


def test_many_models_take_turns_and_none_is_left_out() -> None:
    turns, counted = ScaleTurns(), Counter[ModelName]()
    for number in range(9):
        models = MODELS[number:] + MODELS[:number]  # Who comes first is another one each time.
        due = asked_in_a_round(turns, models)
        assert len(due) <= ASKED_MAX
        counted.update(due)
    assert set(counted) == set(MODELS)
    assert max(counted.values()) <= 3


def test_the_last_answer_holds_until_the_model_is_gone() -> None:
    turns = ScaleTurns()
    assert turns.last(MODELS[0]) is None
    turns.answered(MODELS[0], 2)
    asked_in_a_round(turns, MODELS[1:])
    assert turns.last(MODELS[0]) is None
    turns.answered(MODELS[0], 3)
    assert (turns.last(MODELS[0]), turns.is_due(MODELS[0])) == (3, True), "outside a round everybody may ask"


def test_a_tick_asks_about_so_many_models_at_most() -> None:
    bed, script = ScaleBed("elm").settle(), Counting()
    for model in MODELS:
        bed.scale(model, 0, 3)
    bed.swarm.set_script(script)
    bed.run(1_000)
    assert 0 < len(script.asked) <= 2 * ASKED_MAX
    bed.run(10_000)
    assert set(script.asked) == set(MODELS)


def test_looking_at_a_model_asks_nothing_and_shows_what_the_script_said() -> None:
    bed, script = ScaleBed("elm").settle(), Counting()
    bed.scale("a", 0, 3)
    bed.submit("a")
    bed.run_until(lambda: bed.serving("a"))
    bed.swarm.set_script(script)
    bed.run(5_000)
    asked = len(script.asked)
    assert asked
    for _ in range(5):
        assert (bed.state().target, bed.state().last.rule if bed.state().last else "") == (0, "script")
    assert len(script.asked) == asked
