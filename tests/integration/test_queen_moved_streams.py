"""Streams of our own agents that break: another goes on where the client stands, and the client does not notice."""

from __future__ import annotations

import json
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
from scripted_worker import chat_chunk, chunk, end_mark, numbered, usage_chunk
from swarmesh.wire.sse import DONE_MARK, PING, SseReader

Until = Callable[..., Awaitable[Any]]
Turn = Callable[[], Awaitable[None]]


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
