"""One owner for one hivecomb: an advisory lock that dies with its process."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from swarmesh.core.errors import HivecombLockedError, StoreError

_PID_BYTES_MAX: Final = 20


class FileLock:
    """A held lock; the kernel lets go of it when the process ends, however it ends.

    The file stays after release: deleting it would let two processes lock two files of one name.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Take the lock at once or not at all; the holder's pid stands in the file.

        Raises:
            HivecombLockedError: Another opener holds it.
            StoreError: The lock file cannot be made or locked.
        """
        try:
            # Closed on exec: an engine child must not keep a dead queen's lock.
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            raise StoreError(
                f"cannot make the lock file {path}: {exc.strerror}",
                hint="The directory must exist, and this user must be able to write to it.",
            ) from exc
        try:
            _lock(fd, path)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    def release(self) -> None:
        """Let go; the next opener may come."""
        os.ftruncate(self._fd, 0)
        os.close(self._fd)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise _locked(fd, path) from exc
    except OSError as exc:
        raise StoreError(
            f"cannot lock {path}: {exc.strerror}",
            hint="Keep the hivecomb on a local disk; some network file systems have no locks.",
        ) from exc
    # On a full disk the lock holds all the same; only its holder's number is missing.
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)


def _locked(fd: int, path: Path) -> HivecombLockedError:
    pid = os.pread(fd, _PID_BYTES_MAX, 0).decode("ascii", "replace").strip()
    holder = f"process {pid}" if pid.isdigit() else "another process"
    return HivecombLockedError(
        f"{holder} has this hivecomb open ({path} is locked); one hivecomb serves one queennode",
        hint="Stop that queennode with 'swarmesh queennode stop', or set SWARMESH_HOME to another directory.",
    )
