"""The policy script through both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fake_queen import KEY, FakeQueen, error, running_queen
from swarmesh.client import AsyncSwarmesh, RemoteError, Swarmesh

SCRIPT = "/v2/swarmesh/policies/script"
Ask = Callable[..., Any]


def blocking(url: str, method: str, /, *args: Any, **kwargs: Any) -> Any:
    with Swarmesh(url, KEY) as swarm:
        return getattr(swarm, method)(*args, **kwargs)


def awaited(url: str, method: str, /, *args: Any, **kwargs: Any) -> Any:
    async def run() -> Any:
        async with AsyncSwarmesh(url, KEY) as swarm:
            return await getattr(swarm, method)(*args, **kwargs)

    return asyncio.run(run())


@pytest.fixture
def queen() -> Iterator[FakeQueen]:
    with running_queen() as queen:
        yield queen


@pytest.mark.parametrize("ask", [blocking, awaited])
def test_a_script_comes_and_goes(queen: FakeQueen, ask: Ask) -> None:
    queen.answers["PUT", SCRIPT] = 200, {"state": "active", "name": "x.star", "hooks": ["admit"]}
    view = ask(queen.url, "activate_script", "source", name="x.star", path="/x.star")
    assert (view.state, view.name, view.hooks) == ("active", "x.star", ("admit",))
    assert queen.seen[-1].body == {"name": "x.star", "source": "source", "path": "/x.star"}
    queen.answers["GET", SCRIPT] = 200, {"state": "off", "errors": [{"at": 1.0, "message": "no"}]}
    view = ask(queen.url, "policy_script")
    assert (view.state, view.errors[0].message) == ("off", "no")
    queen.answers["POST", f"{SCRIPT}/replay"] = 200, {"decisions": 3, "asked": 2, "changed": 1, "failed": 0}
    assert ask(queen.url, "replay_script", "source", hours=1).changed == 1
    assert queen.seen[-1].body == {"name": "script", "source": "source", "hours": 1}
    queen.answers["DELETE", SCRIPT] = 204, b""
    assert ask(queen.url, "deactivate_script") is None


@pytest.mark.parametrize("ask", [blocking, awaited])
def test_mistakes_keep_their_code(queen: FakeQueen, ask: Ask) -> None:
    queen.answers["PUT", SCRIPT] = 400, error("policy_script_invalid", "x.star:1:1: no")
    with pytest.raises(RemoteError) as raised:
        ask(queen.url, "activate_script", "source")
    assert raised.value.code == "policy_script_invalid"
