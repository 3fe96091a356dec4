"""Numbers the events of a stream that is passed through: an ``id`` line before each, its own bytes untouched."""

from __future__ import annotations

from swarmesh.core.errors import EngineError
from swarmesh.wire.sse import EVENT_BYTES_MAX


class SseNumbering:
    """Takes a stream in any cuts and gives whole blocks.

    Attributes:
        seq: Number of the last event; comments have none.
    """

    def __init__(self) -> None:
        self.seq = 0
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The blocks that ``data`` completes, numbered; empty when it completes none.

        Raises:
            EngineError: One block is longer than an event may be.
        """
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        if len(self._rest) > EVENT_BYTES_MAX:
            raise EngineError(f"an event of more than {EVENT_BYTES_MAX} bytes came without an end")
        return b"".join(self._numbered(block) for block in blocks)

    def _numbered(self, block: bytes) -> bytes:
        if block.startswith(b":") and b"\ndata" not in block:
            return block + b"\n\n"
        self.seq += 1
        return b"id: %d\n%s\n\n" % (self.seq, block)
