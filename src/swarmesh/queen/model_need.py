"""What a worker needs of memory for its model."""

from __future__ import annotations

from swarmesh.engines.llama_batch import BATCH_TOKENS, EMBEDDING_BATCH_TOKENS_MAX
from swarmesh.models.gguf import GgufHeader
from swarmesh.models.memory_estimate import MemoryEstimate, estimate


def worker_estimate(header: GgufHeader, *, slots: int, context_tokens: int) -> MemoryEstimate:
    """The estimate for an engine as workers start it.

    Every model answers /v1/embeddings as well, which costs the engine a batch of outputs; a model made for embeddings
    takes a text in one batch, so its batches are as wide as its context.

    Raises:
        InvalidValueError: A number that makes no sense.
    """
    wide_batch_tokens = min(max(context_tokens, BATCH_TOKENS), EMBEDDING_BATCH_TOKENS_MAX)
    return estimate(
        header,
        context_tokens=context_tokens,
        slots=slots,
        embeddings=True,
        batch_tokens=wide_batch_tokens if header.pooling is not None else BATCH_TOKENS,
    )
