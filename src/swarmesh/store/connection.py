"""SQLite connections as the hivecomb needs them, and what their failures mean."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Final

import apsw

from swarmesh.core.errors import StoreError
from swarmesh.store.errors import StoreFullError
from swarmesh.store.schema import migrate, recognise

BUSY_TIMEOUT_MS: Final = 5_000
"""How long to wait for a lock that some other program holds on the file."""
WAL_BYTES_KEPT: Final = 64 * 1024 * 1024
"""A write-ahead log that grew beyond this is cut back to it when it starts over."""
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_log = logging.getLogger(__name__)


def create_private(path: Path) -> None:
    """Make sure that the file exists and that only its owner can read it.

    Must run before SQLite opens the file: closing any descriptor of it would drop SQLite's own locks.

    Raises:
        StoreError: The file cannot be made.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
        _sync_directory(path.parent)
    except OSError as exc:
        raise StoreError(
            f"cannot open the hivecomb {path}: {exc.strerror}",
            hint="The directory must exist, and this user must be able to write to it.",
        ) from exc


def open_writer(path: Path, *, vfs: str | None, max_bytes: int | None) -> apsw.Connection:
    """The one connection that writes, on a file brought to the newest schema.

    Raises:
        StoreError: The file is damaged, not a hivecomb, or from a newer Swarmesh.
    """
    connection: apsw.Connection | None = None
    try:
        connection = apsw.Connection(str(path), vfs=vfs)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        recognise(connection, path)
        _set_durable(connection)
        if max_bytes is not None:
            connection.pragma("max_page_count", max_bytes // connection.pragma("page_size"))
        migrate(connection, path)
    except apsw.Error as exc:
        error = failure(exc, connection, path)
        if connection is not None:
            close(connection)
        raise error from exc
    except StoreError:
        if connection is not None:
            close(connection)
        raise
    return connection


def open_reader(path: Path, *, vfs: str | None) -> apsw.Connection:
    """A connection that cannot write; sees what was committed when a statement starts."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def close(connection: apsw.Connection) -> None:
    """Let go of a connection; the last one also folds the log into the file, if the disk allows."""
    filename = connection.filename
    try:
        connection.close()
    except apsw.Error as exc:
        # Nothing is lost: the log stays, and the next opening reads it.
        _log.warning("the hivecomb %s was closed without its last checkpoint: %s", filename, exc)


def failure(exc: apsw.Error, connection: apsw.Connection | None, path: Path) -> StoreError:
    """What an SQLite error means to a caller; ask right after it, before the connection is used again."""
    system_errno = connection.system_errno if connection is not None else 0
    match exc:
        case apsw.FullError():
            return StoreFullError(f"no room to write the hivecomb {path}")
        case apsw.IOError() if system_errno in _NO_SPACE:
            reason = os.strerror(system_errno)
            return StoreFullError(f"no room to write the hivecomb {path}: {reason}")
        case apsw.NotADBError() | apsw.CorruptError():
            return damaged(path, str(exc))
        case apsw.BusyError():
            return StoreError(
                f"another program kept the hivecomb {path} locked for {BUSY_TIMEOUT_MS} ms",
                hint="Close the program that writes to it; only the queennode should.",
                retry_after_s=1,
            )
        case _:
            return StoreError(f"the hivecomb {path} failed: {exc}")


def damaged(path: Path, reason: str) -> StoreError:
    """What a caller hears of a file that cannot be trusted."""
    return StoreError(
        f"the hivecomb {path} is damaged or no SQLite file: {reason}",
        hint=f"Put a backup in its place, or move {path.name}* away to start an empty hivecomb.",
    )


def _set_durable(connection: apsw.Connection) -> None:
    mode = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise StoreError(
            f"the file system of {connection.filename} has no write-ahead log (journal mode {mode})",
            hint="Keep the hivecomb on a local disk.",
        )
    connection.pragma("synchronous", "FULL")
    # Only macOS knows the difference: there a plain fsync does not reach the platter.
    connection.pragma("fullfsync", 1)
    connection.pragma("checkpoint_fullfsync", 1)
    connection.pragma("foreign_keys", 1)
    connection.pragma("journal_size_limit", WAL_BYTES_KEPT)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
