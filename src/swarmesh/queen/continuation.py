"""A later worker's part of a stream that an earlier one began."""

from __future__ import annotations

import random
from typing import Final

from msgspec import UNSET

from swarmesh.core.errors import EngineError, SwarmeshError
from swarmesh.queen.framing import EVENT_ENDS, EventGate, Passage
from swarmesh.queen.journal import Journal
from swarmesh.wire.http1 import ResponseHead
from swarmesh.wire.openai import CompletionRequest, EmbeddingRequest, OpenAiRequest, Sampling
from swarmesh.wire.sse import SseReader
from swarmesh.wire.transcript import Replay, Transcript

DONE_EVENT: Final = b"data: [DONE]\n\n"
SEED_BITS: Final = 31


class Continuation:
    """Puts a worker's events into the framing that the client has been promised.

    Args:
        replay: Leaves out what was shown, of a worker that begins anew; None for one that goes on where it was told to.
    """

    def __init__(self, head: ResponseHead, passage: Passage, replay: Replay | None) -> None:
        if not (head.header(b"content-type") or b"").startswith(b"text/event-stream"):
            raise EngineError("the rustbee that was to go on with the stream answered with something else than events")
        self._framer = head.framer()
        self._passage = passage
        self._replay = replay
        self._gate = EventGate(EVENT_ENDS)
        self._reader = SseReader()

    def forward(self, data: bytes, *, ended: bool) -> bytes:
        """The client's bytes for a worker's bytes.

        Raises:
            EngineError: They cannot be read.
            ResumeDivergedError: It says something else than what was shown.
        """
        payload: list[bytes] = []
        if self._framer is not None:
            self._framer.feed(data, payload)
        events = self._events(b"".join(payload))
        framed = self._passage.events(events) if events else b""
        return framed + self._passage.end() if ended else framed

    def _events(self, payload: bytes) -> bytes:
        if self._replay is None:
            return self._gate.pass_on(payload, ended=False)
        return b"".join(map(self._replay.take, self._reader.feed(payload)))


def read_shown(passage: Passage | None, journal: Journal) -> Transcript | None:
    """What the client has of a stream; None when it cannot be read."""
    assert passage is not None, "what has started went through something"
    try:
        return Transcript.read(passage.payload(journal.read()))
    except SwarmeshError:
        return None


def draw_seed(request: OpenAiRequest) -> None:
    """Give a stream a seed that has none: what cannot be gone on with by its tokens is repeated, with the same one."""
    if not isinstance(request, EmbeddingRequest) and request.seed in (UNSET, None):
        request.seed = random.getrandbits(SEED_BITS)


def is_all_shown(shown: Transcript, request: Sampling) -> bool:
    """Whether nothing is missing but the end mark, if that."""
    if shown.done or shown.failed:
        return True
    # Of a list of prompts it is not known how many answers there will be.
    is_one = not isinstance(request, CompletionRequest) or bytes(request.prompt)[:1] == b'"'
    return is_one and shown.is_finished and (shown.usage is not None or not request.wants_usage())
