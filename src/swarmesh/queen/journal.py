"""The bytes of a running stream, kept unparsed until somebody needs them (DESIGN: failover costs nothing until then).

Streams of events repeat themselves: older bytes are compressed in segments, which keeps a thousand of them small.
"""

from __future__ import annotations

import zlib
from typing import Final

SEGMENT_BYTES: Final = 16 * 1024
JOURNAL_BYTES_MAX: Final = 4 * 1024 * 1024
"""Compressed bytes of one stream; a longer one is marked incomplete and keeps what it has."""
FASTEST: Final = 1


class Journal:
    """Append-only bytes with a bound.

    Attributes:
        complete: Nothing was left out, so the stream can be continued from here.
    """

    __slots__ = ("_compressed", "_compressed_bytes", "_recent", "_recent_bytes", "complete")

    def __init__(self) -> None:
        self._recent: list[bytes] = []
        self._recent_bytes = 0
        self._compressed: list[bytes] = []
        self._compressed_bytes = 0
        self.complete = True

    @property
    def is_empty(self) -> bool:
        """Nothing was kept yet."""
        return not self._recent and not self._compressed

    def append(self, data: bytes) -> None:
        """Keep ``data``; bytes beyond the bound are dropped and `complete` turns False."""
        if not self.complete or not data:
            return
        self._recent.append(data)
        self._recent_bytes += len(data)
        if self._recent_bytes > SEGMENT_BYTES:
            self._compress()

    def read(self) -> bytes:
        """All that was kept, in order."""
        return b"".join([zlib.decompress(segment) for segment in self._compressed] + self._recent)

    def _compress(self) -> None:
        segment = zlib.compress(b"".join(self._recent), FASTEST)
        self._recent, self._recent_bytes = [], 0
        if self._compressed_bytes + len(segment) > JOURNAL_BYTES_MAX:
            self.complete = False
            return
        self._compressed.append(segment)
        self._compressed_bytes += len(segment)
