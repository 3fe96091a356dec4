"""Token ids out of llama.cpp's own OpenAI streams.

Its chat and completion routes tell ids only beside probabilities, and how many tokens were written only beside timings.
Both are asked for, read, and taken out again. Probabilities *after* sampling are asked for, because those before it
make the server sort its whole vocabulary for every token; the text is the same with and without them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.engines.llama_answer import HeldIds, IdSource
from swarmesh.engines.openai_dialect import Lookup, Tapped

ASKED: Final = b',"n_probs":1,"post_sampling_probs":true,"timings_per_token":true}'
DATA: Final = b"data: "
CREATED: Final = b'"created":'
LOGPROBS: Final = b',"logprobs":'
TIMINGS: Final = b',"timings":'


class _Id(msgspec.Struct, frozen=True):
    id: int


class _LogProbs(msgspec.Struct, frozen=True):
    content: list[_Id] | None = None


class _Timings(msgspec.Struct, frozen=True):
    predicted_n: int = 0


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw()


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []
    timings: msgspec.Raw = msgspec.Raw()


_chunk = msgspec.json.Decoder(_Chunk)
_log_probs = msgspec.json.Decoder(_LogProbs | None)
_timings = msgspec.json.Decoder(_Timings)


def asking_for_ids(body: bytes) -> bytes:
    """The body with the fields that make the server tell ids; ``body`` is a JSON object that is not empty."""
    return body.rstrip()[:-1] + ASKED


class LlamaTap:
    """See `swarmesh.engines.openai_dialect.Tap`, for a stream whose body went through `asking_for_ids`."""

    def __init__(self, server: IdSource) -> None:
        self._server = server
        self._held = HeldIds()
        self._created = b""

    def take(self, block: bytes) -> Tapped:
        """See `Tap`. A block that cannot be read is passed on as it is."""
        block = self._created_once(block)
        try:
            chunk = _chunk.decode(block[len(DATA) :]) if block.startswith(DATA) else _Chunk()
            # The last chunks have timings whoever asked for them, and no text.
            if not chunk.choices or chunk.choices[0].finish_reason is not None:
                return Tapped(block)
            return self._tapped(block, chunk.choices[0], bytes(chunk.timings))
        except msgspec.DecodeError:
            return Tapped(block)

    async def look_up(self, lookup: Lookup) -> tuple[int, ...]:
        """See `Tap`."""
        return await self._server.ids_of(lookup.text, lookup.count, lookup.last)

    def _created_once(self, block: bytes) -> bytes:
        # The server stamps each chunk with the present second; an answer was created once.
        if self._created and self._created in block:
            return block
        start = block.find(CREATED)
        if start < 0:
            return block
        end = len(block) - len(block[start + len(CREATED) :].lstrip(b"0123456789"))
        if not self._created:
            self._created = block[start:end]
        return block[:start] + self._created + block[end:]

    def _tapped(self, block: bytes, choice: _Choice, timings: bytes) -> Tapped:
        raw = bytes(choice.logprobs)
        told = _log_probs.decode(raw) if raw else None
        if told is not None:
            # A plain completion's chunks have the field in any case.
            block = _without(block, LOGPROBS, raw, b"" if choice.delta is not None else LOGPROBS + b"null")
        if not timings:
            return Tapped(block)
        block = _without(block, TIMINGS, timings)
        written = _timings.decode(timings).predicted_n
        if choice.delta is not None and choice.delta.reasoning_content:
            self._held.skip(written)
            return Tapped(block)
        text = (choice.delta.content if choice.delta is not None else choice.text) or ""
        ids = tuple(entry.id for entry in told.content or ()) if told is not None else ()
        found = self._held.take(text, ids, written)
        return Tapped(block, lookup=found) if isinstance(found, Lookup) else Tapped(block, found)


def _without(block: bytes, name: bytes, value: bytes, instead: bytes = b"") -> bytes:
    # Within JSON's strings a quote is escaped, so a field's name is found where it is meant and nowhere else. A server
    # that puts it elsewhere, or blanks around it, has its client see it.
    start = block.find(name)
    if start < 0:
        return block
    return block[:start] + instead + block[start + len(name) + len(value) :]
