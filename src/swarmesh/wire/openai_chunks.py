"""A nectarflow's stream in OpenAI's form: chat chunks that carry the numbers and token ids of its rows.

Only what shows a row is numbered, with the number of that row. So whoever was cut off between two events comes back
with the number of the last row it has, and gets the rest: later rows, and the end again in full.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from swarmesh.wire.errors import ErrorBody, ErrorEnvelope
from swarmesh.wire.flow import Usage
from swarmesh.wire.sse import DONE_MARK, SseEvent, render

ID_PREFIX: Final = "chatcmpl-"
"""Before the job id, in a chunk's ``id``."""


class Delta(msgspec.Struct, frozen=True):
    """What a chunk adds to the message."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChunkChoice(msgspec.Struct, frozen=True):
    """A chunk's one choice."""

    delta: Delta
    finish_reason: str | None = None
    index: int = 0


class Chunk(msgspec.Struct, frozen=True):
    """One ``chat.completion.chunk``; the one that tells the usage has no choice."""

    id: str
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: Usage | UnsetType = UNSET
    object: str = "chat.completion.chunk"


class ChatChunks:
    """Renders the chunks of one task. ``created`` is in Unix seconds."""

    def __init__(self, job_id: str, *, created: int, model: str) -> None:
        self._id = ID_PREFIX + job_id
        self._created = created
        self._model = model

    def role(self) -> bytes:
        """The chunk before all text."""
        return render(SseEvent(self._data(ChunkChoice(Delta(role="assistant", content="")))))

    def text(self, seq: int, text: str, token_ids: tuple[int, ...] = ()) -> bytes:
        """The chunk of one row; a row without text has one too, so that no number is missing."""
        data = self._data(ChunkChoice(Delta(content=text)))
        return render(SseEvent(data, seq=seq, token_ids=token_ids))

    def end(self, finish_reason: str, usage: Usage | None = None) -> bytes:
        """The last chunk, the one with the usage where it was asked for, and the end mark."""
        events = [self._data(ChunkChoice(Delta(), finish_reason))]
        if usage is not None:
            events.append(self._data(usage=usage))
        return b"".join(render(SseEvent(data)) for data in (*events, DONE_MARK))

    def _data(self, *choices: ChunkChoice, usage: Usage | UnsetType = UNSET) -> bytes:
        return msgspec.json.encode(Chunk(self._id, self._created, self._model, choices, usage))


def error_event(error: ErrorBody) -> bytes:
    """The event that ends a stream which will not be whole; no end mark follows it."""
    return render(SseEvent(msgspec.json.encode(ErrorEnvelope(error))))
