"""The file that a policy script was activated from: looked at without ever holding the queen up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import threading
from pathlib import Path
from typing import Final

from swarmesh.policy.script import SOURCE_BYTES_MAX

READ_S_MAX: Final = 2.0
"""How long one look at the file is waited for: a network file system may not answer at all."""
SUFFIX: Final = ".star"
"""Only such files are looked at, wherever a request says that the script lies."""
# No terminal may become the queen's by being looked at, and no pipe make her wait for somebody who writes.
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

Stamp = tuple[int, int, int]
Saved = tuple[Stamp, str]
Found = tuple[Saved | None, bool]
"""What was read, and whether there is no file at all."""


def may_watch(path: str) -> bool:
    """Whether a script's file may be looked at there."""
    return path.endswith(SUFFIX) and Path(path).is_absolute()


class ScriptFile:
    """Reads in a thread of its own, one at a time: a thread that never comes back holds no end of the queen up.

    Attributes:
        is_gone: No file was there at the last look that came back.
    """

    def __init__(self) -> None:
        self.is_gone = False
        self._is_reading = False

    async def read(self, path: str, stamp: Stamp | None) -> Saved | None:
        """The file's stamp and text, unless it has that stamp already.

        None also where there is no such regular file of at most `SOURCE_BYTES_MAX`, while it cannot be read within
        `READ_S_MAX`, and while an earlier look at any file has not come back.
        """
        if self._is_reading:
            return None
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Found] = loop.create_future()
        reader = threading.Thread(target=self._read, args=(loop, found, path, stamp), daemon=True)
        try:
            reader.start()
        except RuntimeError:  # The machine has no room for one more.
            return None
        self._is_reading = True
        with contextlib.suppress(TimeoutError):
            saved, self.is_gone = await asyncio.wait_for(found, READ_S_MAX)
            return saved
        return None

    def _read(
        self,
        loop: asyncio.AbstractEventLoop,
        found: asyncio.Future[Found],
        path: str,
        stamp: Stamp | None,
    ) -> None:
        try:
            outcome = (_read_changed(path, stamp), False)
        except (FileNotFoundError, NotADirectoryError):
            outcome = (None, True)
        with contextlib.suppress(RuntimeError):  # The queen is gone.
            loop.call_soon_threadsafe(self._tell, found, outcome)

    def _tell(self, found: asyncio.Future[Found], outcome: Found) -> None:
        self._is_reading = False
        if not found.done():
            found.set_result(outcome)


def _read_changed(path: str, stamp: Stamp | None) -> Saved | None:
    """See `ScriptFile.read`; raises only what says that nothing is there."""
    try:
        # Looked at before it is opened: opening alone makes some devices do things.
        if _regular(os.stat(path)) in {None, stamp}:  # noqa: PTH116 - of the path as it was given
            return None
        file = os.open(path, _FLAGS)
        try:
            now = _regular(os.fstat(file))
            data = _content(file) if now is not None else b""
        finally:
            os.close(file)
        if now is None or len(data) > SOURCE_BYTES_MAX:
            return None
        return now, data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError):  # Not to be read now, no path at all, or no text.
        return None


def _regular(found: os.stat_result) -> Stamp | None:
    """The stamp of a regular file of a size that may be read; None for anything else."""
    if not stat.S_ISREG(found.st_mode) or found.st_size > SOURCE_BYTES_MAX:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _content(file: int) -> bytes:
    """What is in it, or one byte more than may be: sizes are not always what they say."""
    data = b""
    while len(data) <= SOURCE_BYTES_MAX and (more := os.read(file, SOURCE_BYTES_MAX + 1 - len(data))):
        data += more
    return data
