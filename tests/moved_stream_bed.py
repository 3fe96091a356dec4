"""Streams of our own agents that break, and what a client reads of them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from queen_rig import CHAT, Rig
from raw_client import RawConnection, request_bytes
from scripted_worker import ScriptedAgent, chat_chunk, holds
from swarmesh.wire.sse import DONE_MARK, SseEvent, SseReader

NewAgent = Callable[[str], Awaitable[ScriptedAgent]]
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
