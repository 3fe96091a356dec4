"""The model files of the machine that this process runs on."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from swarmesh.config.home import Home
from swarmesh.core.errors import ConflictError, ModelFileError, ModelNotFoundError
from swarmesh.models.catalog import DEMO_NAME, Catalog
from swarmesh.models.digests import Digests
from swarmesh.models.gguf import GgufHeader, read_model, split_name, split_paths
from swarmesh.models.local_transfer import FileGoingOut, FileOnItsWay
from swarmesh.models.modelcell import ModelSource, check_name
from swarmesh.models.scan import ScanRoot, candidates, roots_of_this_machine, scan
from swarmesh.models.shelf import (
    FILE_NAME_CHARACTERS_MAX,
    FilePart,
    Incoming,
    ModelFiles,
    OnBytes,
    Outgoing,
)
from swarmesh.wire.hosts import FoundView

_ENDING: Final = ".gguf"
_STEM_CHARACTERS_MAX: Final = FILE_NAME_CHARACTERS_MAX - len("-00001-of-00001.gguf")
_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


class LocalShelf:
    """See `swarmesh.models.shelf.Shelf`. What reads a disk does so in threads.

    ``roots`` are the usual places to look through.
    """

    def __init__(self, home: Home, *, roots: Callable[[], Sequence[ScanRoot]] = roots_of_this_machine) -> None:
        self._home = home
        self._roots = roots
        self._catalog = Catalog(home.root)
        self._digests = Digests(home)

    async def path_of(self, modelcell: str) -> str:
        """See the protocol."""
        try:
            path = (await asyncio.to_thread(self._catalog.get, modelcell)).path
        except ModelNotFoundError:
            return ""
        return str(path) if path is not None and await asyncio.to_thread(path.is_file) else ""

    async def find(self, model: ModelFiles) -> str:
        """See the protocol."""
        copy = self._copy_of(model)
        if await self._holds(copy, model):
            return await self._known(model, copy, ModelSource.COPY)
        for places in (self._catalogued, self._lying_around):
            for path in await asyncio.to_thread(places, model):
                if await self._holds(path, model):
                    return await self._known(model, path, ModelSource.SCAN)
        return ""

    async def header(self, path: str) -> GgufHeader:
        """See the protocol."""
        return await asyncio.to_thread(read_model, Path(path))

    async def identify(self, modelcell: str, path: str, on_bytes: OnBytes | None = None) -> ModelFiles:
        """See the protocol."""
        header = await self.header(path)
        paths = split_paths(Path(path), header.split_parts) if header.split_parts > 1 else [Path(path)]
        names = _file_names(modelcell, paths)
        parts: list[FilePart] = []
        for file_name, part in zip(names, paths, strict=True):
            before = sum(known.size_bytes for known in parts)
            sha256 = await self._digests.of(part, _beyond(before, header.size_bytes, on_bytes))
            size_bytes = await asyncio.to_thread(_size_of, part)
            parts.append(FilePart(file_name=file_name, size_bytes=size_bytes, sha256=sha256))
        return ModelFiles(modelcell=modelcell, parts=tuple(parts))

    async def keep(self, model: ModelFiles) -> str:
        """See the protocol."""
        check_name(model.modelcell)
        first = self._copy_of(model)
        for part, path in zip(model.parts, model.paths(first), strict=True):
            size_bytes = await asyncio.to_thread(_size_of, path)
            if size_bytes != part.size_bytes:
                raise ModelFileError(
                    f"{path} has {max(size_bytes, 0):,} bytes of the {part.size_bytes:,} it should have.",
                    hint="Copy the model again.",
                )
            await self._digests.remember(path, part.sha256)
        await self.header(str(first))
        return await self._known(model, first, ModelSource.COPY)

    async def scan(self) -> list[FoundView]:
        """See the protocol."""
        return await asyncio.to_thread(self._scan)

    async def send(self, path: str, offset: int) -> Outgoing:
        """See the protocol."""
        return await FileGoingOut.open(Path(path), offset)

    async def receive(self, model: ModelFiles, part: FilePart) -> Incoming:
        """See the protocol."""
        return await FileOnItsWay.open(self._home.models_dir / model.directory, part, self._digests)

    def _copy_of(self, model: ModelFiles) -> Path:
        return self._home.models_dir / model.directory / model.parts[0].file_name

    async def _holds(self, first: Path, model: ModelFiles) -> bool:
        """Whether the parts that begin at this path are those of the model; sizes first, they cost nothing."""
        try:
            parts = list(zip(model.parts, model.paths(first), strict=True))
            sizes = await asyncio.to_thread(lambda: [_size_of(path) for _, path in parts])
            if sizes != [part.size_bytes for part in model.parts]:
                return False
            for part, path in parts:
                if await self._digests.of(path) != part.sha256:
                    return False
        except ModelFileError:
            return False
        return True

    def _catalogued(self, model: ModelFiles) -> list[Path]:
        cells = sorted(self._catalog.list(), key=lambda cell: cell.name != model.modelcell)
        return [path for cell in cells if (path := cell.path) is not None and _may_be(path, model)]

    def _lying_around(self, model: ModelFiles) -> list[Path]:
        found = [file for file in candidates(self._roots()) if _may_be(file.path, model)]
        # What is named by the right digest needs no reading.
        return [file.path for file in sorted(found, key=lambda file: file.sha256 != model.parts[0].sha256)]

    async def _known(self, model: ModelFiles, path: Path, source: ModelSource) -> str:
        """See to it that the catalog has the model's name for this file, unless its owner has another use for it."""
        await asyncio.to_thread(self._add, model, path, source)
        return str(path)

    def _add(self, model: ModelFiles, path: Path, source: ModelSource) -> None:
        if model.modelcell == DEMO_NAME:
            return
        known = next((cell for cell in self._catalog.list() if cell.name == model.modelcell), None)
        if known is not None:
            ours = known.source is ModelSource.COPY or (known.path is not None and not known.path.is_file())
            if known.path == path or not ours:
                return
        self._catalog.add_file(
            model.modelcell,
            path,
            added_at=time.time(),
            source=source,
            sha256=model.parts[0].sha256 if len(model.parts) == 1 else None,
            replace=known is not None,
        )

    def _scan(self) -> list[FoundView]:
        found = []
        for model in scan(self._roots(), self._catalog.list()).found:
            name = model.known_as or self._scanned(model.name, model.path, model.sha256)
            found.append(
                FoundView(
                    host="",
                    name=name or model.name,
                    path=str(model.path),
                    origin=model.origin,
                    architecture=model.header.architecture,
                    parameters=model.header.parameters,
                    size_bytes=model.header.size_bytes,
                    sha256=model.sha256 or "",
                    known_as=name,
                )
            )
        return found

    def _scanned(self, name: str, path: Path, sha256: str | None) -> str:
        try:
            self._catalog.add_file(name, path, added_at=time.time(), source=ModelSource.SCAN, sha256=sha256)
        except (ConflictError, ModelFileError):
            return ""  # Another scan has taken the name, or the file has just gone: the next scan sees how it is.
        return name


def _file_names(modelcell: str, paths: Sequence[Path]) -> Iterator[str]:
    """Names that any machine takes, like the files' own; a blob, which has none, gets the modelcell's."""
    named = split_name(paths[0].name)
    if named is not None and len(paths) > 1:
        stem = _clean(named[0])
        return (f"{stem}-{part:05}-of-{len(paths):05}{_ENDING}" for part in range(1, len(paths) + 1))
    own = paths[0].stem if paths[0].suffix.lower() == _ENDING else modelcell
    return iter([f"{_clean(own)}{_ENDING}"])


def _clean(stem: str) -> str:
    return _NOT_IN_FILE_NAMES.sub("-", stem).strip(".-")[:_STEM_CHARACTERS_MAX] or "model"


def _may_be(path: Path, model: ModelFiles) -> bool:
    return _size_of(path) == model.parts[0].size_bytes


def _size_of(path: Path) -> int:
    """-1 for a file that is not there."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1


def _beyond(before_bytes: int, total_bytes: int, on_bytes: OnBytes | None) -> OnBytes | None:
    """Progress of one part as progress of all."""
    if on_bytes is None:
        return None
    return lambda done_bytes, _: on_bytes(before_bytes + done_bytes, total_bytes)
