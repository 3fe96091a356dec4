"""A model file on its way out of this machine, or in."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from swarmesh.config.home import Home
from swarmesh.core.errors import ConflictError, InvalidValueError
from swarmesh.models.digests import Digests
from swarmesh.models.local_transfer import FileGoingOut, FileOnItsWay
from swarmesh.models.scan import ScanRoot
from swarmesh.models.shelf import (
    TRANSFER_CHUNK_BYTES,
    DiskFullError,
    FilePart,
    TransferBrokenError,
)
from swarmesh.remote.errors import HostDiskFullError
from swarmesh.remote.output import Output
from swarmesh.remote.sendable import sendable
from swarmesh.wire.session import FileSize, Kept, Opening, Wanted

SILENCE_LIMIT_S: Final = 20.0
"""A transfer in which nothing moves for so long is over; what has arrived stays for the next one."""
LOCK_WAIT_S: Final = SILENCE_LIMIT_S + 5.0
"""Longer than a transfer whose network is gone holds on to its file."""
LOCK_LOOK_S: Final = 0.1
MIB: Final = 1024 * 1024
_DIRECTORY: Final = re.compile(r"[0-9a-f]{16}")


async def open_wanted(opening: Opening, home: Home, roots: Sequence[ScanRoot]) -> FileGoingOut:
    """The file that the queen wants, at her offset.

    Raises:
        InvalidValueError: There is no such offset in any file.
        ForbiddenError: It may not be sent.
        NotFoundError: It is not there.
        ModelFileError: It cannot be read, or is shorter.
    """
    if opening.offset < 0:
        raise InvalidValueError(f"{opening.offset} is no offset in a file", param="offset")
    path = await asyncio.to_thread(sendable, opening.path, home, roots)
    return await FileGoingOut.open(path, opening.offset)


async def send_file(opening: Opening, file: FileGoingOut, output: Output, silence_limit_s: float) -> None:
    """Say with a `FileSize` line how long the whole file is, then send its bytes from the offset on.

    From here on nothing but bytes of the file may be written: a word about an error would be taken for some.

    Raises:
        TransferBrokenError: The file became shorter.
        ModelFileError: It cannot be read any further.
        TimeoutError: Nobody took any of it for too long.
        OSError: Nobody reads.
    """
    try:
        output.send(msgspec.json.encode(FileSize(opening.offset + file.size_bytes)) + b"\n")
        while data := await file.read():
            output.send(data)
            await output.drain(silence_limit_s)
    finally:
        await file.aclose()


async def receive_file(
    opening: Opening, home: Home, source: asyncio.StreamReader, output: Output, silence_limit_s: float
) -> None:
    """Answer with a `Wanted` line, take the bytes from there on, and say with a `Kept` line where the file is.

    Raises:
        InvalidValueError: The file may not have that name, that place or that digest.
        ConflictError: It is being sent by somebody else.
        HostDiskFullError: It does not fit.
        DigestMismatchError: It is another file; nothing of it is kept.
        ModelFileError: It cannot be written.
        TransferBrokenError: It ended early; what has arrived is kept.
        TimeoutError: Nothing came for too long; what has arrived is kept.
    """
    part = _part_of(opening)
    directory = home.models_dir / opening.directory
    await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
    async with _only_one(directory / f".{part.file_name}.lock"):
        path = await _take(opening, part, directory, Digests(home), source, output, silence_limit_s)
    output.send(msgspec.json.encode(Kept(path)) + b"\n")


async def _take(
    opening: Opening,
    part: FilePart,
    directory: Path,
    digests: Digests,
    source: asyncio.StreamReader,
    output: Output,
    silence_limit_s: float,
) -> str:
    arrived_bytes = 0
    try:
        file = await FileOnItsWay.open(directory, part, digests)
        arrived_bytes = file.offset
        try:
            output.send(msgspec.json.encode(Wanted(file.offset)) + b"\n")
            while arrived_bytes < part.size_bytes:
                data = await _next(source, part, arrived_bytes, silence_limit_s)
                await file.write(data)
                arrived_bytes += len(data)
            return await file.finish()
        finally:
            await file.aclose()
    except DiskFullError as error:
        free_mib = shutil.disk_usage(directory).free // MIB
        raise HostDiskFullError(
            f"{opening.host or 'the host'} has no space for {part.file_name}: it needs "
            f"{-((arrived_bytes - part.size_bytes) // MIB):,} MiB more, and {free_mib:,} MiB are free in {directory}",
            hint=f"Make room there and copy it again: {arrived_bytes // MIB:,} MiB of it have arrived and are kept.",
        ) from error


async def _next(source: asyncio.StreamReader, part: FilePart, arrived_bytes: int, silence_limit_s: float) -> bytes:
    async with asyncio.timeout(silence_limit_s):
        data = await source.read(min(TRANSFER_CHUNK_BYTES, part.size_bytes - arrived_bytes))
    if not data:
        raise TransferBrokenError(f"{part.file_name} ended after {arrived_bytes:,} of {part.size_bytes:,} bytes")
    return data


def _part_of(opening: Opening) -> FilePart:
    if not _DIRECTORY.fullmatch(opening.directory):
        raise InvalidValueError(f"{opening.directory!r} is no model's directory", param="directory")
    if opening.size_bytes <= 0:
        raise InvalidValueError(f"a model file cannot have {opening.size_bytes} bytes", param="size_bytes")
    facts = {"file_name": opening.name, "size_bytes": opening.size_bytes, "sha256": opening.sha256}
    try:
        return msgspec.convert(facts, FilePart)
    except msgspec.ValidationError as error:
        raise InvalidValueError(f"the file to take is described wrongly: {error}") from error


@asynccontextmanager
async def _only_one(path: Path) -> AsyncIterator[None]:
    """Hold the lock of one file; a second transfer of it waits, and finds it there when the first one was good."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            async with asyncio.timeout(LOCK_WAIT_S):
                while not _locks(descriptor):  # noqa: ASYNC110 - nobody tells when a file lock is free
                    await asyncio.sleep(LOCK_LOOK_S)
        except TimeoutError:
            raise ConflictError(
                f"another connection has been sending {path.parent.name}/{path.name[1:-5]} for {LOCK_WAIT_S:g} s",
                hint="Wait until it is there.",
            ) from None
        yield
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - one system call; who waits for the lock finds the whole file
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
