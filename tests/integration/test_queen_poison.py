"""Tasks that crash engines are given up and kept out; what somebody else did to an engine is not held against them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from queen_rig import CHAT, FLOW, Rig, chat
from scripted_worker import (
    Call,
    ScriptedAgent,
    answers_at_once,
    chat_chunk,
    chunk,
    completion,
    end_mark,
    holds,
    numbered,
    token,
)
from swarmesh.wire.sse import SseReader

NewAgent = Callable[[str], Awaitable[ScriptedAgent]]
Until = Callable[..., Awaitable[Any]]


async def agents(rig: Rig, new_agent: NewAgent, count: int = 3) -> list[ScriptedAgent]:
    made = [await new_agent(f"rustbee-{number}") for number in range(1, count + 1)]
    for agent in made:
        agent.behaviour = holds
        await rig.register(agent, engine_pid=100)
    return made


def refuses_crashed(call: Call) -> None:
    call.json(502, {"error": {"code": "engine_crashed", "message": "killed by signal 11"}})


def crashes_after_a_token(call: Call) -> None:
    call.events(chat_chunk((call.resume or {}).get("last_seq", 0) + 1, "x", 1, first=call.resume is None))
    call.crash()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_two_crashes_before_the_first_byte(
    rig: Rig,
    new_agent: NewAgent,
    until: Until,
    stream: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    first, second, third = await agents(rig, new_agent)
    first.behaviour = second.behaviour = refuses_crashed
    answer = await rig.ask("POST", CHAT, chat(stream=stream))
    assert (answer.status, answer.error["code"]) == (422, "failed_poison")
    again = await rig.ask("POST", CHAT, chat(stream=stream))
    assert (again.status, again.error["code"]) == (422, "quarantined")
    as_flow = await rig.ask("POST", FLOW, {"prompt": "something else"})
    assert as_flow.status == 202
    assert not third.calls or third.calls[0].path == "/execute"
    await rig.json("DELETE", f"{FLOW}/{as_flow.json()['job_id']}")
    await until(rig.is_idle)


async def test_two_crashes_in_the_middle_of_a_stream(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    first, second, third = await agents(rig, new_agent)
    first.behaviour = second.behaviour = crashes_after_a_token
    client = await rig.start_chat(stream=True)
    await client.read_head()
    read = b""
    while part := await client.read_chunk():
        read += part
    assert b"broken" not in read
    events = SseReader().feed(read)
    assert json.loads(events[-1].data)["error"]["code"] == "failed_poison"
    assert not third.calls
    await until(rig.is_idle)
    refused = await rig.ask("POST", CHAT, chat(stream=True))
    assert (refused.status, refused.error["code"]) == (422, "quarantined")
    third.behaviour = answers_at_once
    other = await rig.ask("POST", CHAT, chat(messages=[{"role": "user", "content": "something else"}]))
    assert other.status == 200
    assert [len(agent.calls) for agent in (first, second)] == [1, 1]


async def test_two_crashes_while_something_is_said_again(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    first, second, third = await agents(rig, new_agent)
    first.behaviour = second.behaviour = crashes_after_a_token
    client = await rig.start_chat(stream=True, response_format={"type": "json_object"})
    await client.read_head()
    read = b""
    while part := await client.read_chunk():
        read += part
    assert json.loads(SseReader().feed(read)[-1].data)["error"]["code"] == "failed_poison"
    assert not third.calls
    await until(rig.is_idle)


@pytest.mark.parametrize("code", ["engine_died", "engine_stuck", ""])
async def test_an_engine_that_somebody_ended_is_nobodys_crime(
    rig: Rig, new_agent: NewAgent, until: Until, code: str
) -> None:
    def ends(call: Call) -> None:
        last = call.resume["last_seq"] if call.resume else 0
        call.events(chat_chunk(last + 1, "x", 1, first=not last))
        call.raw(chunk(b": broken %s\n" % code.encode()) if code else b"")
        call.cut()

    first, second, third = await agents(rig, new_agent)
    first.behaviour = second.behaviour = ends
    third.behaviour = lambda call: call.last(chat_chunk(3, "", finish="stop"), end_mark(4))
    answer = await rig.ask("POST", CHAT, chat(stream=True))
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert len(third.calls) == 1
    await until(rig.is_idle)


async def test_the_last_words_of_one_agent_are_not_those_of_the_next(
    rig: Rig, new_agent: NewAgent, until: Until
) -> None:
    first, second, third = await agents(rig, new_agent)
    first.behaviour = crashes_after_a_token
    second.behaviour = lambda call: call.cut()  # Before a byte of its own.
    third.behaviour = lambda call: call.last(chat_chunk(2, "", finish="stop"), end_mark(3))
    answer = await rig.ask("POST", CHAT, chat(stream=True))
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert [len(agent.calls) for agent in (first, second, third)] == [1, 1, 1]
    await until(rig.is_idle)


async def test_a_nectarflow_that_crashes_two(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    def crashes(call: Call) -> None:
        error = {"error": {"code": "engine_crashed", "message": "signal 11", "hint": "", "type": "server_error"}}
        seq = (call.resume or {}).get("last_seq", 0) + 1
        call.events(token(seq, "x", 1), numbered(seq + 1, error, name="error"))
        call.cut()

    first, second, third = await agents(rig, new_agent)
    first.behaviour = second.behaviour = crashes
    job_id = (await rig.json("POST", FLOW, {"prompt": "hi"}))["job_id"]
    await until(rig.is_idle)
    shown = await rig.json("GET", f"{FLOW}/{job_id}")
    assert (shown["status"], shown["error"]["code"]) == ("failed", "failed_poison")
    refused = await rig.ask("POST", FLOW, {"prompt": "hi"})
    assert (refused.status, refused.error["code"]) == (422, "quarantined")
    assert not third.calls


async def test_the_alarm_may_come_before_the_break(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    first, second, third = await agents(rig, new_agent)
    client = await rig.start_chat()
    for agent in (first, second):
        call = await agent.call()
        await rig.report("/callback/error", agent, code="engine_crashed", message="signal 11", returning=True)
        await call.wait_gone()
    answer = await client.read_answer()
    assert (answer.status, answer.error["code"]) == (422, "failed_poison")
    assert not third.calls
    third.behaviour = lambda call: call.json(200, completion())
    assert (await rig.ask("POST", CHAT, chat())).error["code"] == "quarantined"
    await until(rig.is_idle)
