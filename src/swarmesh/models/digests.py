"""SHA-256 of model files, computed once and remembered: a digest of gigabytes takes a while.

A remembered digest holds for a file of the same path, size, modification time and inode. Files of other programs'
caches that are named by their digest are believed: what is copied is checked again where it arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from swarmesh.config.home import Home, write_private
from swarmesh.core.errors import ModelFileError
from swarmesh.models.shared_work import SharedWork
from swarmesh.models.shelf import OnBytes

FILE_NAME: Final = "digests.json"
FILE_VERSION: Final = 1
FILE_BYTES_MAX: Final = 16 * 1024 * 1024
REMEMBERED_MAX: Final = 10_000
CHUNK_BYTES: Final = 4 * 1024 * 1024
REPORT_INTERVAL_S: Final = 0.1
_BLOB_NAME = re.compile(r"(?:sha256-)?(?P<sha256>[0-9a-f]{64})")


class _Remembered(msgspec.Struct, frozen=True):
    path: str
    size_bytes: int
    mtime_ns: int
    inode: int
    sha256: str


class _File(msgspec.Struct, frozen=True):
    version: int
    digests: tuple[_Remembered, ...]


class Digests:
    """The digests of one home, in ``digests.json``; one event loop's.

    A file that cannot be used is written anew; one that cannot be written costs time and nothing else.
    """

    def __init__(self, home: Home) -> None:
        self._path = home.root / FILE_NAME
        self._remembered: dict[str, _Remembered] = {}
        self._was_read = False
        self._hashing: SharedWork[tuple[int, int], str] = SharedWork()

    async def of(self, path: Path, on_bytes: OnBytes | None = None) -> str:
        """Digest of a file, in hex. Two callers share one reading; the last one to leave ends it.

        Raises:
            ModelFileError: It cannot be read.
        """
        known = await self.known(path)
        if known:
            return known
        return await self._hashing.join(
            str(path),
            lambda tell: self._compute(path, lambda done, total: tell((done, total))),
            None if on_bytes is None else lambda progress: on_bytes(*progress),
        )

    async def known(self, path: Path) -> str:
        """The digest if it is known without reading the file, else empty."""
        named = await asyncio.to_thread(_digest_in_name, path)
        if named:
            return named
        remembered = (await self._all()).get(str(path))
        return remembered.sha256 if remembered is not None and remembered == _now(path, remembered.sha256) else ""

    async def remember(self, path: Path, sha256: str) -> None:
        """Take a digest that somebody else has checked."""
        entry = _now(path, sha256)
        if entry is not None:
            await self._add(entry)

    async def _compute(self, path: Path, on_bytes: OnBytes) -> str:
        before = _now(path, "")
        sha256 = await sha256_of(path, on_bytes)
        entry = _now(path, sha256)
        # A file that was written to meanwhile has no digest worth remembering.
        if entry is not None and before is not None and entry.mtime_ns == before.mtime_ns:
            await self._add(entry)
        return sha256

    async def _add(self, entry: _Remembered) -> None:
        remembered = await self._all()
        remembered.pop(entry.path, None)
        remembered[entry.path] = entry
        while len(remembered) > REMEMBERED_MAX:
            remembered.pop(next(iter(remembered)))
        await asyncio.to_thread(_write, self._path, tuple(remembered.values()))

    async def _all(self) -> dict[str, _Remembered]:
        if not self._was_read:
            read = await asyncio.to_thread(_read, self._path)
            # Another caller may have read it in the meantime, and added to it.
            self._remembered = read | self._remembered
            self._was_read = True
        return self._remembered


async def sha256_of(path: Path, on_bytes: OnBytes | None = None) -> str:
    """Read a file and compute its digest, in hex, in a thread that ends soon after the caller is cancelled.

    ``on_bytes`` is called on the event loop, at most every `REPORT_INTERVAL_S` and at the end.

    Raises:
        ModelFileError: It cannot be read.
    """
    loop = asyncio.get_running_loop()
    left = threading.Event()

    def report(done_bytes: int, total_bytes: int) -> None:
        if on_bytes is not None and not loop.is_closed():
            loop.call_soon_threadsafe(on_bytes, done_bytes, total_bytes)

    try:
        return await asyncio.to_thread(_hash, path, report, left)
    except OSError as error:
        raise ModelFileError(f"the model file {path} cannot be read: {error.strerror}.") from error
    finally:
        left.set()


def _hash(path: Path, report: Callable[[int, int], None], left: threading.Event) -> str:
    digest = hashlib.sha256()
    done_bytes, report_at = 0, time.monotonic() + REPORT_INTERVAL_S
    with path.open("rb", buffering=0) as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError(f"{path} is not a regular file.")
        while not left.is_set() and (chunk := stream.read(CHUNK_BYTES)):
            digest.update(chunk)
            done_bytes += len(chunk)
            if time.monotonic() >= report_at:
                report(done_bytes, status.st_size)
                report_at = time.monotonic() + REPORT_INTERVAL_S
    report(done_bytes, max(done_bytes, status.st_size))
    return digest.hexdigest()


def _digest_in_name(path: Path) -> str:
    blob = path.resolve()
    match = _BLOB_NAME.fullmatch(blob.name) if blob.parent.name == "blobs" else None
    return match["sha256"] if match else ""


def _now(path: Path, sha256: str) -> _Remembered | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return _Remembered(str(path), status.st_size, status.st_mtime_ns, status.st_ino, sha256)


def _read(path: Path) -> dict[str, _Remembered]:
    try:
        with path.open("rb") as stream:
            file = msgspec.json.decode(stream.read(FILE_BYTES_MAX), type=_File)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if file.version != FILE_VERSION:
        return {}
    return {entry.path: entry for entry in file.digests[-REMEMBERED_MAX:]}


def _write(path: Path, entries: tuple[_Remembered, ...]) -> None:
    # A full disk must not keep anybody from serving a model: the next one computes the digest again.
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, msgspec.json.encode(_File(FILE_VERSION, entries)))
