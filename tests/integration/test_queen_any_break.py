"""Streams that break at chance, at any byte, on agents and adopted servers in any order: each ends as one whole."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from queen_rig import CHAT, Rig, chat
from raw_client import request_bytes
from scripted_worker import SSE_HEAD, Call, ScriptedAgent, ScriptedWorker, chunk, numbered
from swarmesh.core.refusals import MOVES_MAX
from swarmesh.wire.sse import DONE_MARK, PING, SseReader

NewAgent = Callable[[str], Awaitable[ScriptedAgent]]
NewWorker = Callable[..., Awaitable[ScriptedWorker]]
Until = Callable[..., Awaitable[Any]]

WORDS = [f"wörd{number} " for number in range(12)]
TEXT = "".join(WORDS)
USAGE = {"prompt_tokens": 3, "completion_tokens": len(WORDS), "total_tokens": 3 + len(WORDS)}
TASKS = 12


class Chance:
    """A worker's behaviour: it says the text, or breaks while it does."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - chance that can be had again
        self._breaks: dict[str, int] = {}

    def agent(self, call: Call) -> None:
        """As an agent: goes on after what its resume point says, tells ids and numbers."""
        resume = call.resume or {}
        shown, seq = resume.get("text", ""), resume.get("last_seq", 0)
        assert TEXT.startswith(shown)
        ids = resume.get("token_ids", [])
        assert not ids or "".join(WORDS[one] for one in ids) == shown
        self._say(call, len(shown), seq, first="swarmesh_resume" not in call.body, numbers=True)

    def server(self, call: Call) -> None:
        """As an adopted server: begins anew."""
        assert call.resume is None
        self._say(call, 0, 0, first=True, numbers=False)

    def _say(self, call: Call, start: int, seq: int, *, first: bool, numbers: bool) -> None:
        known = {name: (call.resume or {})[name] for name in ("id", "created") if call.resume}
        events = self._events(start, seq, known, first=first, numbers=numbers)
        stream = b"".join(chunk(PING) * self._random.randrange(2) + chunk(event) for event in events) + b"0\r\n\r\n"
        task = call.headers["x-swarmesh-task"]
        if self._breaks.get(task, 0) < MOVES_MAX and self._random.random() < 0.8:
            self._breaks[task] = self._breaks.get(task, 0) + 1
            stream = (SSE_HEAD + stream)[: self._random.randrange(len(SSE_HEAD) + len(stream) - 5)]
            call.raw(stream)
            call.cut()
        else:
            call.raw(SSE_HEAD + stream)
            call.exchange.finish()

    def _events(self, start: int, seq: int, known: dict[str, Any], *, first: bool, numbers: bool) -> list[bytes]:
        name = {"id": f"c-{self._random.random()}", "created": self._random.randrange(1, 99), "model": "m", **known}
        pieces: list[tuple[str, tuple[int, ...]]] = []
        place = 0
        for number, word in enumerate(WORDS):
            if place >= start:
                pieces.append((word, (number,)))
            elif place + len(word) > start:  # An adopted server had stopped within it.
                pieces.append((word[start - place :], ()))
            place += len(word)
        if not numbers:  # Its own pieces, whatever others made of the same text.
            pieces = [(part, ()) for part in self._cut(TEXT)]
        told: list[tuple[dict[str, Any] | bytes, tuple[int, ...]]] = []
        for text, ids in pieces:
            role = {"role": "assistant"} if first and not told else {}
            told.append(({**name, "choices": [{"index": 0, "delta": {**role, "content": text}}]}, ids))
        told.append(({**name, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, ()))
        told += [({**name, "choices": [], "usage": USAGE}, ()), (DONE_MARK, ())]
        if numbers:
            made = [numbered(seq + number, data, ids=ids) for number, (data, ids) in enumerate(told, start=1)]
            return [*made[:-3], b"".join(made[-3:])]  # An agent's end comes in one piece.
        return [b"data: %s\n\n" % (data if isinstance(data, bytes) else json.dumps(data).encode()) for data, _ in told]

    def _cut(self, text: str) -> list[str]:
        places = sorted(self._random.sample(range(1, len(text)), 5))
        return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@pytest.mark.parametrize("seed", range(12))
async def test_one_whole_stream(rig: Rig, new_agent: NewAgent, new_worker: NewWorker, until: Until, seed: int) -> None:
    chance = Chance(seed)
    for number in range(1 + seed % 3):
        agent = await new_agent(f"rustbee-{number}")
        agent.behaviour = chance.agent
        await rig.register(agent, slots=32)
    for _ in range(5 - seed % 3):
        server = await new_worker()
        server.behaviour = chance.server
        await rig.adopt(server, slots=32)
    version = "1.0" if seed % 4 == 3 else "1.1"
    clients = []
    for number in range(TASKS):
        kind = {"tools": [{"type": "function"}]} if number % 3 == 2 else {}
        body = chat(stream=True, stream_options={"include_usage": True}, user=str(number), **kind)
        client = await rig.connect()
        client.send(request_bytes("POST", CHAT, json.dumps(body).encode(), rig.auth, version))
        clients.append(client)
    for client in clients:
        answer = await client.read_answer()
        events = SseReader().feed(answer.body)
        assert [event.data == DONE_MARK for event in events] == [False] * (len(events) - 1) + [True], answer.body
        chunks = [json.loads(event.data) for event in events[:-1]]
        deltas = [choice["delta"] for one in chunks for choice in one["choices"]]
        assert "".join(delta.get("content") or "" for delta in deltas) == TEXT
        assert [delta["role"] for delta in deltas if "role" in delta] == ["assistant"]
        assert [one["usage"] for one in chunks if one.get("usage")] == [USAGE]
        assert len({(one["id"], one["created"]) for one in chunks}) == 1
        reasons = [choice.get("finish_reason") for one in chunks for choice in one["choices"]]
        assert [reason for reason in reasons if reason] == ["stop"]
    await until(rig.is_idle)
