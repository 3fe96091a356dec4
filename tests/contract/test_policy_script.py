"""What a policy script answers, and how it fails: the same of Starlark in its own process and of Python functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from swarmesh.core.script import Facts, Hook, Script, ScriptFailedError
from swarmesh.policy.python_script import PythonScript
from swarmesh.policy.samples import samples
from swarmesh.policy.script import SandboxedScript

ARGUMENTS = {
    Hook.ADMIT: "task",
    Hook.SCORE: "task, workers",
    Hook.PLACE: "model, hosts",
    Hook.SCALE: "model, stats",
}
FREE = {"inf": float("inf"), "nan": float("nan")}
"""What the Python side of a body may name that Starlark says otherwise."""


class Struct:
    """Facts as Starlark gives them."""

    def __init__(self, facts: Facts) -> None:
        self.__dict__.update(facts)


Make = Callable[[str, Hook], Script]


def starlark(body: str, hook: Hook) -> Script:
    body = body.replace("inf", 'float("inf")').replace("nan", 'float("nan")')
    # On a machine with much to do an answer may be late, which is looked at elsewhere.
    return SandboxedScript.open("x.star", f"def {hook}({ARGUMENTS[hook]}):\n    return {body}\n", answer_s=10.0)


def python(body: str, hook: Hook) -> Script:
    inner = eval(f"lambda {ARGUMENTS[hook]}: {body}", dict(FREE))  # noqa: S307 - bodies stand in this file

    def function(*arguments: Any) -> Any:
        return inner(
            *([Struct(each) for each in some] if isinstance(some, list) else Struct(some) for some in arguments)
        )

    return PythonScript("x.star", {hook: function})


@pytest.fixture(params=[starlark, python])
def script(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[Script] = []

    def make(body: str, hook: Hook) -> Script:
        made.append(request.param(body, hook))
        return made[-1]

    yield make
    for each in made:
        if isinstance(each, SandboxedScript):
            each.close()


def ask(script: Script, hook: Hook) -> Any:
    first = samples(hook)[0].arguments
    arguments = [list(each) if isinstance(each, tuple) else each for each in first]
    return getattr(script, hook)(*arguments)


@pytest.mark.parametrize(
    ("hook", "body", "answer"),
    [
        (Hook.ADMIT, "None", None),
        (Hook.ADMIT, '"not " + task.priority', "not high"),
        (Hook.SCORE, "[1, 2.5, None]", [1, 2.5, None]),
        (Hook.SCORE, "[-worker.rank for worker in workers]", [0, -1, -2]),
        (Hook.SCORE, "[worker.slots_free for worker in workers]", [1, 1, 1]),
        (Hook.PLACE, "(None, 0, 1 if model.workers else 2)", [None, 0, 1]),
        (Hook.SCALE, "None", None),
        (Hook.SCALE, "stats.target + 1", 3),
        (Hook.SCALE, "0", 0),
    ],
)
def test_an_answer(script: Make, hook: Hook, body: str, answer: Any) -> None:
    made = script(body, hook)
    assert made.hooks == {hook}
    given = ask(made, hook)
    assert (list(given) if isinstance(given, tuple) else given) == answer


WORKERS = "it has to return a list with one number or None for each worker"


@pytest.mark.parametrize(
    ("hook", "body", "why"),
    [
        (Hook.ADMIT, "1", "admit returned an int; it has to return None to let the task in, or a string"),
        (Hook.ADMIT, "True", "admit returned a bool"),
        (Hook.ADMIT, '""', "admit returned a string of 0 characters (1 to 500 are allowed)"),
        (Hook.ADMIT, '"x" * 501', "admit returned a string of 501 characters"),
        (Hook.SCORE, "None", f"score returned None; {WORKERS}"),
        (Hook.SCORE, "{}", f"score returned a dict; {WORKERS}"),
        (Hook.SCORE, "[1, 2]", f"score returned a list of 2 for 3 workers; {WORKERS}"),
        (Hook.SCORE, '[1, "a", 3]', "score returned a string as item 1 of its list (the first is 0)"),
        (Hook.SCORE, "[1, 2, True]", "score returned a bool as item 2 of its list"),
        (Hook.SCORE, "[nan, 2, 3]", "score returned nan as item 0"),
        (Hook.SCORE, "[1, inf, 3]", "score returned inf as item 1"),
        (Hook.SCORE, "[1, 2, -inf]", "score returned -inf as item 2"),
        (Hook.SCORE, "[1 << 60, 2, 3]", "score returned 1152921504606846976 as item 0"),
        (Hook.SCORE, "[1 << 5000, 2, 3]", "score returned a number of more than 64 bits as item 0"),
        (Hook.PLACE, "[1]", "place returned a list of 1 for 3 hosts; it has to return a list with one number or None"),
        (Hook.SCALE, "1.5", "scale returned a float; it has to return a whole number from 0 to 10000, or None"),
        (Hook.SCALE, "True", "scale returned a bool"),
        (Hook.SCALE, "-1", "scale returned -1"),
        (Hook.SCALE, "10001", "scale returned 10001"),
        (Hook.SCALE, "1 << 5000", "scale returned a number of more than 64 bits"),
    ],
)
def test_an_answer_that_is_none(script: Make, hook: Hook, body: str, why: str) -> None:
    made = script(body, hook)
    with pytest.raises(ScriptFailedError) as raised:
        ask(made, hook)
    assert why in raised.value.message
    assert raised.value.message.startswith("x.star")


@pytest.mark.parametrize("body", ["[1 / 0, 2, 3]", "[1, 2, workers[9].rank]", "task.priority + 1", "len(3)"])
def test_an_error_of_the_script_is_no_answer_and_the_next_question_is_asked(script: Make, body: str) -> None:
    made = script(f"[1, 2, 3] if task.priority != 'high' else {body}", Hook.SCORE)
    with pytest.raises(ScriptFailedError):
        ask(made, Hook.SCORE)
    medium = samples(Hook.SCORE)[1].arguments
    assert list(made.score(medium[0], list(medium[1]))) == [1, 2, 3]  # type: ignore[arg-type]


def test_no_candidates_need_no_scores(script: Make) -> None:
    made = script("[1 for _ in workers]", Hook.SCORE)
    task = samples(Hook.SCORE)[0].arguments[0]
    assert list(made.score(task, [])) == []  # type: ignore[arg-type]
