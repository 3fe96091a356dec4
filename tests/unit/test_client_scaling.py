"""How many rustbees a modelcell may have, said through both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fake_queen import KEY, running_queen
from swarmesh.client import AsyncSwarmesh, Swarmesh
from swarmesh.core.errors import InvalidValueError

PATH = "/v2/swarmesh/swarmscale"
STATUS = {"paused": True, "all": None, "modelcells": []}
Ask = Callable[..., Any]


def blocking(url: str, name: str, *args: Any, **kwargs: Any) -> Any:
    with Swarmesh(url=url, key=KEY) as swarm:
        return getattr(swarm, name)(*args, **kwargs)


def asynchronous(url: str, name: str, *args: Any, **kwargs: Any) -> Any:
    async def run() -> Any:
        async with AsyncSwarmesh(url=url, key=KEY) as swarm:
            return await getattr(swarm, name)(*args, **kwargs)

    return asyncio.run(run())


@pytest.mark.parametrize("ask", [blocking, asynchronous])
@pytest.mark.parametrize(
    ("call", "method", "path", "body"),
    [
        (("swarmscale", [], {}), "GET", PATH, None),
        (("scale", ["demo"], {"min": 1, "max": 2, "slots": 4}), "PUT", f"{PATH}/demo", (1, 2, {"slots": 4})),
        (("scale", [], {"max": 2}), "PUT", PATH, (None, 2, None)),
        (("scale", ["a/b"], {"type": "cpu"}), "PUT", f"{PATH}/a%2Fb", (None, None, {"type": "cpu"})),
        (("unscale", ["demo"], {}), "DELETE", f"{PATH}/demo", None),
        (("unscale", [], {}), "DELETE", PATH, None),
        (("pause_scaling", ["demo"], {}), "POST", f"{PATH}/pause", "demo"),
        (("resume_scaling", [], {}), "POST", f"{PATH}/resume", ""),
    ],
)
def test_what_is_asked(ask: Ask, call: tuple[str, Any, Any], method: str, path: str, body: Any) -> None:
    name, args, kwargs = call
    with running_queen() as queen:
        queen.answers[method, path] = (200, STATUS)
        assert ask(queen.url, name, *args, **kwargs).paused
        (seen,) = queen.requests(method, path)
    if isinstance(body, tuple):
        said = {key: value for key, value in zip(("min", "max", "rustbee"), body, strict=True) if value is not None}
        assert seen.body == said
    elif body is not None:
        assert seen.body == {"modelcell": body}


@pytest.mark.parametrize("ask", [blocking, asynchronous])
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("swarmscale_of", "modelcell"),
        ("explain_scale", "modelcell"),
        ("explain_placement", "modelcell"),
        ("explain_task", "task_id"),
        ("explain_refusal", "task_id"),
        ("show", "job_id"),
        ("rustbee", "rustbee_id"),
        ("host", "name"),
    ],
)
def test_an_empty_name_is_refused_before_anybody_is_asked(ask: Ask, name: str, field: str) -> None:
    with running_queen() as queen:
        with pytest.raises(InvalidValueError, match=f"^{field} is empty$") as raised:
            ask(queen.url, name, "")
        assert (raised.value.param, bool(raised.value.hint)) == (field, True)
        assert queen.seen == []
