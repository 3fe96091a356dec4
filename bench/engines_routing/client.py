"""Clients: each sends its chat when its time has come, whatever became of the others, and reads it as it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec

from .workload import Ask

TIMEOUT_S: Final = 60.0
MODELCELL: Final = "demo"


@dataclass(frozen=True)
class Answer:
    """What one client saw.

    Attributes:
        first_s: From when it wanted to send to the first piece of the answer; to the last piece in ``last_s``.
        prompt_tokens: As the engine counts them; of these it had ``cached_tokens`` in its cache.
        error: Why there is no whole answer; empty when there is.
    """

    group: int
    rustbee_id: str = ""
    first_s: float = 0.0
    last_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    error: str = ""


class _Details(msgspec.Struct):
    cached_tokens: int


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _Details


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


_chunk = msgspec.json.Decoder(_Chunk)


class Clients:
    """Chats with one queen over as many connections as it takes.

    Args:
        base_url: Ends in ``/v1``.
    """

    def __init__(self, base_url: str, key: str) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        headers = {"authorization": f"Bearer {key}"}
        self._http = httpx.AsyncClient(base_url=base_url, headers=headers, timeout=TIMEOUT_S, limits=limits)

    async def all_of(self, asks: Sequence[Ask], answer_tokens: int) -> list[Answer]:
        """Send each at its time; the answers in the order of the asks."""
        began_s = time.monotonic()
        return await asyncio.gather(*(self._at_its_time(ask, answer_tokens, began_s) for ask in asks))

    async def one(self, ask: Ask, answer_tokens: int) -> Answer:
        """Send one now."""
        return await self._asked(ask, answer_tokens, time.monotonic())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _at_its_time(self, ask: Ask, answer_tokens: int, began_s: float) -> Answer:
        wanted_s = began_s + ask.at_s
        await asyncio.sleep(wanted_s - time.monotonic())
        return await self._asked(ask, answer_tokens, wanted_s)

    async def _asked(self, ask: Ask, answer_tokens: int, since_s: float) -> Answer:
        try:
            async with self._http.stream("POST", "/chat/completions", json=_body(ask, answer_tokens)) as response:
                if response.status_code != httpx.codes.OK:
                    return Answer(ask.group, error=f"HTTP {response.status_code}: {(await response.aread())[:200]!r}")
                return await _read(response, ask, since_s)
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            return Answer(ask.group, error=repr(error))


def _body(ask: Ask, answer_tokens: int) -> dict[str, Any]:
    messages = [{"role": "system", "content": ask.system}, {"role": "user", "content": ask.question}]
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    return {"model": MODELCELL, "messages": messages, "max_tokens": answer_tokens, "temperature": 0, **stream}


async def _read(response: httpx.Response, ask: Ask, since_s: float) -> Answer:
    first_s = last_s = 0.0
    usage: _Usage | None = None
    async for line in response.aiter_lines():
        if not line.startswith("data: {"):
            continue
        chunk = _chunk.decode(line[6:])
        usage = chunk.usage or usage
        if any(choice.delta.content for choice in chunk.choices):
            last_s = time.monotonic() - since_s
            first_s = first_s or last_s
    rustbee_id = response.headers.get("x-swarmesh-rustbee", "")
    if usage is None or not first_s:
        return Answer(ask.group, rustbee_id, error="the answer ended without text or usage")
    read, cached, written = usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens, usage.completion_tokens
    return Answer(ask.group, rustbee_id, first_s, last_s, read, cached, written)
