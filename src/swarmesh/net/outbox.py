"""Bytes on their way out, written together when all that has come in was looked at.

A write wakes whoever reads it, on another core, which costs more than the rest of it. Of many in a row few do: the
others find their readers awake.
"""

from __future__ import annotations

import asyncio
from typing import Final

HELD_BYTES_MAX: Final = 64 * 1024
"""More than this is not held back: a writer that never waits must hear from its transport that it has to."""


class Outbox:
    """Whoever writes through it writes nothing to the same transport otherwise, so that the bytes keep their order.

    Args:
        gathers: Else everything goes out at once: of a process that may crash nothing that was said is lost then.
    """

    def __init__(self, *, gathers: bool = True) -> None:
        self._gathers = gathers
        self._held: list[tuple[asyncio.Transport, bytes]] = []
        self._held_bytes = 0
        self._loop = asyncio.get_running_loop()

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write at the end of this turn of the loop."""
        if not self._gathers:
            transport.write(data)
            return
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append((transport, data))
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what is held back, now; to be called before a transport is closed that shall still send it."""
        held, self._held, self._held_bytes = self._held, [], 0
        for transport, data in held:
            if not transport.is_closing():
                transport.write(data)
