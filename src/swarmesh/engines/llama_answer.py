"""What llama.cpp's ``/completion`` streams, as tokens whose ids are complete."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from swarmesh.core.errors import EngineError
from swarmesh.engines.engine import Done, EngineEvent, Token
from swarmesh.engines.openai_dialect import Lookup
from swarmesh.wire.flow import Usage
from swarmesh.wire.token_counts import UNKNOWN


class IdSource(Protocol):
    """Who can tell the ids of a text."""

    async def ids_of(self, text: str, count: int, last: int) -> tuple[int, ...]:
        """See `swarmesh.engines.llama_http.LlamaHttp.ids_of`."""


class LlamaDone(Done, frozen=True):
    """The end of an answer with llama.cpp's own account of it, a JSON object or nothing."""

    timings: msgspec.Raw = msgspec.Raw()


class HeldIds:
    """Ids that wait for their text.

    The server keeps text back while it could become a stop text, or while a character's bytes are not all there. In
    the first case it tells the ids without the text (its chat route tells nothing), in the second it drops all ids but
    the last. It counts the tokens it wrote, so what is missing is known, and found by tokenizing the text.
    """

    def __init__(self) -> None:
        self._ids: tuple[int, ...] = ()
        self._shown = 0

    def take(self, text: str, ids: tuple[int, ...], written: int) -> tuple[int, ...] | Lookup:
        """The ids of ``text``, given those that came with it and how many tokens were written up to here."""
        self._ids += ids
        if not text:
            return ()
        count, told = written - self._shown, self._ids
        self.skip(written)
        if not ids:
            return ()
        # Half the ids would be taken for all of them; none says that they are not known.
        return told if len(told) == count else Lookup(text, count, ids[-1])

    def skip(self, written: int) -> None:
        """What was written so far was shown in some other way."""
        self._ids, self._shown = (), written


class _Complaint(msgspec.Struct, frozen=True):
    message: str


class _Timings(msgspec.Struct, frozen=True):
    cache_n: int = UNKNOWN


class _Chunk(msgspec.Struct, frozen=True):
    content: str = ""
    tokens: tuple[int, ...] = ()
    stop: bool = False
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    stop_type: str = ""
    prompt_progress: dict[str, Any] | None = None
    timings: msgspec.Raw = msgspec.Raw()
    error: _Complaint | None = None


class LlamaAnswer:
    """Turns the server's chunks into tokens. A token without ids means that from here on they are not known.

    Args:
        shown: Tokens of the answer that were part of the prompt, because another engine wrote them.

    Attributes:
        whole: The end mark has come.
    """

    def __init__(self, server: IdSource, shown: int = 0) -> None:
        self._server = server
        self._before = shown
        self._held = HeldIds()
        self.whole = False

    async def take(self, data: bytes) -> list[EngineEvent]:
        """What one event of the server means."""
        chunk = _read_chunk(data)
        if chunk.prompt_progress is not None:
            return []  # It carries a token that is none.
        ids = self._held.take(chunk.content, chunk.tokens, chunk.tokens_predicted)
        if isinstance(ids, Lookup):
            ids = await self._server.ids_of(ids.text, ids.count, ids.last)
        events: list[EngineEvent] = [Token(chunk.content, ids)] if chunk.content else []
        if chunk.stop:
            self.whole = True
            events.append(self._done(chunk))
        return events

    def _done(self, chunk: _Chunk) -> Done:
        read, written = chunk.tokens_evaluated - self._before, chunk.tokens_predicted + self._before
        reason = "length" if chunk.stop_type == "limit" else "stop"
        cached = _cached_tokens(chunk.timings, read)
        return LlamaDone(reason, Usage(read, written, read + written), cached, timings=chunk.timings)


def _cached_tokens(timings: msgspec.Raw, read: int) -> int:
    # Of what was in the cache, the part of the answer that another engine wrote is no prompt.
    told = msgspec.json.decode(timings, type=_Timings | None) if bytes(timings) else None
    return min(told.cache_n, read) if told is not None else UNKNOWN


def _read_chunk(data: bytes) -> _Chunk:
    try:
        chunk = msgspec.json.decode(data, type=_Chunk)
    except msgspec.DecodeError as error:
        raise EngineError(f"the engine sent an event that cannot be read: {error}") from error
    if chunk.error is not None:
        raise EngineError(f"the engine gave up: {chunk.error.message}")
    return chunk
