"""Urgent tasks take the slots of low ones; a low one's client sees one whole stream all the same."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from queen_rig import FLOW, TOKENS, Rig
from scripted_worker import (
    Call,
    ScriptedAgent,
    ScriptedWorker,
    answers_at_once,
    chat_chunk,
    completion,
    done,
    end_mark,
    holds,
    token,
    usage_chunk,
)
from swarmesh.wire.sse import DONE_MARK, SseReader

NewAgent = Callable[[str], Awaitable[ScriptedAgent]]
NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]


async def one_slot(rig: Rig, new_agent: NewAgent) -> ScriptedAgent:
    agent = await new_agent("rustbee-1")
    agent.behaviour = holds
    await rig.register(agent, slots=1)
    return agent


async def test_a_low_stream_gives_way_and_goes_on(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    agent = await one_slot(rig, new_agent)
    low = await rig.start_chat(stream=True, priority="low")
    first = await agent.call(0)
    first.events(chat_chunk(1, "one", 11, first=True))
    await low.read_head()
    read = await low.read_chunk()
    high = await rig.start_chat(priority="high")
    await first.wait_gone()
    (await agent.call(1)).json(200, completion())
    assert (await high.read_answer()).status == 200
    again = await agent.call(2)
    assert again.resume is not None
    assert (again.resume["last_seq"], again.resume["token_ids"]) == (1, [11])
    assert again.headers["x-swarmesh-attempt"] == "2"
    again.last(chat_chunk(2, " two", 12), chat_chunk(3, "", finish="stop"), end_mark(4))
    while part := await low.read_chunk():
        read += part
    events = SseReader().feed(read)
    assert [event.seq for event in events] == [1, 2, 3, 4]
    assert events[-1].data == DONE_MARK
    assert (await rig.rustbee("rustbee-1"))["status"] == "healthy", "it is not its fault"
    await until(rig.is_idle)


async def test_while_it_is_connecting(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    agent = await one_slot(rig, new_agent)
    low = await rig.start_chat(stream=True, priority="low")
    high = await rig.start_chat(priority="high")

    def by_kind(call: Call) -> None:
        if call.body.get("stream"):
            call.last(chat_chunk(1, "", first=True, finish="stop"), end_mark(2))
        else:
            call.json(200, completion())

    for call in agent.calls:
        by_kind(call)
    agent.behaviour = by_kind
    assert (await high.read_answer()).status == 200
    assert (await low.read_answer()).body.endswith(b"data: [DONE]\n\n")
    await until(rig.is_idle)


async def test_a_low_answer_that_is_wanted_whole_keeps_what_was_said(
    rig: Rig, new_agent: NewAgent, until: Until
) -> None:
    agent = await one_slot(rig, new_agent)
    low = await rig.start_chat(priority="low")
    first = await agent.call(0)
    assert first.body["stream"] is True
    first.events(chat_chunk(1, "one", 11, first=True))
    answers = rig.queen._driver._runners.values()
    await until(lambda: any(answer._journal.read() for answer in answers))  # type: ignore[attr-defined]
    high = await rig.start_chat(priority="high")
    (await agent.call(1)).json(200, completion())
    assert (await high.read_answer()).status == 200
    again = await agent.call(2)
    assert again.resume is not None
    assert again.resume["text"] == "one"
    again.last(chat_chunk(2, " two", 12), chat_chunk(3, "", finish="stop"), usage_chunk(4, 3, 2), end_mark(5))
    answer = await low.read_answer()
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["choices"][0]["message"] == {"role": "assistant", "content": "one two"}
    assert answer.json()["usage"]["completion_tokens"] == 2
    await until(rig.is_idle)


async def test_a_low_nectarflow_gives_way_and_goes_on(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    agent = await one_slot(rig, new_agent)
    job_id = (await rig.json("POST", FLOW, {"prompt": "hi", "priority": "low"}))["job_id"]
    first = await agent.call(0)
    first.events(token(1, "one", 11))
    await until(lambda: rig.queen._flows._flows[job_id].rows)
    high = await rig.start_chat(priority="high")
    call = await agent.call(1)
    await first.wait_gone()
    await until(lambda: agent.deleted == [(job_id, "1")], "its agent would go on alone")
    assert (await rig.json("GET", f"{FLOW}/{job_id}"))["status"] == "preempted"
    call.json(200, completion())
    assert (await high.read_answer()).status == 200
    again = await agent.call(2)
    assert (again.path, again.resume) == ("/execute", {"last_seq": 1, "text": "one", "token_ids": [11]})
    again.last(token(2, " two", 12), done(3, job_id, 3, 2))
    await until(rig.is_idle)
    assert (await rig.json("GET", f"{TOKENS}/{job_id}"))["text"] == "one two"
    assert (await rig.json("GET", f"{FLOW}/{job_id}"))["attempts"] == 2


async def test_not_more_than_three_times(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    agent = await one_slot(rig, new_agent)
    low = await rig.start_chat(stream=True, priority="low")
    call = await agent.call(0)
    for number in range(3):
        high = await rig.start_chat(priority="high")
        await call.wait_gone()
        (await agent.call(2 * number + 1)).json(200, completion())
        assert (await high.read_answer()).status == 200
        call = await agent.call(2 * number + 2)
    high = await rig.start_chat(priority="high")
    await until(lambda: len(rig.swarm.dispatcher.queue) == 1)
    call.last(chat_chunk(1, "", first=True, finish="stop"), end_mark(2))
    assert (await low.read_answer()).headers["x-swarmesh-attempts"] == "4"
    (await agent.call(7)).json(200, completion())
    assert (await high.read_answer()).status == 200
    await until(rig.is_idle)


@pytest.mark.parametrize("priority", ["medium", "high"])
async def test_only_low_ones_give_way(rig: Rig, new_agent: NewAgent, until: Until, priority: str) -> None:
    agent = await one_slot(rig, new_agent)
    running = await rig.start_chat(stream=True, priority=priority)
    call = await agent.call(0)
    high = await rig.start_chat(priority="high")
    await until(lambda: len(rig.swarm.dispatcher.queue) == 1)
    call.last(chat_chunk(1, "", first=True, finish="stop"), end_mark(2))
    assert (await running.read_answer()).headers["x-swarmesh-attempts"] == "1"
    (await agent.call(1)).json(200, completion())
    assert (await high.read_answer()).status == 200
    await until(rig.is_idle)


async def test_an_adopted_server_has_to_say_it_again(rig: Rig, new_worker: NewWorker, until: Until) -> None:
    worker = await new_worker()
    worker.behaviour = holds
    await rig.adopt(worker, slots=1)
    low = await rig.start_chat(stream=True, priority="low", seed=7)
    first = await worker.call(0)
    first.tokens("one")
    await low.read_head()
    read = await low.read_chunk()
    high = await rig.start_chat(priority="high")
    answers_at_once(await worker.call(1))
    assert (await high.read_answer()).status == 200
    again = await worker.call(2)
    assert again.body["seed"] == 7
    again.tokens("one", " two")
    again.end()
    while part := await low.read_chunk():
        read += part
    texts = [
        json.loads(e.data)["choices"][0]["delta"]["content"] for e in SseReader().feed(read) if e.data != DONE_MARK
    ]
    assert "".join(texts) == "one two"
    await until(rig.is_idle)
