"""Names that are no names, in the paths of routes: each is met with an error that says so, by HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from served_api import ServedApi, serving_api
from swarmesh.core.errors import ModelNotFoundError, NotFoundError
from swarmesh.core.swarm import Swarm
from swarmesh.queen.api.explain import explain_routes
from swarmesh.queen.api.openapi import document
from swarmesh.queen.api.swarmscale import scale_routes
from swarmesh.queen.driver import Driver
from swarmesh.queen.explain import NAME_CHARS_MAX, Explainer
from swarmesh.queen.links import Links

EXPLAIN = "/v2/swarmesh/explain"
SCALE = "/v2/swarmesh/swarmscale"
ODD = [("a%2Fb", "a/b"), ("a/b", "a/b"), ("x%0Ay", "x\ny"), ("x%0A", "x\n"), ("%2E%2E", "..")]


class Scaling:
    """Knows no modelcell, and what it was asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def status(self) -> Any:
        self.asked.append("all of them")
        return {}

    def view(self, name: str) -> Any:
        return self._unknown(name)

    def explain_scale(self, name: str) -> Any:
        return self._unknown(name)

    async def explain_placement(self, name: str, *, live: bool) -> Any:
        assert live
        return self._unknown(name)

    async def set(self, name: str, _change: object) -> Any:
        return self._unknown(name)

    async def unset(self, name: str) -> Any:
        return self._unknown(name)

    def _unknown(self, name: str) -> Any:
        self.asked.append(name)
        raise ModelNotFoundError(f"no modelcell is called {name!r}")


@pytest.fixture
def scaling() -> Scaling:
    return Scaling()


@pytest.fixture
def explainer() -> Explainer:
    return Explainer(Driver(Swarm(), Links()))


@pytest.fixture
async def api(scaling: Scaling, explainer: Explainer) -> AsyncIterator[ServedApi]:
    async with serving_api([*explain_routes(explainer), *scale_routes(scaling)]) as served:  # type: ignore[arg-type]
        yield served
        assert served.errors == []


@pytest.mark.parametrize("name", ["", "%20"])
@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("GET", f"{EXPLAIN}/task/", "task_id"),
        ("GET", f"{EXPLAIN}/refusal/", "task_id"),
        ("GET", f"{EXPLAIN}/placement/", "modelcell"),
        ("GET", f"{EXPLAIN}/scale/", "modelcell"),
        ("GET", f"{SCALE}/", "modelcell"),
        ("PUT", f"{SCALE}/", "modelcell"),
        ("DELETE", f"{SCALE}/", "modelcell"),
    ],
)
async def test_an_empty_name_is_told_as_such_and_means_nothing_else(
    api: ServedApi, scaling: Scaling, method: str, path: str, field: str, name: str
) -> None:
    status, answer = await api.ask(method, path + name, {"max": 1} if method == "PUT" else None)
    error = answer["error"]
    assert (status, error["code"], error["param"]) == (400, "invalid_value", field)
    assert error["message"].startswith(f"{field} is empty: the path ends after ")
    assert error["hint"]
    assert scaling.asked == []


@pytest.mark.parametrize(("typed", "name"), ODD)
@pytest.mark.parametrize("what", ["task", "refusal", "placement", "scale"])
async def test_an_odd_name_is_unknown_like_any_other(api: ServedApi, what: str, typed: str, name: str) -> None:
    status, answer = await api.ask("GET", f"{EXPLAIN}/{what}/{typed}")
    error = answer["error"]
    assert (status, error["code"]) == (404, "not_found" if what in {"task", "refusal"} else "model_not_found")
    assert repr(name) in error["message"]
    assert "\n" not in error["message"] + error["hint"]


def task(explainer: Explainer, name: str) -> object:
    return explainer.task(name)


def refusal(explainer: Explainer, name: str) -> object:
    return explainer.refusal(name)


@pytest.mark.parametrize("explain", [task, refusal])
@pytest.mark.parametrize("name", ["x\ny", "x\x1b[31m", "a b", "'; ls", "x" * 5_000])
def test_what_was_typed_is_never_a_command_to_type(
    explainer: Explainer, explain: Callable[[Explainer, str], object], name: str
) -> None:
    with pytest.raises(NotFoundError) as raised:
        explain(explainer, name)
    assert name not in raised.value.hint
    assert raised.value.message.isprintable()
    assert len(raised.value.message) < NAME_CHARS_MAX + 100


def test_a_plain_name_is(explainer: Explainer) -> None:
    with pytest.raises(NotFoundError) as raised:
        explainer.task("flow-1a2b")
    assert "'swarmesh nectarflow show flow-1a2b'" in raised.value.hint


def test_the_document_has_no_word_for_kinds_of_names(explainer: Explainer, scaling: Scaling) -> None:
    paths = document([*explain_routes(explainer), *scale_routes(scaling)])["paths"]  # type: ignore[arg-type]
    assert f"{EXPLAIN}/task/{{task_id}}" in paths
    (parameter,) = paths[f"{EXPLAIN}/scale/{{modelcell}}"]["get"]["parameters"]
    assert parameter["name"] == "modelcell"
