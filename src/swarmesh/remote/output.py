"""Bytes to whoever reads this process.

asyncio's own write pipe takes a socket that has something to read for one that was closed, and sshd may hand over one
socket as standard input and output both.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from swarmesh.wire.session import LINE_BYTES_MAX

PENDING_BYTES_MAX: Final = 4 * LINE_BYTES_MAX
"""A reader that is so far behind reads no more."""


class Output:
    """Takes bytes at once and writes them, in order, as fast as they are read.

    Args:
        descriptor: Pipe or socket; it is made not to block.

    Attributes:
        on_broken: Called once, when nobody reads any more.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self.on_broken: Callable[[], object] = lambda: None
        self._loop = asyncio.get_running_loop()
        self._pending = bytearray()
        self._progress = asyncio.Event()
        self._waiting = False
        self._broken = False

    @property
    def idle(self) -> bool:
        """Whether everything has been written."""
        return not self._pending

    def send(self, data: bytes) -> None:
        """Write; what nobody reads is dropped."""
        if self._broken:
            return
        self._pending += data
        if len(self._pending) > PENDING_BYTES_MAX:
            self._break()
        elif not self._waiting:
            self._write()

    async def drain(self, silence_limit_s: float) -> None:
        """Wait until everything has been written.

        Raises:
            TimeoutError: Not a byte was taken for so long.
            BrokenPipeError: Nobody reads.
        """
        while self._pending:
            self._progress.clear()
            async with asyncio.timeout(silence_limit_s):
                await self._progress.wait()
        if self._broken:
            raise BrokenPipeError("nobody reads")

    def _write(self) -> None:
        try:
            while self._pending:
                written = os.write(self._descriptor, self._pending)
                del self._pending[:written]
                self._progress.set()
        except BlockingIOError:
            self._wait()
        except OSError:
            self._break()
        else:
            self._stop_waiting()

    def _wait(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._loop.add_writer(self._descriptor, self._write)

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting = False
            self._loop.remove_writer(self._descriptor)

    def _break(self) -> None:
        self._broken = True
        self._pending.clear()
        self._stop_waiting()
        self._progress.set()
        self.on_broken()
