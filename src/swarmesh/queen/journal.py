"""The bytes of a running stream, kept unparsed until somebody needs them (DESIGN: failover costs nothing until then).

Streams of events repeat themselves: older bytes are compressed in segments, which keeps a thousand of them small.
"""

from __future__ import annotations

import zlib
from typing import Final

from swarmesh.wire.token_counts import shown_tokens

SEGMENT_BYTES: Final = 16 * 1024
JOURNAL_BYTES_MAX: Final = 4 * 1024 * 1024
"""Compressed bytes of one stream; a longer one is marked incomplete and keeps what it has."""
FASTEST: Final = 1


class Journal:
    """Append-only bytes with a bound.

    Attributes:
        complete: Nothing was left out, so the stream can be continued from here.
        left_out_bytes: What came after it was full.
    """

    __slots__ = (
        "_compressed",
        "_compressed_bytes",
        "_packed_bytes",
        "_recent",
        "_recent_bytes",
        "complete",
        "left_out_bytes",
    )

    def __init__(self) -> None:
        self._recent: list[bytes] = []
        self._recent_bytes = 0
        self._compressed: list[bytes] = []
        self._compressed_bytes = 0
        self._packed_bytes = 0
        self.complete = True
        self.left_out_bytes = 0

    @property
    def is_empty(self) -> bool:
        """Nothing was kept yet."""
        return not self._recent and not self._compressed

    def append(self, data: bytes) -> None:
        """Keep ``data``; bytes beyond the bound are dropped and `complete` turns False."""
        if not self.complete:
            self.left_out_bytes += len(data)
            return
        if not data:
            return
        self._recent.append(data)
        self._recent_bytes += len(data)
        if self._recent_bytes > SEGMENT_BYTES:
            self._compress()

    def read(self) -> bytes:
        """All that was kept, in order."""
        return b"".join([zlib.decompress(segment) for segment in self._compressed] + self._recent)

    def shown_tokens(self) -> int:
        """About how many tokens of text it was given; of a long stream some are counted, and the rest is like them."""
        some = b"".join([zlib.decompress(segment) for segment in self._compressed[-1:]] + self._recent)
        all_bytes = self._packed_bytes + self._recent_bytes + self.left_out_bytes
        return shown_tokens(some) * all_bytes // len(some) if some else 0

    def _compress(self) -> None:
        segment = zlib.compress(b"".join(self._recent), FASTEST)
        packed_bytes, self._recent, self._recent_bytes = self._recent_bytes, [], 0
        if self._compressed_bytes + len(segment) > JOURNAL_BYTES_MAX:
            self.complete = False
            self.left_out_bytes += packed_bytes
            return
        self._packed_bytes += packed_bytes
        self._compressed.append(segment)
        self._compressed_bytes += len(segment)
