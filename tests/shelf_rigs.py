"""Model shelves for tests: model files to put on them, and other machines that are none."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gguf_writer import Typed, llama
from shell_here import ended
from swarmesh.config.home import Home
from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts.remote_process import RemoteProcess
from swarmesh.hosts.session_client import SessionClient
from swarmesh.models.local_shelf import LocalShelf
from swarmesh.models.scan import Origin, ScanRoot
from swarmesh.models.shelf import FilePart, Incoming, ModelFiles, Outgoing
from swarmesh.queen.remote_shelf import Transfer
from swarmesh.wire.errors import RemoteError, error_body
from swarmesh.wire.session import LINE_BYTES_MAX, FileSize, Kept, Opening, Purpose, Wanted

HIVE = "0123456789ab"
T = TypeVar("T")


def model_bytes(name: str = "Tiny", padding: int = 0) -> bytes:
    """A model file; tensors may be followed by anything, so ``padding`` makes a large one."""
    return llama(name).build() + os.urandom(padding)


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def put_split(directory: Path, stem: str, parts: int = 3) -> Path:
    """A model in several files; the path of the first."""
    for number in range(parts):
        extra = {"split.no": Typed("u16", number), "split.count": Typed("u16", parts)}
        put(directory / f"{stem}-{number + 1:05}-of-{parts:05}.gguf", llama("Split", extra).build() + bytes([number]))
    return directory / f"{stem}-00001-of-{parts:05}.gguf"


def files_of(modelcell: str, path: Path) -> ModelFiles:
    content = path.read_bytes()
    part = FilePart(file_name=path.name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    return ModelFiles(modelcell=modelcell, parts=(part,))


async def copy_in(shelf: Any, model: ModelFiles, content: bytes) -> str:
    """Put the one part of a model on a shelf, as a copy does."""
    incoming = await shelf.receive(model, model.parts[0])
    try:
        await incoming.write(content[incoming.offset :])
        return str(await incoming.finish())
    finally:
        await incoming.aclose()


def local_shelf(root: Path) -> LocalShelf:
    """A machine in a directory: its home, and ``hub`` as the one usual place."""
    return LocalShelf(Home(root / "home"), roots=lambda: (ScanRoot(Origin.HUGGING_FACE, root / "hub"),))


class CutError(SwarmeshError):
    """The connection broke."""


class FakeCaller:
    """A machine in this process. ``cuts`` are bytes after which its next transfers break; None for one that holds."""

    def __init__(self, shelf: LocalShelf, cuts: list[int | None] | None = None) -> None:
        self.shelf = shelf
        self.cuts = cuts or []
        self.calls: list[str] = []
        self.openings: list[Opening] = []
        self.offsets: list[int] = []
        self.moved_bytes = 0
        self.opened = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(
        self,
        name: str,
        args: Mapping[str, Any],
        type: type[T],  # noqa: A002 - msgspec's own name for it
        on_progress: Callable[[bytes], None] | None = None,
    ) -> T:
        self.calls.append(name)
        args = {key: value if isinstance(value, str) else self._decoded(value) for key, value in args.items()}
        if name == "identify" and on_progress is not None:
            args["on_bytes"] = lambda done, total: on_progress(
                msgspec.json.encode({"done_bytes": done, "total_bytes": total})
            )
        result = await getattr(self.shelf, name)(**args)
        return msgspec.json.decode(msgspec.json.encode(result), type=type)

    async def open_transfer(self, opening: Opening) -> Transfer:
        self.openings.append(opening)
        self.opened.set()
        return FakeTransfer(self, opening, self.cuts.pop(0) if self.cuts else None)

    def _decoded(self, value: object) -> ModelFiles:
        return msgspec.json.decode(msgspec.json.encode(value), type=ModelFiles)


class FakeTransfer:
    """A connection for one file, to a machine in this process."""

    def __init__(self, caller: FakeCaller, opening: Opening, cut_bytes: int | None) -> None:
        self._caller = caller
        self._opening = opening
        self._cut_bytes = cut_bytes
        self._outgoing: Outgoing | None = None
        self._incoming: Incoming | None = None

    async def read(self, type: type[T]) -> T:  # noqa: A002 - msgspec's own name for it
        try:
            return msgspec.convert(await self._answer(type), type, from_attributes=True)
        except CutError:
            raise
        except SwarmeshError as error:
            raise RemoteError(error_body(error), error.status) from error

    async def line(self) -> bytes:
        raise CutError("it ended with 255: connection reset")

    async def send(self, data: bytes) -> None:
        await self._caller.gate.wait()
        assert self._incoming is not None
        data = self._cut(data)
        await self._incoming.write(data)
        self._caller.moved_bytes += len(data)
        if self._cut_bytes == 0:
            raise ConnectionResetError("reset")

    async def _answer(self, wanted: object) -> object:
        opening, shelf = self._opening, self._caller.shelf
        if self._cut_bytes == 0:
            raise CutError("it ended with 255: connection refused")
        if wanted is Kept:
            assert self._incoming is not None
            return Kept(await self._incoming.finish())
        self._caller.offsets.append(opening.offset)
        if opening.purpose is Purpose.SEND:
            self._outgoing = await shelf.send(opening.path, opening.offset)
            return FileSize(opening.offset + self._outgoing.size_bytes)
        part = FilePart(file_name=opening.name, size_bytes=opening.size_bytes, sha256=opening.sha256)
        names_directory = msgspec.structs.replace(part, sha256=opening.directory.ljust(64, "0"))
        model = ModelFiles(modelcell="unsaid", parts=(names_directory,))
        self._incoming = await shelf.receive(model, part)
        self._caller.offsets[-1] = self._incoming.offset
        return Wanted(self._incoming.offset)

    def _cut(self, data: bytes) -> bytes:
        if self._cut_bytes is None:
            return data
        data = data[: self._cut_bytes]
        self._cut_bytes -= len(data)
        return data

    async def close(self) -> int:
        for file in (self._outgoing, self._incoming):
            if file is not None:
                await file.aclose()
        return 0

    def kill(self) -> None:
        pass

    async def bytes(self, size_max: int) -> bytes:
        await self._caller.gate.wait()
        assert self._outgoing is not None
        data = self._cut(await self._outgoing.read())
        self._caller.moved_bytes += len(data)
        return data


class CallerHere:
    """A machine that is another process here, with a private HOME: what a host runs, without SSH."""

    def __init__(self, user_home: Path, session: SessionClient) -> None:
        self._user_home = user_home
        self._session = session

    async def call(
        self,
        name: str,
        args: Mapping[str, Any],
        type: type[T],  # noqa: A002 - msgspec's own name for it
        on_progress: Callable[[bytes], None] | None = None,
    ) -> T:
        return await self._session.call(name, args, type, on_progress)

    async def open_transfer(self, opening: Opening) -> Transfer:
        process = await _remote(self._user_home)
        await process.send(msgspec.json.encode(opening) + b"\n")
        return process


@asynccontextmanager
async def caller_here(user_home: Path) -> AsyncIterator[CallerHere]:
    process = await _remote(user_home)
    session = await SessionClient.open(process, Opening(purpose=Purpose.SESSION, hive=HIVE, host="here"))
    running = asyncio.create_task(session.run())
    try:
        yield CallerHere(user_home, session)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await process.close()


async def _remote(user_home: Path) -> RemoteProcess:
    await asyncio.to_thread(user_home.mkdir, parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "swarmesh.remote",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
        env={"PATH": os.environ["PATH"], "HOME": str(user_home), "TMPDIR": tempfile.gettempdir()},
    )
    return RemoteProcess(process, ended)
