"""How many tokens go through a llama.cpp model at once."""

from __future__ import annotations

from typing import Final

from swarmesh.wire.spec import WorkerSpec

BATCH_TOKENS: Final = 512
"""Wider reads prompts faster on a GPU, and takes memory for the logits of every token of a batch."""
EMBEDDING_BATCH_TOKENS_MAX: Final = 2048
"""An embedding model takes a text in one batch or not at all, so its batch is as wide as its context, up to here."""


def batch_tokens(spec: WorkerSpec, pooling: int | None) -> int:
    """The batch of a model with this declared pooling (None for a chat model), a multiple of the slots.

    llama.cpp shares a batch evenly among its slots when it plans the mean of each, and aborts where that leaves a rest.
    """
    wanted = (
        BATCH_TOKENS if pooling is None else max(BATCH_TOKENS, min(spec.context_tokens, EMBEDDING_BATCH_TOKENS_MAX))
    )
    return -(-wanted // spec.slots) * spec.slots
