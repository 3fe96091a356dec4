"""How an engine's own OpenAI routes are taught to tell token ids, and to go on with an answer that was begun elsewhere.

An engine whose streams carry ``: t`` lines already, and that reads a resume point by itself, needs none of this.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, Protocol

import msgspec

from swarmesh.core.errors import BadInputError
from swarmesh.wire.resume import FIELD, Resume
from swarmesh.wire.sse import SseEvent

CHAT_TARGET: Final = b"/v1/chat/completions"
COMPLETION_TARGET: Final = b"/v1/completions"
TEXT_TARGETS: Final = frozenset({CHAT_TARGET, COMPLETION_TARGET})

_NOT_SAID: Final = frozenset({b"", b"null", b"false", b"0", b"[]", b"{}", b'{"type":"text"}'})


class OpenAiAsk(msgspec.Struct, frozen=True, kw_only=True):
    """What of a request's body decides how its answer is handled here; the rest is the engine's business."""

    stream: bool | None = None
    n: int | None = None
    tools: msgspec.Raw = msgspec.Raw()
    functions: msgspec.Raw = msgspec.Raw()
    response_format: msgspec.Raw = msgspec.Raw()
    grammar: msgspec.Raw = msgspec.Raw()
    json_schema: msgspec.Raw = msgspec.Raw()
    logprobs: msgspec.Raw = msgspec.Raw()
    n_probs: msgspec.Raw = msgspec.Raw()
    timings_per_token: msgspec.Raw = msgspec.Raw()
    swarmesh_resume: Resume | None = None

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return max(1, self.n or 1)

    @property
    def plain(self) -> bool:
        """One answer of free text, and nothing is asked about it that fields of ours would change."""
        shapes = (self.tools, self.functions, self.response_format, self.grammar, self.json_schema)
        told = (self.logprobs, self.n_probs, self.timings_per_token)
        return self.choices == 1 and all(bytes(field) in _NOT_SAID for field in (*shapes, *told))


class Lookup(msgspec.Struct, frozen=True):
    """Ids that the engine did not tell: the ``count`` tokens that make up ``text`` and end with ``last``."""

    text: str
    count: int
    last: int


class Tapped(msgspec.Struct, frozen=True):
    """One block of a stream as its client shall see it.

    Attributes:
        token_ids: Of exactly the text in it; none when there is no text, or they are not known.
        lookup: Set when the ids are still to be asked for.
    """

    block: bytes
    token_ids: tuple[int, ...] = ()
    lookup: Lookup | None = None


class Tap(Protocol):
    """Reads the token ids out of one stream."""

    def take(self, block: bytes) -> Tapped:
        """One block of the engine's stream, without the blank line behind it."""

    async def look_up(self, lookup: Lookup) -> tuple[int, ...]:
        """The ids; none when they cannot be told. Raises nothing: ids are a help, their lack is no failure."""


class OpenAiDialect(Protocol):
    """What one kind of engine understands beyond OpenAI's own fields."""

    def tap(self, body: bytes, ask: OpenAiAsk) -> tuple[bytes, Tap] | None:
        """A streamed request's body with what makes the engine tell ids, and who takes that out of its answer again.

        None when this request has to go to the engine as it is.
        """

    def resume(self, target: bytes, body: bytes, resume: Resume) -> AsyncGenerator[SseEvent, None]:
        """The rest of an answer as OpenAI's chunks with token ids, the last events included.

        Raises:
            TaskRefusedError: The task itself is at fault.
            EngineDiedError: The engine broke off.
        """


def read_ask(body: bytes) -> OpenAiAsk:
    """Read a body; one that makes no sense asks for nothing here, and the engine will say what is wrong with it.

    Raises:
        BadInputError: It has a resume point that cannot be followed.
    """
    try:
        ask = msgspec.json.decode(body, type=OpenAiAsk)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if f'"{FIELD}"'.encode() in body:
            raise BadInputError(f"the resume point cannot be read: {error}", param=FIELD) from error
        return OpenAiAsk()
    if ask.swarmesh_resume is not None and not (ask.stream and ask.plain):
        raise BadInputError("only a stream of one answer of free text can be resumed", param=FIELD)
    return ask
