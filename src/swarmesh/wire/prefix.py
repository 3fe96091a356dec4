"""The beginning of a prompt as a chain of hashes, by which the swarm finds the worker that has read it before."""

from __future__ import annotations

from typing import Final

BLOCK_BYTES: Final = 512
"""About 128 tokens; shorter blocks find more in common and cost more to compare."""
BLOCKS_MAX: Final = 256
"""What lies behind them is taken to be new."""


def prefix_of(prompt: bytes, before: int = 0) -> tuple[int, ...]:
    """A hash for each whole block, chained to all before it: equal hashes mean equal beginnings.

    ``before`` stands for what an engine reads before the prompt, such as the tools; 0 for nothing. Hashes are this
    process's own: Python salts them, so nobody can make two prompts collide on purpose.
    """
    chain: list[int] = []
    known = before
    for start in range(0, min(len(prompt) // BLOCK_BYTES, BLOCKS_MAX) * BLOCK_BYTES, BLOCK_BYTES):
        known = hash((known, prompt[start : start + BLOCK_BYTES]))
        chain.append(known)
    return tuple(chain)
