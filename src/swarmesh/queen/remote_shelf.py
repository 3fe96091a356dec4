"""The model files of another machine, over the session and transfers of its connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec

from swarmesh.core.errors import ModelFileError, SwarmeshError
from swarmesh.hosts.said import UNREADABLE, plain_value, steers
from swarmesh.hosts.ssh_errors import HostUnreachableError
from swarmesh.models.gguf import GgufHeader
from swarmesh.models.shelf import (
    TRANSFER_CHUNK_BYTES,
    FilePart,
    Incoming,
    ModelFiles,
    OnBytes,
    Outgoing,
    TransferBrokenError,
)
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.hosts import FoundView
from swarmesh.wire.session import FileSize, Kept, Opening, Purpose, Wanted

T = TypeVar("T")
OPENING_LIMIT_S: Final = 60.0
"""Connecting, starting Python there, and waiting for an earlier transfer of the same file that nobody ends any more."""
SILENCE_LIMIT_S: Final = 30.0
"""A transfer in which nothing moves for so long is lost; the next one goes on from what has arrived."""


class Transfer(Protocol):
    """A connection for the bytes of one file; see `swarmesh.hosts.remote_process.RemoteProcess`."""

    async def read(self, type: type[T]) -> T:  # noqa: A002 - msgspec's own name for it
        """The next line as a value."""

    async def line(self) -> bytes:
        """The next line, which may be an error to raise."""

    async def send(self, data: bytes) -> None:
        """Write, at the pace it is read."""

    async def close(self) -> int:
        """End it."""

    def kill(self) -> None:
        """End it at once; `close` still has to be called."""

    async def bytes(self, size_max: int) -> bytes:
        """Raw bytes; empty at the end."""


class SessionCaller(Protocol):
    """A machine with a connection that is kept; see `swarmesh.hosts.ssh_host.SshHost`."""

    async def call(
        self,
        name: str,
        args: Mapping[str, Any],
        type: type[T],  # noqa: A002 - msgspec's own name for it
        on_progress: Callable[[bytes], None] | None = None,
    ) -> T:
        """One call of its session."""

    async def open_transfer(self, opening: Opening) -> Transfer:
        """A connection of its own, on which ``opening`` has been sent."""


class HashedBytes(msgspec.Struct, frozen=True):
    """A note of progress of ``identify``."""

    done_bytes: Annotated[int, msgspec.Meta(ge=0)]
    total_bytes: Annotated[int, msgspec.Meta(ge=0)]


class RemoteShelf:
    """See `swarmesh.models.shelf.Shelf`. Any method may raise what the caller raises.

    ``hive`` is which hive's models on that machine are meant, see `swarmesh.config.worker_key.hive_id`.
    """

    def __init__(self, caller: SessionCaller, *, hive: str) -> None:
        self._caller = caller
        self._hive = hive

    async def path_of(self, modelcell: str) -> str:
        """See the protocol."""
        return await self._caller.call("path_of", {"modelcell": modelcell}, str)

    async def find(self, model: ModelFiles) -> str:
        """See the protocol."""
        return await self._caller.call("find", {"model": model}, str)

    async def header(self, path: str) -> GgufHeader:
        """See the protocol."""
        return await self._caller.call("header", {"path": path}, GgufHeader)

    async def identify(self, modelcell: str, path: str, on_bytes: OnBytes | None = None) -> ModelFiles:
        """See the protocol."""

        def progress(note: bytes) -> None:
            # Another version may tell something else on the way; what counts is the answer.
            with contextlib.suppress(*UNREADABLE):
                hashed = msgspec.json.decode(note, type=HashedBytes)
                if on_bytes is not None:
                    on_bytes(hashed.done_bytes, hashed.total_bytes)

        return await self._caller.call("identify", {"modelcell": modelcell, "path": path}, ModelFiles, progress)

    async def keep(self, model: ModelFiles) -> str:
        """See the protocol."""
        return await self._caller.call("keep", {"model": model}, str)

    async def scan(self) -> list[FoundView]:
        """See the protocol."""
        found = await self._caller.call("scan", {}, list[FoundView])
        # A path is asked for as it is shown; one that would steer a terminal is not offered.
        return [plain_value(file) for file in found if not steers(file.path)]

    async def send(self, path: str, offset: int) -> Outgoing:
        """See the protocol."""
        transfer, size = await self._open(
            Opening(purpose=Purpose.SEND, hive=self._hive, path=path, offset=offset), FileSize
        )
        return BytesFromThere(transfer, size.size_bytes - offset)

    async def receive(self, model: ModelFiles, part: FilePart) -> Incoming:
        """See the protocol."""
        opening = Opening(
            purpose=Purpose.RECEIVE,
            hive=self._hive,
            name=part.file_name,
            size_bytes=part.size_bytes,
            sha256=part.sha256,
            directory=model.directory,
        )
        transfer, wanted = await self._open(opening, Wanted)
        if not 0 <= wanted.offset <= part.size_bytes:
            transfer.kill()
            await transfer.close()
            raise ModelFileError(f"the host asks for byte {wanted.offset:,} of {part.size_bytes:,}.")
        return BytesToThere(transfer, wanted.offset)

    async def _open(self, opening: Opening, answer: type[T]) -> tuple[Transfer, T]:
        async with _broken(), asyncio.timeout(OPENING_LIMIT_S):
            transfer = await self._caller.open_transfer(opening)
            try:
                return transfer, await transfer.read(answer)
            except BaseException:
                transfer.kill()
                await transfer.close()
                raise


class BytesFromThere:
    """See `swarmesh.models.shelf.Outgoing`."""

    def __init__(self, transfer: Transfer, size_bytes: int) -> None:
        self._transfer = transfer
        self.size_bytes = size_bytes
        self._left_bytes = size_bytes

    async def read(self) -> bytes:
        """See the protocol."""
        if not self._left_bytes:
            return b""
        async with _broken(), asyncio.timeout(SILENCE_LIMIT_S):
            data = await self._transfer.bytes(min(TRANSFER_CHUNK_BYTES, self._left_bytes))
            if not data:
                await self._transfer.line()  # Says why it ended.
        self._left_bytes -= len(data)
        return data

    async def aclose(self) -> None:
        """See the protocol."""
        if self._left_bytes:
            self._transfer.kill()
        await self._transfer.close()


class BytesToThere:
    """See `swarmesh.models.shelf.Incoming`."""

    def __init__(self, transfer: Transfer, offset: int) -> None:
        self._transfer = transfer
        self._kept = False
        self.offset = offset

    async def write(self, data: bytes) -> None:
        """See the protocol."""
        async with _broken(), asyncio.timeout(SILENCE_LIMIT_S):
            try:
                await self._transfer.send(data)
            except ConnectionError:
                await self._transfer.line()  # Says why it takes no more.
                raise

    async def finish(self) -> str:
        """See the protocol."""
        async with _broken():
            kept = await self._transfer.read(Kept)
        self._kept = True
        return kept.path

    async def aclose(self) -> None:
        """See the protocol."""
        if not self._kept:
            self._transfer.kill()
        await self._transfer.close()


@asynccontextmanager
async def _broken() -> AsyncIterator[None]:
    """What the other side says passes, and what time does not mend; all else means that the connection is lost."""
    try:
        yield
    except TransferBrokenError:
        raise
    except SwarmeshError as error:
        told = isinstance(error, RemoteError) and error.code != TransferBrokenError.code
        if told or (isinstance(error, HostUnreachableError) and not error.passing):
            raise
        raise TransferBrokenError(error.message, hint=error.hint) from error
    except OSError as error:
        said = str(error) or "nothing moved for too long"
        raise TransferBrokenError(f"the connection broke: {said}") from error
