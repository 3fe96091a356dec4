"""Model files of this machine on their way out to another one, and in from there."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import BinaryIO, Final, Self

from swarmesh.core.errors import ModelFileError, SwarmeshError
from swarmesh.models.digests import Digests, sha256_of
from swarmesh.models.shelf import (
    TRANSFER_CHUNK_BYTES,
    DigestMismatchError,
    DiskFullError,
    FilePart,
    TransferBrokenError,
)

PARTIAL_ENDING: Final = ".part"


class FileGoingOut:
    """See `swarmesh.models.shelf.Outgoing`."""

    def __init__(self, path: Path, stream: BinaryIO, size_bytes: int) -> None:
        self._path = path
        self._stream = stream
        self.size_bytes = size_bytes
        self._left_bytes = size_bytes

    @classmethod
    async def open(cls, path: Path, offset: int) -> Self:
        """The bytes from ``offset`` on; what is added to the file later is left out.

        Raises:
            ModelFileError: It cannot be read, or is shorter.
        """
        try:
            stream, size_bytes = await asyncio.to_thread(_open_at, path, offset)
        except OSError as error:
            raise ModelFileError(f"the model file {path} cannot be read: {error.strerror}.") from error
        return cls(path, stream, size_bytes - offset)

    async def read(self) -> bytes:
        """See the protocol."""
        try:
            data = await asyncio.to_thread(self._stream.read, min(TRANSFER_CHUNK_BYTES, self._left_bytes))
        except OSError as error:
            raise ModelFileError(f"the model file {self._path} cannot be read: {error.strerror}.") from error
        if not data and self._left_bytes:
            raise TransferBrokenError(f"{self._path} became shorter while it was read.")
        self._left_bytes -= len(data)
        return data

    async def aclose(self) -> None:
        """See the protocol."""
        self._stream.close()


class FileOnItsWay:
    """See `swarmesh.models.shelf.Incoming`: a hidden partial file, which gets its name when it is whole and right."""

    def __init__(self, part: FilePart, path: Path, digests: Digests, stream: BinaryIO | None, offset: int) -> None:
        self._part = part
        self._path = path
        self._digests = digests
        self._stream = stream
        self.offset = offset

    @classmethod
    async def open(cls, directory: Path, part: FilePart, digests: Digests) -> Self:
        """Go on with what has arrived of this part earlier.

        Raises:
            DiskFullError: The rest will not fit.
            ModelFileError: The directory cannot be used.
        """
        path = directory / part.file_name
        if await asyncio.to_thread(path.is_file) and await digests.of(path) == part.sha256:
            return cls(part, path, digests, None, part.size_bytes)
        try:
            stream, offset = await asyncio.to_thread(_open_partial, path, part.size_bytes)
        except OSError as error:
            raise _not_writable(path, error) from error
        return cls(part, path, digests, stream, offset)

    async def write(self, data: bytes) -> None:
        """See the protocol."""
        assert self._stream is not None, "nothing is missing of a whole file"
        try:
            await asyncio.to_thread(_write_all, self._stream, data)
        except OSError as error:
            raise _not_writable(self._path, error) from error

    async def finish(self) -> str:
        """See the protocol."""
        if self._stream is None:
            return str(self._path)
        partial = _partial_of(self._path)
        try:
            await asyncio.to_thread(_settle, self._stream)
            sha256 = await sha256_of(partial)
            if sha256 != self._part.sha256:
                await asyncio.to_thread(partial.unlink, missing_ok=True)
                raise DigestMismatchError(f"{self._path.name} arrived with SHA-256 {sha256}, not {self._part.sha256}.")
            await asyncio.to_thread(_rename, partial, self._path)
        except OSError as error:
            raise _not_writable(self._path, error) from error
        await self._digests.remember(self._path, sha256)
        return str(self._path)

    async def aclose(self) -> None:
        """See the protocol."""
        if self._stream is not None:
            # What the last write could not hold is asked for again.
            with contextlib.suppress(OSError):
                self._stream.close()


def _open_at(path: Path, offset: int) -> tuple[BinaryIO, int]:
    stream = path.open("rb")
    size_bytes = os.fstat(stream.fileno()).st_size
    if offset > size_bytes:
        stream.close()
        raise ModelFileError(f"{path} has {size_bytes:,} bytes; byte {offset:,} was asked for.")
    stream.seek(offset)
    return stream, size_bytes


def _open_partial(path: Path, size_bytes: int) -> tuple[BinaryIO, int]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(_partial_of(path), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    stream = os.fdopen(descriptor, "ab", buffering=0)
    offset = os.fstat(descriptor).st_size
    if offset > size_bytes:
        stream.truncate(0)
        offset = 0
    free_bytes = shutil.disk_usage(path.parent).free
    if size_bytes - offset > free_bytes:
        stream.close()
        raise DiskFullError(
            f"{path.name} needs {size_bytes - offset:,} bytes more in {path.parent}, where {free_bytes:,} are free."
        )
    return stream, offset


def _partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{PARTIAL_ENDING}")


def _write_all(stream: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        # An unbuffered file takes what fits; what does not fit is an error of the next call.
        left = left[stream.write(left) :]


def _settle(stream: BinaryIO) -> None:
    os.fsync(stream.fileno())
    stream.close()


def _rename(partial: Path, path: Path) -> None:
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # The new name has to survive a power cut as well.
    finally:
        os.close(directory)


def _not_writable(path: Path, error: OSError) -> SwarmeshError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"{path} cannot be written: {error.strerror}.")
    return ModelFileError(f"{path} cannot be written: {error.strerror}.")
