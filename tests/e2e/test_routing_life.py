"""Who gets a task in a swarm of unequal rustbees, and how that changes when one dies or another policy is chosen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from swarm_rig import Swarm

CHAT = "/v1/chat/completions"
UNEQUAL = {"tokens=24,tokens_per_s=120,prefill_ms=20": 2, "tokens=24,tokens_per_s=30,prefill_ms=80": 1}
"""Real rustbees with engines that write nothing of worth, at a known pace that no busy machine changes much."""
EQUAL = {"tokens=30,tokens_per_s=20,prefill_ms=20": 3}


class UnequalSwarm(Swarm):
    """A swarm, and which rustbees it was started with, by modelcell and in that order."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.spawned: dict[str, list[str]] = {}


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnequalSwarm]:
    """Three rustbees of the modelcell ``unequal``, the last of them a quarter as fast, and three of ``equal``."""
    made = UnequalSwarm(tmp_path_factory.mktemp("home"))
    made.run("queennode", "start", "--port", "0")
    try:
        with made.http() as client:
            for modelcell, kinds in (("unequal", UNEQUAL), ("equal", EQUAL)):
                for settings, count in kinds.items():
                    for _ in range(count):
                        asked = {
                            "type": "python",
                            "modelcell": modelcell,
                            "class_path": f"fake:{settings}",
                            "slots": 32,
                        }
                        answer = client.post("/v2/swarmesh/rustbees", json=asked)
                        assert answer.is_success, answer.text
                        made.spawned.setdefault(modelcell, []).append(answer.json()["rustbee_id"])
        made.until(lambda: len(of(made)) == 6, timeout_s=30, what="six rustbees are healthy")
        yield made
    finally:
        made.run("down", "--all", check=False)


def of(swarm: Swarm, modelcell: str = "") -> list[dict[str, Any]]:
    """The healthy rustbees of a modelcell, or all."""
    rows = [row for row in swarm.rustbees() if row["status"] == "healthy" and row["engine_pid"]]
    return [row for row in rows if modelcell in ("", row["modelcell"])]


def each_in_turn(swarm: Swarm) -> None:
    """Give every one of the unequal ones a lone task, by which it is measured."""
    use(swarm, "round-robin", "unequal")
    asked = [answer for number in range(3) for answer in ask(swarm, "unequal", [f"alone {number}"], at_once=1)]
    use(swarm, "swarm", "unequal")
    assert len(served(asked)) == 3, served(asked)


def use(swarm: Swarm, policy: str, modelcell: str) -> None:
    with swarm.http() as client:
        changed = client.put("/v2/swarmesh/policies", json={"policy": policy, "modelcell": modelcell})
        assert changed.is_success, changed.text


def ask(swarm: Swarm, modelcell: str, prompts: list[str], *, at_once: int) -> list[httpx.Response]:
    """Whole chats, so many at once; the answers in the order of the prompts."""

    async def all_of_them() -> list[httpx.Response]:
        places = asyncio.Semaphore(at_once)
        headers = {"authorization": f"Bearer {swarm.key}"}
        async with httpx.AsyncClient(base_url=swarm.url, headers=headers, timeout=60) as client:

            async def one(prompt: str) -> httpx.Response:
                body = {"model": modelcell, "messages": [{"role": "user", "content": prompt}]}
                async with places:
                    return await client.post(CHAT, json=body)

            return await asyncio.gather(*map(one, prompts))

    answers = asyncio.run(all_of_them())
    assert all(answer.is_success for answer in answers), [answer.text for answer in answers if answer.is_error][:3]
    return answers


def served(answers: list[httpx.Response]) -> Counter[str]:
    return Counter(answer.headers["x-swarmesh-rustbee"] for answer in answers)


def test_a_slow_rustbee_gets_fewer_tasks_and_all_are_measured(swarm: UnequalSwarm) -> None:
    slow = swarm.spawned["unequal"][-1]
    each_in_turn(swarm)
    counts = served(ask(swarm, "unequal", [f"question {number}" for number in range(70)], at_once=8))
    assert set(counts) == {row["rustbee_id"] for row in of(swarm, "unequal")}
    others = [count for name, count in counts.items() if name != slow]
    assert counts[slow] < min(others) / 2, counts


def test_a_burst_spreads_over_equal_rustbees(swarm: Swarm) -> None:
    counts = served(ask(swarm, "equal", [f"burst {number}" for number in range(64)], at_once=64))
    assert len(counts) == 3, counts
    assert max(counts.values()) <= 30, counts


def test_what_all_prompts_begin_with_does_not_draw_them_to_one(swarm: Swarm) -> None:
    beginning = "You are a bee among bees, and you answer as one. " * 80
    counts = served(ask(swarm, "equal", [f"{beginning} Question {number}?" for number in range(48)], at_once=16))
    assert len(counts) == 3, counts
    assert max(counts.values()) <= 30, counts


def test_a_rustbee_that_was_killed_is_used_again_when_it_is_back(swarm: Swarm) -> None:
    victim = of(swarm, "equal")[0]
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim["engine_pid"], signal.SIGKILL)
    killed_s = time.monotonic()
    name = victim["rustbee_id"]

    def back() -> bool:
        return any(row["rustbee_id"] == name and row["engine_pid"] != victim["engine_pid"] for row in of(swarm))

    swarm.until(back, timeout_s=30, what="its engine is there again")
    back_s = time.monotonic()
    while name not in served(ask(swarm, "equal", [f"after {time.monotonic()}" for _ in range(6)], at_once=6)):
        assert time.monotonic() - back_s < 30, "it is back and gets nothing"
    assert time.monotonic() - killed_s < 60


def test_a_task_is_explained_and_another_policy_decides_otherwise(swarm: Swarm) -> None:
    (answer,) = ask(swarm, "equal", ["why there?"], at_once=1)
    task, where = answer.headers["x-swarmesh-task"], answer.headers["x-swarmesh-rustbee"]
    explained = swarm.json("explain", "task", task)
    assert (explained["policy"], explained["chosen"], explained["considered"]) == ("swarm", where, 3)
    assert {candidate["rustbee_id"] for candidate in explained["candidates"]} <= {
        row["rustbee_id"] for row in of(swarm, "equal")
    }
    assert explained["would_change"]
    assert where in swarm.run("explain", "task", task).stdout

    swarm.run("policy", "use", "round-robin", "--modelcell", "equal")
    try:
        answers = ask(swarm, "equal", [f"in turn {number}" for number in range(6)], at_once=6)
        assert set(served(answers).values()) == {2}, served(answers)
        explained = swarm.json("explain", "task", answers[-1].headers["x-swarmesh-task"])
        assert explained["policy"] == "round-robin"
    finally:
        use(swarm, "swarm", "equal")
