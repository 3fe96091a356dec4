"""Streams of our own agents that break: another goes on where the client stands, and the client does not notice."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from queen_rig import CHAT, Rig, chat
from raw_client import RawConnection, request_bytes
from scripted_worker import (
    SSE_HEAD,
    ScriptedAgent,
    ScriptedWorker,
    chat_chunk,
    chunk,
    end_mark,
    holds,
    numbered,
    usage_chunk,
)
from swarmesh.wire.sse import DONE_MARK, PING, SseEvent, SseReader

NewAgent = Callable[[str], Awaitable[ScriptedAgent]]
NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]
Turn = Callable[[], Awaitable[None]]

ENVELOPE = {"id": "c-1", "created": 5, "model": "m", "system_fingerprint": "fp"}


async def agents(rig: Rig, new_agent: NewAgent, count: int) -> list[ScriptedAgent]:
    """So many agents that answer nothing by themselves; they are asked in this order."""
    made = [await new_agent(f"rustbee-{number}") for number in range(1, count + 1)]
    for agent in made:
        agent.behaviour = holds
        await rig.register(agent)
    return made


async def start(rig: Rig, path: str = CHAT, **body: Any) -> RawConnection:
    connection = await rig.connect()
    connection.send(request_bytes("POST", path, json.dumps({**body, "stream": True}).encode(), rig.auth))
    return connection


async def read_some(client: RawConnection, count: int) -> bytes:
    """The first events, head apart."""
    if count:
        await client.read_head()
    read = b""
    while len(SseReader().feed(read)) < count:
        read += await client.read_chunk()
    return read


async def read_rest(client: RawConnection) -> bytes:
    rest = b""
    while part := await client.read_chunk():
        rest += part
    return rest


def chunks_of(events: list[SseEvent]) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in events if event.data != DONE_MARK]


def demand_one_stream(read: bytes, text: str, *, usage: int | None = None) -> None:
    """What the client read is one whole chat: one id, one role, numbers without gaps, one end."""
    events = SseReader().feed(read)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.data == DONE_MARK for event in events] == [False] * (len(events) - 1) + [True]
    chunks = chunks_of(events)
    assert all({name: one[name] for name in ENVELOPE} == ENVELOPE for one in chunks)
    deltas = [choice["delta"] for one in chunks for choice in one["choices"]]
    assert [delta["role"] for delta in deltas if "role" in delta] == ["assistant"]
    assert "".join(delta.get("content") or "" for delta in deltas) == text
    reasons = [choice["finish_reason"] for one in chunks for choice in one["choices"]]
    assert [reason for reason in reasons if reason] == ["stop"]
    told = [one["usage"]["completion_tokens"] for one in chunks if one.get("usage")]
    assert told == ([] if usage is None else [usage])


ONE, TWO = chat_chunk(1, "o", 11, 12, first=True), chat_chunk(2, "ne", 13)


@pytest.mark.parametrize(
    "part",
    [
        b"",
        chunk(PING),
        chunk(chat_chunk(3, "lost", 14))[:-1],
        chunk(chat_chunk(3, "lost", 14)[:-1]),
        b"5",
        chunk(b": broken engine_died\n"),
        chunk(b": t 14\n")[:-2],
    ],
    ids=["nothing", "a ping", "half a chunk", "half an event", "a length", "last words", "half a comment"],
)
async def test_a_chat_goes_on_after_its_tokens(rig: Rig, new_agent: NewAgent, until: Until, part: bytes) -> None:
    first, second = await agents(rig, new_agent, 2)
    client = await start(rig, **chat(stream_options={"include_usage": True}, max_tokens=9))
    call = await first.call()
    assert call.resume is None
    call.events(ONE)
    call.events(TWO)
    read = await read_some(client, 2)
    call.raw(part)
    call.cut()
    again = await second.call()
    assert again.resume == {"last_seq": 2, "text": "one", "token_ids": [11, 12, 13], **ENVELOPE}
    told = {name: value for name, value in again.body.items() if name != "swarmesh_resume"}
    assert told == call.body, "everything else is as it was, the seed included"
    assert isinstance(told["seed"], int)
    assert again.headers["x-swarmesh-task"] == call.headers["x-swarmesh-task"]
    assert [one.headers["x-swarmesh-attempt"] for one in (call, again)] == ["1", "2"]
    again.events(chat_chunk(3, " two", 14))
    again.last(chat_chunk(4, "", finish="stop"), usage_chunk(5, 3, 4), end_mark(6))
    read += await read_rest(client)
    assert b"lost" not in read
    assert b"broken" not in read
    demand_one_stream(read, "one two", usage=4)
    await until(rig.is_idle)
    assert (await client.ask("GET", "/v1/models", None, rig.auth)).status == 200


async def test_a_completion_goes_on_after_its_tokens(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    def text_chunk(seq: int, text: str, *ids: int, finish: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "finish_reason": finish}
        return numbered(seq, {**ENVELOPE, "object": "text_completion", "choices": [choice]}, ids=ids)

    first, second = await agents(rig, new_agent, 2)
    client = await start(rig, "/v1/completions", model="fake", prompt="Say one", seed=7)
    call = await first.call()
    call.events(text_chunk(1, "o", 11), text_chunk(2, "ne", 12))
    read = await read_some(client, 2)
    call.cut()
    again = await second.call()
    assert again.resume == {"last_seq": 2, "text": "one", "token_ids": [11, 12], **ENVELOPE}
    assert (again.path, again.body["seed"], again.body["prompt"]) == ("/v1/completions", 7, "Say one")
    again.last(text_chunk(3, " two", 13), text_chunk(4, "", finish="stop"), end_mark(5))
    events = SseReader().feed(read + await read_rest(client))
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]
    assert "".join(one["choices"][0]["text"] for one in chunks_of(events)) == "one two"
    await until(rig.is_idle)


async def test_ids_that_are_not_all_known_are_not_told(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    first, second = await agents(rig, new_agent, 2)
    client = await start(rig, **chat())
    call = await first.call()
    call.events(ONE, chat_chunk(2, "ne"), chat_chunk(3, "!", 14))
    read = await read_some(client, 3)
    call.cut()
    again = await second.call()
    assert again.resume == {"last_seq": 3, "text": "one!", **ENVELOPE}
    again.last(chat_chunk(4, "", finish="stop"), end_mark(5))
    demand_one_stream(read + await read_rest(client), "one!")
    await until(rig.is_idle)


async def test_a_role_alone_is_not_said_again(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    first, second = await agents(rig, new_agent, 2)
    client = await start(rig, **chat())
    call = await first.call()
    call.events(chat_chunk(1, "", first=True))
    read = await read_some(client, 1)
    call.cut()
    again = await second.call()
    assert again.resume == {"last_seq": 1, **ENVELOPE}
    again.last(chat_chunk(2, "one", 11), chat_chunk(3, "", finish="stop"), end_mark(4))
    demand_one_stream(read + await read_rest(client), "one")
    await until(rig.is_idle)


async def test_a_head_alone_or_pings_begin_nothing(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    first, second = await agents(rig, new_agent, 2)
    client = await start(rig, **chat())
    call = await first.call()
    call.events()
    call.raw(chunk(PING) + chunk(PING))
    await client.read_head()
    assert await client.read_chunk() == PING
    call.cut()
    again = await second.call()
    assert again.resume is None
    again.last(ONE, TWO, chat_chunk(3, "", finish="stop"), end_mark(4))
    demand_one_stream(await read_rest(client), "one")
    await until(rig.is_idle)


async def test_three_moves_and_not_one_more(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    all_five = await agents(rig, new_agent, 5)
    client = await start(rig, **chat())
    read = b""
    for number, agent in enumerate(all_five[:4], start=1):
        call = await agent.call()
        assert (call.resume or {}).get("last_seq", 0) == number - 1
        assert (call.resume or {}).get("token_ids", []) == list(range(1, number))
        call.events(chat_chunk(number, str(number), number, first=number == 1))
        read += await read_some(client, 1) if number == 1 else await client.read_chunk()
        call.cut()
    events = SseReader().feed(read + await read_rest(client))
    assert "".join(one["choices"][0]["delta"]["content"] for one in chunks_of(events[:-1])) == "1234"
    error = json.loads(events[-1].data)["error"]
    assert error["code"] == "rustbee_lost"
    assert "4 rustbees failed it" in error["message"]
    assert not all_five[4].calls
    await until(rig.is_idle)


async def test_what_was_whole_but_for_its_mark_is_not_asked_for_again(
    rig: Rig, new_agent: NewAgent, until: Until
) -> None:
    first, second = await agents(rig, new_agent, 2)
    client = await start(rig, **chat())
    call = await first.call()
    call.events(ONE, chat_chunk(2, "", finish="stop"))
    read = await read_some(client, 2)
    call.cut()
    events = SseReader().feed(read + await read_rest(client))
    assert events[-1].data == DONE_MARK
    assert not second.calls
    await until(rig.is_idle)


async def test_what_is_finished_and_lacks_its_usage_is_not_gone_on_with(
    rig: Rig, new_agent: NewAgent, until: Until
) -> None:
    first, second = await agents(rig, new_agent, 2)
    client = await start(rig, **chat(stream_options={"include_usage": True}))
    call = await first.call()
    call.events(ONE, chat_chunk(2, "", finish="stop"))
    read = await read_some(client, 2)
    call.cut()
    again = await second.call()
    assert again.resume is None, "after its end an engine would say more"
    again.last(ONE, chat_chunk(2, "", finish="stop"), usage_chunk(3, 3, 2), end_mark(4))
    demand_one_stream(read + await read_rest(client), "o", usage=2)
    await until(rig.is_idle)


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


async def test_a_worker_that_goes_on_with_something_else_than_events(
    rig: Rig, new_agent: NewAgent, until: Until
) -> None:
    first, second, third = await agents(rig, new_agent, 3)
    client = await start(rig, **chat())
    call = await first.call()
    call.events(ONE, TWO)
    read = await read_some(client, 2)
    call.cut()
    (await second.call()).json(200, {"choices": []})
    again = await third.call()
    assert again.resume is not None
    assert again.resume["last_seq"] == 2
    again.last(chat_chunk(3, "", finish="stop"), end_mark(4))
    demand_one_stream(read + await read_rest(client), "one")
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


async def test_a_client_that_leaves_while_its_stream_moves(rig: Rig, new_agent: NewAgent, until: Until) -> None:
    first, second = await agents(rig, new_agent, 2)
    client = await start(rig, **chat())
    call = await first.call()
    call.events(ONE)
    await read_some(client, 1)
    call.cut()
    again = await second.call()
    client.abort()
    await again.wait_gone()
    await until(rig.is_idle)


async def test_a_slow_client_does_not_lose_what_moved(rig: Rig, new_agent: NewAgent, until: Until, turn: Turn) -> None:
    first, second = await agents(rig, new_agent, 2)
    client = await start(rig, **chat())
    call = await first.call()
    held_back: list[bool] = []
    call.exchange.on_pause = held_back.append
    seq = 0
    while not held_back:
        seq += 1
        call.events(chat_chunk(seq, "x" * 60_000, seq, first=seq == 1))
        await turn()
        assert seq < 2000
    call.cut()  # What is on its way to the queen is not read before the client reads.
    read = await read_some(client, 1)
    again = b""
    reader = SseReader()
    seen = len(reader.feed(read))
    while not second.calls:
        part = await client.read_chunk()
        seen += len(reader.feed(part))
        again += part
    move = second.calls[0]
    assert move.resume is not None
    assert move.resume["last_seq"] <= seq
    last = move.resume["last_seq"]
    move.last(chat_chunk(last + 1, "", finish="stop"), end_mark(last + 2))
    read += again + await read_rest(client)
    demand_one_stream(read, "x" * 60_000 * last)
    assert seen <= last + 2
    await until(rig.is_idle)
