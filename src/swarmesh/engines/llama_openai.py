"""llama.cpp's OpenAI routes beyond what they do by themselves: telling ids, and going on with a begun answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import msgspec

from swarmesh.core.errors import BadInputError
from swarmesh.engines.engine import Done, Token
from swarmesh.engines.llama_answer import LlamaDone
from swarmesh.engines.llama_completion import Completion, complete
from swarmesh.engines.llama_http import LlamaHttp, Prompt
from swarmesh.engines.llama_tap import LlamaTap, asking_for_ids
from swarmesh.engines.openai_dialect import CHAT_TARGET, OpenAiAsk, Tap
from swarmesh.wire.resume import FIELD, Resume
from swarmesh.wire.sse import DONE_MARK, SseEvent

NOT_SAMPLING: Final = frozenset(
    {
        FIELD,
        "chat_template_kwargs",
        "echo",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "n",
        "n_predict",
        "prompt",
        "reasoning_effort",
        "response_format",
        "stop",
        "stream",
        "stream_options",
        "suffix",
        "tool_choice",
        "tools",
        "top_logprobs",
        "user",
    }
)
"""Fields that are not for ``/completion``: what makes the prompt, and what shapes the answer."""


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class _Asked(msgspec.Struct, frozen=True):
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    n_predict: int | None = None
    stop: str | list[str] | None = None
    stream_options: _StreamOptions | None = None

    @property
    def tokens_max(self) -> int | None:
        # The first one that is there counts, as in the server itself, where none and less than one mean no bound.
        limits = (self.max_completion_tokens, self.max_tokens, self.n_predict)
        limit = next((limit for limit in limits if limit is not None), 0)
        return limit if limit > 0 else None


class LlamaDialect:
    """See `swarmesh.engines.openai_dialect.OpenAiDialect`."""

    def __init__(self, server: LlamaHttp) -> None:
        self._server = server

    def tap(self, body: bytes, ask: OpenAiAsk) -> tuple[bytes, Tap] | None:
        """See `OpenAiDialect`."""
        return (asking_for_ids(body), LlamaTap(self._server)) if ask.plain else None

    async def resume(self, target: bytes, body: bytes, resume: Resume) -> AsyncGenerator[SseEvent, None]:
        """See `OpenAiDialect`. Raises BadInputError, too, for a body that the server itself would refuse."""
        fields, known = _read(body)
        chat = target == CHAT_TARGET
        asked = Completion(
            prompt=await self._prompt(fields, chat=chat),
            tokens_max=known.tokens_max,
            stop=[known.stop] if isinstance(known.stop, str) else known.stop,
            sampling={name: value for name, value in fields.items() if name not in NOT_SAMPLING},
        )
        usage_chunk = chat and known.stream_options is not None and known.stream_options.include_usage
        shape = ChunkFormat(resume, chat=chat, usage_chunk=usage_chunk)
        if chat and not resume.last_seq:
            yield SseEvent(shape.opening())
        async with aclosing(complete(self._server, asked, resume)) as events:
            async for event in events:
                if isinstance(event, Token):
                    yield SseEvent(shape.text(event.text), token_ids=event.token_ids)
                else:
                    for data in shape.closing(event):
                        yield SseEvent(data, counts=event.counts if data == DONE_MARK else None)

    async def _prompt(self, fields: dict[str, Any], *, chat: bool) -> Prompt:
        if chat:
            rest = {name: value for name, value in fields.items() if name != FIELD}
            return await self._server.templated(msgspec.json.encode(rest))
        prompt = fields.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
            prompt = prompt[0]
        if isinstance(prompt, str) or (isinstance(prompt, list) and all(isinstance(part, int) for part in prompt)):
            return prompt
        raise BadInputError("only an answer to one text, or to one list of token ids, can be resumed", param="prompt")


class ChunkFormat:
    """Chunks as the server itself would have sent them, for an answer whose first chunks were another server's.

    Args:
        usage_chunk: The usage has a chunk of its own. Plain completions have it in their last one, asked or not.
    """

    def __init__(self, resume: Resume, *, chat: bool, usage_chunk: bool) -> None:
        self._chat = chat
        self._usage_chunk = usage_chunk
        self._id = {"id": resume.id}
        printed = {} if resume.system_fingerprint is None else {"system_fingerprint": resume.system_fingerprint}
        self._model = {"model": resume.model, **printed}
        self._created = {"created": resume.created}
        self._object = {"object": "chat.completion.chunk" if chat else "text_completion"}

    def opening(self) -> bytes:
        """The chat's first chunk, where not even that was shown."""
        choice = {"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}
        return msgspec.json.encode(self._around([choice], {}))

    def text(self, text: str) -> bytes:
        """The chunk of a piece of text."""
        return msgspec.json.encode(self._around([self._choice(text, None)], {}))

    def closing(self, done: Done) -> list[bytes]:
        """The last chunks and the end mark."""
        timings = {}
        if isinstance(done, LlamaDone) and bytes(done.timings):
            timings = {"timings": msgspec.json.decode(done.timings)}
        cached = min(timings.get("timings", {}).get("cache_n", 0), done.usage.prompt_tokens)
        usage = {
            "usage": {
                "completion_tokens": done.usage.completion_tokens,
                "prompt_tokens": done.usage.prompt_tokens,
                "total_tokens": done.usage.total_tokens,
                "prompt_tokens_details": {"cached_tokens": cached},
            }
        }
        last = [self._choice("", done.finish_reason)]
        if self._usage_chunk:
            chunks = [self._around(last, {}), {**self._around([], usage), **timings}]
        else:
            chunks = [{**self._around(last, {} if self._chat else usage), **timings}]
        return [*map(msgspec.json.encode, chunks), DONE_MARK]

    def _choice(self, text: str, finish_reason: str | None) -> dict[str, Any]:
        if self._chat:
            return {"finish_reason": finish_reason, "index": 0, "delta": {"content": text} if text else {}}
        return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish_reason}

    def _around(self, choices: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        # The order of the server's own fields, which differs between its two routes.
        if self._chat:
            return {"choices": choices, **self._created, **self._id, **self._model, **self._object, **usage}
        return {"choices": choices, **self._created, **self._model, **self._object, **usage, **self._id}


def _read(body: bytes) -> tuple[dict[str, Any], _Asked]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any]), msgspec.json.decode(body, type=_Asked)
    except msgspec.DecodeError as error:
        raise BadInputError(f"the body cannot be read: {error}") from error
