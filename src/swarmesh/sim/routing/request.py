"""What a client asks for: how much is read and written, and which beginning of it others have asked for before."""

from __future__ import annotations

from random import Random
from typing import Final

import msgspec

from swarmesh.core.ids import KeyId, Priority
from swarmesh.core.ledger import CHARS_PER_TOKEN
from swarmesh.wire.prefix import BLOCK_BYTES, BLOCKS_MAX

BLOCK_TOKENS: Final = BLOCK_BYTES // CHARS_PER_TOKEN
CONTEXT_TOKENS: Final = BLOCK_TOKENS * BLOCKS_MAX
"""Longest prompt with its answer; longer ones are cut."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request of a workload or of a trace.

    Attributes:
        number: Its place in the order of ``at_ms``, from 0.
        at_ms: When it is sent, unless the answer it quotes is not there yet.
        blocks: Names of the prompt's whole blocks; equal names mean equal beginnings.
        answered: The same of the prompt with its answer, which is what an engine knows afterwards.
        follows: The request whose answer it quotes; None when it quotes none.
    """

    number: int
    at_ms: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    answered: tuple[int, ...] = ()
    follows: int | None = None
    priority: Priority = Priority.MEDIUM
    key_id: KeyId = KeyId("key-0")


class Text:
    """A text without end as names of its blocks: it opens as another one does and goes on as no other."""

    def __init__(self, rng: Random, opening: tuple[int, ...] = ()) -> None:
        self._rng = rng
        self._blocks = list(opening)

    def blocks(self, tokens: int) -> tuple[int, ...]:
        """The whole blocks of its first ``tokens``, `BLOCKS_MAX` at most."""
        count = min(tokens // BLOCK_TOKENS, BLOCKS_MAX)
        while len(self._blocks) < count:
            self._blocks.append(self._rng.getrandbits(60))
        return tuple(self._blocks[:count])
