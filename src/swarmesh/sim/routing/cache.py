"""The blocks an engine has read and still holds: bounded, the one used longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict


class PrefixCache:
    """Blocks by name. What is held of one text is always a beginning of it: its last blocks go before its first."""

    def __init__(self, blocks_max: int) -> None:
        self._blocks_max = blocks_max
        self._held: OrderedDict[int, None] = OrderedDict()

    def match(self, blocks: tuple[int, ...]) -> int:
        """How many of the first blocks are held."""
        for index, block in enumerate(blocks):
            if block not in self._held:
                return index
        return len(blocks)

    def insert(self, blocks: tuple[int, ...]) -> None:
        """Hold these, as the ones used last; of more than fit the first."""
        held = self._held
        for block in reversed(blocks[: self._blocks_max]):
            held[block] = None
            held.move_to_end(block)
        while len(held) > self._blocks_max:
            held.popitem(last=False)

    def __len__(self) -> int:
        """How many blocks are held."""
        return len(self._held)
