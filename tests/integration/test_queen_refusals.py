"""Every refusal has a name to ask by, and every task of a long run can be explained."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from queen_rig import CHAT, FLOW, Rig, chat, running_queen
from raw_client import Answer
from scripted_worker import ScriptedAgent, ScriptedWorker, holds

NewAgent = Callable[[str], Awaitable[ScriptedAgent]]
NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]

TASK = "/v2/swarmesh/explain/task"
REFUSAL = "/v2/swarmesh/explain/refusal"
TASKS = 1_000
CONNECTIONS = 20


async def why(rig: Rig, answer: Answer) -> dict[str, Any]:
    """What the swarm says of a refusal; that it is the same as the refusal said is asserted on the way."""
    error, task_id = answer.error, answer.headers["x-swarmesh-task"]
    told: dict[str, Any] = await rig.json("GET", f"{REFUSAL}/{task_id}")
    assert (told["task"], told["status"]) == (task_id, answer.status)
    assert (told["code"], told["words"], told["hint"]) == (error["code"], error["message"], error["hint"])
    retry_after = answer.headers.get("retry-after")
    assert told["retry_after_s"] == (int(retry_after) if retry_after else None)
    assert told["would_change"]
    assert told["at"] > 1_600_000_000
    return told


async def test_a_model_that_nobody_knows(rig: Rig) -> None:
    told = await why(rig, await rig.ask("POST", CHAT, chat(model="nobody", max_tokens=7)))
    assert (told["modelcell"], told["priority"], told["max_tokens"]) == ("nobody", "medium", 7)
    assert (told["code"], told["attempts"]) == ("model_not_found", 0)
    assert told["prompt_chars"] > 0
    told = await why(rig, await rig.ask("POST", FLOW, {"prompt": "hi", "modelcell": "nobody"}))
    assert (told["code"], told["prompt_chars"]) == ("model_not_found", None)
    told = await why(rig, await rig.ask("POST", CHAT, chat(model="nobody", stream=True, background=True)))
    assert told["code"] == "model_not_found"


async def test_a_misspelled_name_is_met_with_the_nearest(rig: Rig, new_worker: NewWorker) -> None:
    await rig.adopt(await new_worker())
    for target, body in (
        (CHAT, chat(model="fakee")),
        (CHAT, chat(model="fakee", n=2)),
        (CHAT, chat(model="fakee", stream=True)),
        (CHAT, chat(model="fakee", background=True)),
        (FLOW, {"prompt": "hi", "modelcell": "fakee"}),
    ):
        told = await why(rig, await rig.ask("POST", target, body))
        assert (told["code"], told["hint"]) == ("model_not_found", "Did you mean 'fake'?")
    answer = await rig.ask("PUT", "/v2/swarmesh/policies", {"policy": "swarm", "modelcell": "fakee"})
    assert (answer.status, answer.error["hint"]) == (404, "Did you mean 'fake'?")
    assert rig.is_idle()


async def test_a_nectarflow_that_was_cancelled_while_it_waited(rig: Rig, new_agent: NewAgent) -> None:
    agent = await new_agent("rustbee-1")
    agent.behaviour = holds
    await rig.register(agent, slots=1)
    await rig.start_chat()
    await agent.call()
    job_id = (await rig.json("POST", FLOW, {"prompt": "hi", "modelcell": "fake"}))["job_id"]
    await rig.json("DELETE", f"{FLOW}/{job_id}")
    hint = (await rig.ask("GET", f"{TASK}/{job_id}")).error["hint"]
    assert hint.startswith("No rustbee had got it when it was cancelled, or it is in none of the last 5000 ")
    assert f"'swarmesh nectarflow show {job_id}'" in hint


async def test_what_is_no_request_is_no_task(rig: Rig) -> None:
    for target, body in ((FLOW, {"prompt": "hi", "input": 1}), (CHAT, {"model": 1})):
        answer = await rig.ask("POST", target, body)
        assert (answer.status, "x-swarmesh-task" in answer.headers) == (400, False)


async def test_nobody_serves_it_any_more(impatient_rig: Rig, new_agent: NewAgent, until: Until) -> None:
    rig = impatient_rig
    agent = await new_agent("rustbee-1")
    agent.behaviour = holds
    await rig.register(agent)
    await rig.report("/callback/error", agent, code="engine_failed", message="it is broken")
    await until(lambda: rig.swarm.fleet.get(agent.worker_id).status == "dead")  # type: ignore[arg-type, union-attr]
    told = await why(rig, await rig.ask("POST", CHAT, chat()))
    assert told["code"] in {"no_rustbees_available", "no_stable_rustbees"}
    assert told["would_change"][1] == "rustbee-1 with being alive"
    assert any("swarmesh spawn rustbee --modelcell fake" in each for each in told["would_change"])


async def test_a_full_queue(tmp_path: Path, new_agent: NewAgent, until: Until) -> None:
    async with running_queen(tmp_path / "home", queue_max_per_key=1) as rig:
        agent = await new_agent("rustbee-1")
        agent.behaviour = holds
        await rig.register(agent, slots=1)
        for _ in range(2):
            await rig.start_chat()
        await until(lambda: len(rig.swarm.dispatcher.queue) == 1)
        told = await why(rig, await rig.ask("POST", CHAT, chat(stream=True, priority="low")))
        assert (told["status"], told["code"], told["priority"]) == (429, "queue_full", "low")
        told = await why(rig, await rig.ask("POST", CHAT, chat(n=2)))
        assert told["code"] == "queue_full"
        told = await why(rig, await rig.ask("POST", FLOW, {"prompt": "hi", "modelcell": "fake"}))
        assert (told["code"], told["modelcell"]) == ("queue_full", "fake")
        told = await why(rig, await rig.ask("POST", FLOW, {"prompt": "hi", "modelcell": "fake", "stream": True}))
        assert told["code"] == "queue_full"


async def test_as_many_answers_as_there_may_be(tmp_path: Path, new_agent: NewAgent) -> None:
    async with running_queen(tmp_path / "home", streams_max=1) as rig:
        agent = await new_agent("rustbee-1")
        agent.behaviour = holds
        await rig.register(agent)
        await rig.start_chat()
        await agent.call()
        told = await why(rig, await rig.ask("POST", CHAT, chat()))
        assert (told["code"], told["modelcell"]) == ("too_many_streams", "")


async def test_a_task_that_is_given_up(impatient_rig: Rig, new_agent: NewAgent, until: Until) -> None:
    rig = impatient_rig
    agent = await new_agent("rustbee-1")
    agent.behaviour = holds
    await rig.register(agent)
    client = await rig.start_chat()
    await agent.call()
    await rig.report("/callback/error", agent, code="engine_failed", message="it is broken")
    told = await why(rig, await client.read_answer())
    assert (told["code"], told["attempts"]) == ("rustbee_lost", 1)
    explained = await rig.json("GET", f"{TASK}/{told['task']}")
    assert explained["error"] == f"rustbee_lost: {told['words']}"
    await until(rig.is_idle)


async def test_what_was_not_refused_is_not_found(rig: Rig, new_worker: NewWorker) -> None:
    await rig.adopt(await new_worker())
    taken = await rig.ask("POST", CHAT, chat())
    task_id = taken.headers["x-swarmesh-task"]
    answer = await rig.ask("GET", f"{REFUSAL}/{task_id}")
    assert (answer.status, answer.error["hint"]) == (404, f"'swarmesh explain task {task_id}' says where it went.")
    answer = await rig.ask("GET", f"{REFUSAL}/nobody")
    assert (answer.status, "no refusal" in answer.error["message"]) == (404, True)
    refused = await rig.ask("POST", CHAT, chat(model="nobody"))
    task_id = refused.headers["x-swarmesh-task"]
    answer = await rig.ask("GET", f"{TASK}/{task_id}")
    assert (answer.status, f"swarmesh explain refusal {task_id}" in answer.error["hint"]) == (404, True)


@pytest.mark.parametrize("stream", [False, True])
async def test_every_task_of_a_long_run_is_explained(rig: Rig, new_worker: NewWorker, *, stream: bool) -> None:
    for slots in (2, 4):
        await rig.adopt(await new_worker(), slots=slots)
    numbers = iter(range(TASKS))
    names: list[str] = []

    async def client() -> None:
        connection = await rig.connect()
        for number in numbers:
            connection.send(rig.chat_bytes(stream=stream, max_tokens=1 + number))
            answer = await connection.read_answer()
            assert answer.status == 200
            names.append(answer.headers["x-swarmesh-task"])

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    assert len(set(names)) == TASKS
    wanted = iter(names)

    async def asker() -> None:
        connection = await rig.connect()
        for name in wanted:
            answer = await connection.ask("GET", f"{TASK}/{name}", headers=rig.auth)
            told = answer.json()
            assert (answer.status, told["task"], told["modelcell"]) == (200, name, "fake")
            assert told["attempts"][-1]["outcome"] == "ended"
            assert told["chosen"] in {candidate["rustbee_id"] for candidate in told["candidates"]}
            assert told["words"]
            assert told["would_change"]

    await asyncio.gather(*(asker() for _ in range(CONNECTIONS)))
