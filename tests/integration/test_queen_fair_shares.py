"""Several API keys on one swarm: equal shares, limits, and keys that come and go while the queen runs."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fair_shares import jain
from queen_rig import CHAT, FLOW, Rig, chat, running_queen
from raw_client import Answer, ask_once
from scripted_worker import Call, ScriptedAgent, completion, done, holds, token

KEYS = "/v2/swarmesh/keys"
GREEDY, MODEST = "greedy", ("ada", "bob", "eve")
ASKED = {GREEDY: 64, **dict.fromkeys(MODEST, 8)}
TOKENS = {GREEDY: 90, "ada": 60, "bob": 75, "eve": 110}
"""What the engine writes for each, of which nobody told the queen."""

NewAgent = Callable[[str], Awaitable[ScriptedAgent]]
Until = Callable[..., Awaitable[Any]]


async def make_key(rig: Rig, name: str, **more: Any) -> dict[str, str]:
    """The header of a new key."""
    made = await rig.json("POST", KEYS, {"name": name, **more})
    return {"authorization": f"Bearer {made['key']}"}


async def ask(rig: Rig, auth: dict[str, str], said: str = "hi", **more: Any) -> Answer:
    body = chat(messages=[{"role": "user", "content": said}], **more)
    return await ask_once(rig.url, "POST", CHAT, body, auth)


def who(call: Call) -> str:
    return str(call.body["messages"][0]["content"])


def answer(call: Call, tokens: int) -> None:
    call.json(
        200, {**completion(), "usage": {"prompt_tokens": 4, "completion_tokens": tokens, "total_tokens": 4 + tokens}}
    )


async def one_worker(rig: Rig, new_agent: NewAgent, slots: int = 2) -> ScriptedAgent:
    agent = await new_agent("rustbee-1")
    agent.behaviour = holds
    await rig.register(agent, slots=slots)
    return agent


async def usage(rig: Rig) -> dict[str, dict[str, Any]]:
    return {view["name"]: view for view in (await rig.json("GET", KEYS))["keys"]}


async def test_a_greedy_key_gets_no_more_than_three_modest_ones(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    agent = await one_worker(rig, new_agent)
    asked: list[asyncio.Task[Answer]] = []
    for name, count in ASKED.items():  # The greedy one is there first, with all it has.
        auth = await make_key(rig, name)
        asked += [asyncio.create_task(ask(rig, auth, name)) for _ in range(count)]
        known = len(asked)
        await until(lambda known=known: rig.relayed == known)
    served: Counter[str] = Counter()
    shares: list[int] = []
    for number in range(len(asked)):
        call = await agent.call(number)
        started = Counter(who(call) for call in agent.calls)
        if not shares and any(started[name] == ASKED[name] for name in ASKED):
            shares = [served[name] for name in ASKED]  # From here on not all of them wait.
        answer(call, TOKENS[who(call)])
        served[who(call)] += TOKENS[who(call)]
    assert {(await one).status for one in asked} == {200}
    index = jain(shares)
    print(f"tokens served while all four waited: {dict(zip(ASKED, shares, strict=True))}, Jain index {index:.4f}")
    assert index >= 0.95
    views = await usage(rig)
    assert {name: views[name]["honeytokens"] for name in ASKED} == {
        name: ASKED[name] * (TOKENS[name] + 4) for name in ASKED
    }
    assert [(views[name]["running"], views[name]["waiting"]) for name in ASKED] == [(0, 0)] * 4
    await until(rig.is_idle)


async def test_a_key_over_its_concurrency_is_told_when_to_come_again(
    rig: Rig, new_agent: NewAgent, until: Until
) -> None:
    agent = await one_worker(rig, new_agent, slots=4)
    auth = await make_key(rig, "laptop", concurrency=2)
    running = []
    for number in range(2):
        running.append(asyncio.create_task(ask(rig, auth)))
        await agent.call(number)
    refused = await ask(rig, auth)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("key_concurrency", "rate_limit_error")
    assert error["message"] == "2 tasks of this key are under way, and it may have 2 at once"
    assert (await usage(rig))["laptop"]["running"] == 2
    other = asyncio.create_task(ask(rig, rig.auth))
    answer(await agent.call(2), 1)
    assert (await other).status == 200, "nobody else is kept out"
    answer(agent.calls[0], 1)
    assert (await running[0]).status == 200
    again = asyncio.create_task(ask(rig, auth))
    for number in (1, 3):
        answer(await agent.call(number), 1)
    assert [(await one).status for one in (running[1], again)] == [200, 200]
    await until(rig.is_idle)


async def test_a_key_over_its_tokens_is_told_when_to_come_again(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    agent = await one_worker(rig, new_agent, slots=4)
    auth = await make_key(rig, "laptop", tokens_per_minute=300)
    first = asyncio.create_task(ask(rig, auth, max_tokens=200))
    answer(await agent.call(0), 250)
    assert (await first).status == 200
    refused = await ask(rig, auth, max_tokens=200)
    error = refused.json()["error"]
    assert (refused.status, error["code"]) == (429, "key_tokens")
    said = re.fullmatch(
        r"this key may use 300 tokens per minute and has (\d+) left, and this task may take (\d+)", error["message"]
    )
    assert said is not None, error
    left, expected = map(int, said.groups())
    assert 300 - 254 <= left < expected, "it gets five more each second"
    assert int(refused.headers["retry-after"]) == pytest.approx((expected - left) / 5, abs=1)
    await until(rig.is_idle)


async def test_nectarflows_over_the_limit_wait_and_block_nobody(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    agent = await one_worker(rig, new_agent, slots=4)
    auth = await make_key(rig, "batch", concurrency=1)
    for _ in range(3):
        accepted = await ask_once(rig.url, "POST", FLOW, {"prompt": "hi", "modelcell": "fake"}, auth)
        assert accepted.status == 202
    await agent.call(0)
    view = (await usage(rig))["batch"]
    assert (view["running"], view["waiting"]) == (1, 2)
    await rig.json("POST", FLOW, {"prompt": "hi", "modelcell": "fake"})
    await agent.call(1)
    refused = await ask(rig, auth)
    assert refused.json()["error"]["code"] == "key_concurrency", "its place is taken, whoever took it"
    for number in (0, 2, 3):
        call = await agent.call(number)
        assert (await usage(rig))["batch"]["running"] == 1
        call.last(token(1, "x", 7), done(2, str(number), 1, 1))
    (await agent.call(1)).last(token(1, "x", 7), done(2, "1", 1, 1))
    await until(rig.is_idle)


async def test_a_revoked_key_is_nobodys_at_once(rig: Rig) -> None:
    auth = await make_key(rig, "laptop")
    assert (await ask_once(rig.url, "GET", "/v2/swarmesh/health", None, auth)).status == 200
    assert (await ask_once(rig.url, "GET", KEYS, None, auth)).status == 403
    key_id = (await usage(rig))["laptop"]["key_id"]
    assert (await rig.ask("DELETE", f"{KEYS}/{key_id}")).status == 204
    assert (await ask_once(rig.url, "GET", "/v2/swarmesh/health", None, auth)).status == 401
    assert (await rig.ask("DELETE", f"{KEYS}/admin")).status == 409


async def test_keys_and_their_limits_outlive_the_queen(tmp_path: Path, new_agent: NewAgent, until: Until) -> None:
    async with running_queen(tmp_path / "home") as rig:
        auth = await make_key(rig, "laptop", concurrency=1)
    async with running_queen(tmp_path / "home") as rig:
        agent = await one_worker(rig, new_agent, slots=4)
        runs = asyncio.create_task(ask(rig, auth))
        call = await agent.call(0)
        assert (await ask(rig, auth)).status == 429
        answer(call, 1)
        assert (await runs).status == 200
        await until(rig.is_idle)
