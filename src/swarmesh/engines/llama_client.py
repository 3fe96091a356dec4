"""The agent's side of a llama.cpp server, in the wheel or as a binary."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from swarmesh.core.errors import TaskRefusedError
from swarmesh.engines.engine import EngineDoor, EngineEvent
from swarmesh.engines.llama_completion import Completion, complete
from swarmesh.engines.llama_http import LlamaHttp
from swarmesh.engines.llama_openai import LlamaDialect
from swarmesh.engines.openai_dialect import OpenAiDialect
from swarmesh.wire.flow import ExecuteRequest, Message


class LlamaClient(LlamaHttp):
    """See `swarmesh.engines.process_engine.EngineClient`."""

    def __init__(self, door: EngineDoor) -> None:
        super().__init__(door)
        self.dialect: OpenAiDialect | None = LlamaDialect(self)

    async def execute(self, request: ExecuteRequest) -> AsyncGenerator[EngineEvent, None]:
        """See `swarmesh.engines.engine.Engine.execute`."""
        asked = Completion(
            prompt=await self._prompt(request),
            tokens_max=request.max_tokens,
            stop=[request.stop] if isinstance(request.stop, str) else request.stop,
            sampling=_sampling(request),
        )
        async with aclosing(complete(self, asked, request.resume)) as events:
            async for event in events:
                yield event

    async def _prompt(self, request: ExecuteRequest) -> str:
        messages = request.messages
        if messages is None:
            if request.prompt is None:
                raise TaskRefusedError(
                    "a rustbee of llama.cpp takes 'prompt' or 'messages'",
                    hint="'input' is for rustbees of type python.",
                )
            if not self.has_template:
                return request.prompt
            messages = [Message("user", msgspec.Raw(msgspec.json.encode(request.prompt)))]
        return await self.templated(msgspec.json.encode({"messages": messages}))


def _sampling(request: ExecuteRequest) -> dict[str, Any]:
    asked = {"temperature": request.temperature, "top_p": request.top_p, "seed": request.seed, "cache_prompt": True}
    return {name: value for name, value in asked.items() if value is not None}
