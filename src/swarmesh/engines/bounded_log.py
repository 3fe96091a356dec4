"""A log file that cannot fill a disk, and its last words at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Final

LOG_BYTES_MAX: Final = 1024 * 1024
"""After so much the file becomes ``NAME.1`` (in place of an older one) and a new one begins."""
TAIL_BYTES: Final = 16 * 1024


class BoundedLog:
    """Bytes appended to a file; at most two files of `LOG_BYTES_MAX` exist.

    A disk that is full or gone loses log lines, never the worker: writing does not raise.
    """

    def __init__(self, path: Path, *, bytes_max: int = LOG_BYTES_MAX) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._tail = bytearray()

    def write(self, data: bytes) -> None:
        """Append; one write too many starts a new file."""
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        try:
            with self._path.open("ab") as file:
                full = file.tell() + len(data) > self._bytes_max
                if not full:
                    file.write(data)
            if full:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._path.write_bytes(data[-self._bytes_max :])
        except OSError:
            return

    def last_lines(self, lines_max: int) -> list[str]:
        """The last lines that are not blank."""
        lines = self._tail.decode("utf-8", "replace").splitlines()
        return [line for line in lines if line.strip()][-lines_max:]

    def forget(self) -> None:
        """What is written from now on is a new process's; the file stays."""
        self._tail.clear()
