"""Streams of every shape that break and are gone on with: tool calls, JSON, thoughts, choices, other servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from moved_stream_bed import (
    ENVELOPE,
    ONE,
    TWO,
    NewAgent,
    agents,
    chunks_of,
    demand_one_stream,
    read_rest,
    read_some,
    start,
)
from queen_rig import Rig, chat
from scripted_worker import SSE_HEAD, ScriptedWorker, chat_chunk, chunk, end_mark, holds, numbered, usage_chunk
from swarmesh.wire.sse import PING, SseReader

NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]
TOOL = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


def tool_chunk(seq: int, delta: dict[str, Any], finish: str | None = None, **envelope: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return numbered(seq, {**ENVELOPE, **envelope, "choices": [choice]})


def call_part(arguments: str, **opening: Any) -> dict[str, Any]:
    function = {**({"name": "f"} if opening else {}), "arguments": arguments}
    return {"tool_calls": [{"index": 0, **opening, "function": function}]}


async def test_a_tool_call_is_said_again_and_what_was_shown_of_it_left_out(
    rig: Rig, new_agent: NewAgent, until: Until
) -> None:
    first, second = await agents(rig, new_agent, 2)
    client = await start(rig, **chat(tools=TOOL))
    call = await first.call()
    call.events(tool_chunk(1, {"role": "assistant"}), tool_chunk(2, call_part('{"ci', id="call-a", type="function")))
    read = await read_some(client, 2)
    call.cut()
    again = await second.call()
    assert again.resume is None
    assert again.body == call.body, "the same seed above all"
    other = {"id": "c-2", "created": 6}
    again.events(tool_chunk(1, {"role": "assistant"}, **other))
    again.events(tool_chunk(2, call_part("", id="call-b", type="function"), **other))
    again.events(PING, tool_chunk(3, call_part('{"city"'), **other), tool_chunk(4, call_part(': "Rome"}'), **other))
    again.last(tool_chunk(5, {}, "tool_calls", **other), end_mark(6))
    events = SseReader().feed(read + await read_rest(client))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    chunks = chunks_of(events)
    assert all(one["id"] == "c-1" for one in chunks)
    calls = [call for one in chunks for call in one["choices"][0]["delta"].get("tool_calls", [])]
    assert [call["id"] for call in calls if "id" in call] == ["call-a"]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city": "Rome"}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    await until(rig.is_idle)


async def test_json_mode_and_log_probabilities_are_said_again(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    first, second = await agents(rig, new_agent, 2)
    client = await start(rig, **chat(response_format={"type": "json_object"}, logprobs=True))
    call = await first.call()
    call.events(ONE, TWO)
    read = await read_some(client, 2)
    call.cut()
    again = await second.call()
    assert again.resume is None
    again.last(
        chat_chunk(1, "on", 21, first=True, id="c-9"),
        chat_chunk(2, "e two", 22, id="c-9"),
        chat_chunk(3, "", finish="stop", id="c-9"),
        end_mark(4),
    )
    demand_one_stream(read + await read_rest(client), "one two")
    await until(rig.is_idle)


async def test_thoughts_that_were_shown_are_thought_again(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    def thought(seq: int, text: str, **more: Any) -> bytes:
        return tool_chunk(seq, {"reasoning_content": text, **more})

    first, second = await agents(rig, new_agent, 2)
    client = await start(rig, **chat())
    call = await first.call()
    call.events(thought(1, "hm", role="assistant"))
    read = await read_some(client, 1)
    call.cut()
    again = await second.call()
    assert again.resume is None
    again.last(thought(1, "hmm", role="assistant"), chat_chunk(2, "yes"), chat_chunk(3, "", finish="stop"), end_mark(4))
    rest = await read_rest(client)
    assert [one["choices"][0]["delta"] for one in chunks_of(SseReader().feed(rest))] == [
        {"reasoning_content": "m"},
        {"content": "yes"},
        {},
    ]
    demand_one_stream(read + rest, "yes")
    await until(rig.is_idle)


async def test_from_an_agent_to_an_adopted_server_and_on_to_an_agent(
    rig: Rig, new_agent: NewAgent, new_worker: NewWorker, until: Until
) -> None:
    (first,) = await agents(rig, new_agent, 1)
    foreign = await new_worker()
    foreign.behaviour = holds
    await rig.adopt(foreign)
    client = await start(rig, **chat(temperature=0))
    call = await first.call()
    call.events(ONE, TWO)
    read = await read_some(client, 2)
    third = await new_agent("rustbee-3")
    third.behaviour = holds
    call.cut()
    theirs = await foreign.call()
    assert theirs.resume is None
    assert theirs.body == call.body
    theirs.tokens("one", " two")
    read += await client.read_chunk()
    await rig.register(third)
    theirs.cut()
    again = await third.call()
    assert again.resume == {"last_seq": 3, "text": "one two", **ENVELOPE}
    again.last(chat_chunk(4, "!", 31), chat_chunk(5, "", finish="stop"), end_mark(6))
    demand_one_stream(read + await read_rest(client), "one two!")
    await until(rig.is_idle)


async def test_two_choices_move_each_alone(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    first, second, third = await agents(rig, new_agent, 3)
    client = await start(rig, **chat(n=2, stream_options={"include_usage": True}))
    calls = [await first.call(), await second.call()]
    assert calls[1].body["seed"] != calls[0].body["seed"]
    for call, text in zip(calls, ("a", "b"), strict=True):
        assert "n" not in call.body
        call.events(chat_chunk(1, text, 1, first=True))
    read = await read_some(client, 2)
    calls[0].cut()
    again = await third.call()
    assert again.resume is not None
    assert (again.resume["text"], again.resume["token_ids"]) == ("a", [1])
    assert again.body["seed"] == calls[0].body["seed"]
    again.last(chat_chunk(2, "A", 2), chat_chunk(3, "", finish="stop"), usage_chunk(4, 3, 2), end_mark(5))
    calls[1].last(chat_chunk(2, "B", 2), chat_chunk(3, "", finish="stop"), usage_chunk(4, 3, 2), end_mark(5))
    events = SseReader().feed(read + await read_rest(client))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    said = {0: "", 1: ""}
    for one in chunks_of(events):
        for choice in one["choices"]:
            said[choice["index"]] += choice["delta"].get("content") or ""
    assert said == {0: "aA", 1: "bB"}
    assert chunks_of(events)[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert len(first.calls) == len(second.calls) == 1
    await until(rig.is_idle)


@pytest.mark.parametrize("framing", [SSE_HEAD, SSE_HEAD.replace(b"transfer-encoding: chunked\r\n", b"")])
async def test_whatever_the_framing_of_who_goes_on(rig: Rig, new_agent: NewAgent, until: Until, framing: bytes) -> None:
    first, second = await agents(rig, new_agent, 2)
    client = await start(rig, **chat())
    call = await first.call()
    call.events(ONE, TWO)
    read = await read_some(client, 2)
    call.cut()
    again = await second.call()
    rest = chat_chunk(3, "", finish="stop") + end_mark(4)
    again.raw(framing)
    for place in range(0, len(rest), 7):
        again.raw(chunk(rest[place : place + 7]) if framing is SSE_HEAD else rest[place : place + 7])
    again.raw(b"0\r\n\r\n" if framing is SSE_HEAD else b"")
    again.cut()
    demand_one_stream(read + await read_rest(client), "one")
    await until(rig.is_idle)
