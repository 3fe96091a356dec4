"""One answer on OpenAI's text routes, from the pieces that a runner writes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from swarmesh.engines.engine import Done, Token
from swarmesh.engines.openai_text import Piece, TextFormat, counts_of
from swarmesh.wire.sse import DONE_MARK, SseEvent, render

Choices = list[AsyncGenerator[Piece, None]]


async def stream(choices: Choices, shape: TextFormat) -> AsyncGenerator[bytes, None]:
    """The answer as events, one or more at a time; the last finish reason and all behind it come together.

    The choices take turns. A single one tells its token ids, and the end mark the tokens of all.
    """
    opened = False
    ends: list[Done] = []
    async with aclosing(_in_turn(choices)) as pieces:
        async for index, piece in pieces:
            opening = [] if opened else [_event(chunk) for chunk in shape.opening()]
            opened = True
            if not isinstance(piece, Done):
                ids = piece.token_ids if isinstance(piece, Token) and len(choices) == 1 else ()
                yield b"".join([*opening, _event(shape.piece(index, piece), ids)])
                continue
            ends.append(piece)
            finish = b"".join([*opening, _event(shape.finish(index, piece))])
            if len(ends) == len(choices):
                counts = counts_of(ends)
                closing = [_event(chunk) for chunk in shape.closing(counts)]
                finish = b"".join([finish, *closing, render(SseEvent(DONE_MARK, counts=counts))])
            yield finish


async def collect(choices: Choices, shape: TextFormat) -> bytes:
    """The whole answer at once."""
    collected: list[list[Piece]] = [[] for _ in choices]
    async with aclosing(_in_turn(choices)) as pieces:
        async for index, piece in pieces:
            collected[index].append(piece)
    return msgspec.json.encode(shape.answer(collected))


async def _in_turn(choices: Choices) -> AsyncGenerator[tuple[int, Piece], None]:
    running = dict(enumerate(choices))
    try:
        while running:
            for index in list(running):
                piece = await anext(running[index])
                if isinstance(piece, Done):
                    await running.pop(index).aclose()
                yield index, piece
    finally:
        for choice in running.values():
            await choice.aclose()


def _event(chunk: dict[str, Any], token_ids: tuple[int, ...] = ()) -> bytes:
    return render(SseEvent(msgspec.json.encode(chunk), token_ids=token_ids))
