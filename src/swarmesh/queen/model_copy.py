"""Copying a model's files from one machine to another, through the queen, so that cuts cost only what was in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final

import msgspec

from swarmesh.core.errors import ModelFileError
from swarmesh.models.shared_work import SharedWork
from swarmesh.models.shelf import TRANSFER_CHUNK_BYTES, FilePart, ModelFiles, Shelf, TransferBrokenError
from swarmesh.queen.paced_steps import OnStep, PacedSteps
from swarmesh.wire.hosts import Step

COPIES_AT_ONCE: Final = 3
"""A copy holds a connection to each of two machines, which take four: with one for the session, copies in opposite
directions can never wait for one another."""
TRIES_MAX: Final = 10
"""In a row that brought nothing: a machine that comes back within most of a minute is waited for."""
PAUSE_S: Final = 0.5
PAUSE_MAX_S: Final = 8.0

Pause = Callable[[float], Awaitable[None]]


class Place(msgspec.Struct, frozen=True):
    """A model's first file on a machine."""

    host: str
    shelf: Shelf
    path: str


class ModelCopies:
    """Every copy of this queen; those of the same model to the same machine are one."""

    def __init__(self, *, pause: Pause = asyncio.sleep) -> None:
        self._pause = pause
        self._running: SharedWork[Step, int] = SharedWork()
        self._at_once = asyncio.Semaphore(COPIES_AT_ONCE)

    async def copy(self, model: ModelFiles, source: Place, host: str, target: Shelf, on_step: OnStep) -> int:
        """Bring every part to ``host``, whose shelf ``target`` is; the bytes that were missing there.

        The parts still have to be kept there. Steps are ``copy`` and ``check``. What was sent before a caller is
        cancelled stays for the next one.

        Raises:
            ModelFileError: The source's file cannot be read, or has changed.
            DigestMismatchError: It arrived with another content.
            DiskFullError: It does not fit.
            TransferBrokenError: The connection broke again and again.
            RemoteError: Any of these as the other machine reports it.
        """
        return await self._running.join(
            f"{host} {model.directory}", lambda tell: _Copy(model, source, host, target, tell, self).run(), on_step
        )

    async def part(self, copy: _Copy, part: FilePart, path: Path) -> None:
        """Copy one part, again and again while the connection breaks."""
        tries, arrived_bytes = 0, -1
        while True:
            try:
                async with self._at_once:
                    return await copy.attempt(part, path)
            except TransferBrokenError as error:
                came_further = copy.part_bytes >= arrived_bytes + TRANSFER_CHUNK_BYTES
                tries = 1 if came_further else tries + 1
                arrived_bytes = max(arrived_bytes, copy.part_bytes)
                if tries >= TRIES_MAX:
                    raise TransferBrokenError(
                        f"copying {part.file_name} to {copy.host} broke {tries} times: {error.message}"
                    ) from error
            await self._pause(min(PAUSE_S * 2 ** (tries - 1), PAUSE_MAX_S))


class _Copy:
    """One model on its way to one machine."""

    def __init__(
        self, model: ModelFiles, source: Place, host: str, target: Shelf, on_step: OnStep, copies: ModelCopies
    ) -> None:
        self.host = host
        self.part_bytes = 0
        self._model = model
        self._source = source
        self._target = target
        self._copies = copies
        self._before_bytes = 0
        self._sent_bytes = 0
        self._missing_bytes = -1
        self._copying = PacedSteps("copy", f"{model.modelcell} from {source.host} to {host}", on_step)
        self._checking = PacedSteps("check", f"SHA-256 on {host}", on_step)

    async def run(self) -> int:
        paths = self._model.paths(Path(self._source.path))
        for part, path in zip(self._model.parts, paths, strict=True):
            self._missing_bytes = -1
            await self._copies.part(self, part, path)
            self._before_bytes += part.size_bytes
            self._sent_bytes += self._missing_bytes
        self._copying.done(self._model.size_bytes)
        self._checking.done(self._model.size_bytes)
        return self._sent_bytes

    async def attempt(self, part: FilePart, path: Path) -> None:
        async with aclosing(await self._target.receive(self._model, part)) as incoming:
            self.part_bytes = incoming.offset
            if self._missing_bytes < 0:
                self._missing_bytes = part.size_bytes - incoming.offset
            self._report()
            if incoming.offset < part.size_bytes:
                async with aclosing(await self._source.shelf.send(str(path), incoming.offset)) as outgoing:
                    if outgoing.size_bytes != part.size_bytes - incoming.offset:
                        raise ModelFileError(
                            f"{path} on {self._source.host} has another size than {part.size_bytes:,} bytes now.",
                            hint="Ask again: it is looked at anew.",
                        )
                    while data := await outgoing.read():
                        await incoming.write(data)
                        self.part_bytes += len(data)
                        self._report()
            self._checking.bytes(self._before_bytes, self._model.size_bytes)
            await incoming.finish()

    def _report(self) -> None:
        self._copying.bytes(self._before_bytes + self.part_bytes, self._model.size_bytes)
