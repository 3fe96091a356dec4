"""Numbers the events of a stream that is passed through: an ``id`` line before each, its own bytes untouched."""

from __future__ import annotations

from swarmesh.core.errors import EngineError
from swarmesh.wire.sse import EVENT_BYTES_MAX


class SseNumbering:
    """Takes a stream in any cuts and gives whole blocks.

    Attributes:
        seq: Number of the last event; comments have none. A stream that is resumed goes on behind another one's last.
    """

    def __init__(self, last_seq: int = 0) -> None:
        self.seq = last_seq
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The blocks that ``data`` completes, without the blank lines behind them.

        Raises:
            EngineError: One block is longer than an event may be.
        """
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        if len(self._rest) > EVENT_BYTES_MAX:
            raise EngineError(f"an event of more than {EVENT_BYTES_MAX} bytes came without an end")
        return blocks

    def numbered(self, block: bytes, token_ids: tuple[int, ...] = ()) -> bytes:
        """A block with its number and the ids of its text, ready to be sent."""
        if block.startswith(b":") and b"\ndata" not in block:
            return block + b"\n"  # No blank line: see `swarmesh.wire.sse.PING`.
        self.seq += 1
        if not token_ids:
            return b"id: %d\n%s\n\n" % (self.seq, block)
        return b"id: %d\n: t %s\n%s\n\n" % (self.seq, ",".join(map(str, token_ids)).encode(), block)
