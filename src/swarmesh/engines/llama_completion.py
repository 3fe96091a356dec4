"""One answer of llama.cpp, from its beginning or from where another engine had to leave it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from swarmesh.core.errors import TaskRefusedError
from swarmesh.engines.engine import Done, EngineEvent
from swarmesh.engines.errors import EngineDiedError
from swarmesh.engines.llama_answer import LlamaAnswer, LlamaDone
from swarmesh.engines.llama_http import LlamaHttp, Prompt
from swarmesh.wire.flow import Usage
from swarmesh.wire.resume import Resume


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for.

    Attributes:
        tokens_max: Of the whole answer, what was shown of it included; None for as many as fit.
        sampling: The rest, under llama.cpp's own names.
    """

    prompt: Prompt
    tokens_max: int | None = None
    stop: list[str] | None = None
    sampling: dict[str, Any]


class _Shown(msgspec.Struct, frozen=True):
    """The part of the answer that is there: as what follows the prompt, and how many tokens that is."""

    parts: list[Any] = []
    count: int = 0


async def complete(
    server: LlamaHttp, asked: Completion, resume: Resume | None = None
) -> AsyncGenerator[EngineEvent, None]:
    """The answer, or what comes behind the part of it that was shown; usage is that of the whole in both cases.

    Raises:
        TaskRefusedError: The task itself is at fault.
        EngineDiedError: The engine broke off.
    """
    shown = await _shown(server, resume) if resume is not None else _Shown()
    reason = await _reason_to_end(server, asked, shown, resume)
    if reason is not None:
        yield await _done(server, asked, shown, reason)
        return
    answer = LlamaAnswer(server, shown.count)
    try:
        async with aclosing(server.completion(_body(asked, shown))) as events:
            async for data in events:
                for event in await answer.take(data):
                    yield event
    except TaskRefusedError:
        if not await _fills_context(server, asked, shown):
            raise
        yield await _done(server, asked, shown, "length")
        return
    if not answer.whole:
        raise EngineDiedError("the engine ended its answer without its end mark")


async def _shown(server: LlamaHttp, resume: Resume) -> _Shown:
    ids = resume.token_ids or (await server.spell(resume.text) if resume.text else ())
    if ids or not resume.text:
        return _Shown(list(ids), len(ids))
    return _Shown([resume.text], await server.count(resume.text, begins=False))


async def _reason_to_end(server: LlamaHttp, asked: Completion, shown: _Shown, resume: Resume | None) -> str | None:
    # A stop text that begins within a token cuts that token's text, so that its ids spell more than was shown.
    if resume is not None and asked.stop and resume.token_ids:
        spelled = await server.text_of(resume.token_ids)
        if spelled.startswith(resume.text) and any(spelled.startswith(s, len(resume.text)) for s in asked.stop if s):
            return "stop"
    full = shown.count > 0 and asked.tokens_max is not None and shown.count >= asked.tokens_max
    return "length" if full else None


async def _fills_context(server: LlamaHttp, asked: Completion, shown: _Shown) -> bool:
    # The unbroken run would have ended with the context full; the server calls a prompt as long as that too long.
    if not shown.count:
        return False
    prompt_tokens = await server.count(asked.prompt)
    return prompt_tokens < server.context_tokens <= prompt_tokens + shown.count


async def _done(server: LlamaHttp, asked: Completion, shown: _Shown, reason: str) -> Done:
    read = await server.count(asked.prompt)
    return LlamaDone(reason, Usage(read, shown.count, read + shown.count))


def _body(asked: Completion, shown: _Shown) -> dict[str, Any]:
    prompt = asked.prompt
    if shown.parts:
        prompt = [*([prompt] if isinstance(prompt, str) else prompt), *shown.parts]
    optional = {
        "n_predict": None if asked.tokens_max is None else asked.tokens_max - shown.count,
        "stop": asked.stop,
    }
    return {
        **asked.sampling,
        **{name: value for name, value in optional.items() if value is not None},
        "prompt": prompt,
        "stream": True,
        "return_tokens": True,
        # Makes the server answer before a long prompt is read, so that a refusal and a wait can be told apart.
        "return_progress": True,
    }
