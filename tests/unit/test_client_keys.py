"""API keys through both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fake_queen import KEY, FakeQueen, error, running_queen
from swarmesh.client import AsyncSwarmesh, RemoteError, Swarmesh

KEYS = "/v2/swarmesh/keys"
VIEW = {
    "key_id": "key-1",
    "name": "laptop",
    "role": "client",
    "concurrency": 4,
    "tokens_per_minute": 0,
    "created_at": 1_700_000_000.0,
}

Ask = Callable[..., Any]


def blocking(url: str, name: str, *args: Any, **kwargs: Any) -> Any:
    with Swarmesh(url, KEY) as swarm:
        return getattr(swarm, name)(*args, **kwargs)


def awaited(url: str, name: str, *args: Any, **kwargs: Any) -> Any:
    async def run() -> Any:
        async with AsyncSwarmesh(url, KEY) as swarm:
            return await getattr(swarm, name)(*args, **kwargs)

    return asyncio.run(run())


@pytest.fixture
def queen() -> Iterator[FakeQueen]:
    with running_queen() as queen:
        yield queen


@pytest.mark.parametrize("ask", [blocking, awaited])
def test_keys_are_made_listed_and_revoked(queen: FakeQueen, ask: Ask) -> None:
    queen.answers["POST", KEYS] = 201, {**VIEW, "key": "sk-new"}
    made = ask(queen.url, "make_key", "laptop", concurrency=4)
    assert (made.key, made.key_id, made.role) == ("sk-new", "key-1", "client")
    assert queen.seen[0].body == {"name": "laptop", "role": "client", "concurrency": 4, "tokens_per_minute": 0}
    queen.answers["GET", KEYS] = 200, {"keys": [{**VIEW, "waiting": 3}]}
    [view] = ask(queen.url, "keys")
    assert (view.name, view.waiting, view.honeytokens) == ("laptop", 3, 0)
    queen.answers["DELETE", f"{KEYS}/key-1"] = 204, b""
    assert ask(queen.url, "revoke_key", "key-1") is None


@pytest.mark.parametrize("ask", [blocking, awaited])
def test_refusals_keep_their_code(queen: FakeQueen, ask: Ask) -> None:
    queen.answers["DELETE", f"{KEYS}/a%2Fb"] = 404, error("not_found", "no key has that id")
    with pytest.raises(RemoteError) as raised:
        ask(queen.url, "revoke_key", "a/b")
    assert raised.value.code == "not_found"
