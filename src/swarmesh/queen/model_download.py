"""Models of Hugging Face repositories, downloaded once for the whole swarm and added to the queen's catalog."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from swarmesh.core.errors import SwarmeshError
from swarmesh.models import hub
from swarmesh.models.catalog import Catalog
from swarmesh.models.gguf import split_name
from swarmesh.models.modelcell import Modelcell, ModelSource
from swarmesh.models.proposed_name import propose_names
from swarmesh.models.shared_work import SharedWork
from swarmesh.queen.paced_steps import OnStep, PacedSteps
from swarmesh.wire.hosts import Step

STEP: Final = "download"


class DownloadLeftError(SwarmeshError):
    """Nobody waits for this download any more."""

    code = "download_left"


class ModelDownloads:
    """Every download of this queen; those of the same file are one. What has arrived of a broken one is kept."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._running: SharedWork[Step, Modelcell] = SharedWork()

    async def known(self, reference: str) -> Modelcell | None:
        """The modelcell that was downloaded from there, if its file is still there."""
        return await asyncio.to_thread(self._known, reference)

    async def fetch(self, reference: str, on_step: OnStep) -> Modelcell:
        """The modelcell of ``hf:ORG/REPOSITORY/FILE.gguf``, downloaded if need be; all parts, if it is split.

        It gets a short name of its own. The one step is ``download``.

        Raises:
            InvalidValueError: It is no such reference.
            MissingExtraError: The package that downloads is not installed.
            NotFoundError: There is no such file, or this user may not see it.
            DownloadError: It did not arrive.
            ModelFileError: What arrived cannot be served.
        """
        wanted = hub.parse_reference(reference)
        known = await self.known(reference)
        if known is not None:
            return known
        return await self._running.join(reference, lambda tell: self._fetch(reference, wanted, tell), on_step)

    async def _fetch(self, reference: str, wanted: hub.HubFile, on_step: OnStep) -> Modelcell:
        parts = _parts(wanted)
        paths = [await _download(part, on_step, number, len(parts)) for number, part in enumerate(parts, 1)]
        return await asyncio.to_thread(self._add, reference, wanted, paths[0])

    def _known(self, reference: str) -> Modelcell | None:
        for cell in self._catalog.list():
            if cell.hub == reference and cell.path is not None and cell.path.is_file():
                return cell
        return None

    def _add(self, reference: str, wanted: hub.HubFile, path: Path) -> Modelcell:
        cells = self._catalog.list()
        # The file of a modelcell has come back, or somebody has added the same file by hand.
        name = next((cell.name for cell in cells if cell.hub == reference or cell.path == path), "")
        if not name:
            (name,) = propose_names([Path(wanted.file).stem], taken={cell.name for cell in cells})
        return self._catalog.add_file(
            name, path, added_at=time.time(), source=ModelSource.HUB, hub=reference, replace=True
        )


async def _download(part: hub.HubFile, on_step: OnStep, number: int, count: int) -> Path:
    text = f"{part.repository}/{part.file}" + (f" ({number} of {count})" if count > 1 else "")
    steps = PacedSteps(STEP, text, on_step)
    path = await _in_thread(part, steps.bytes)
    steps.done((await asyncio.to_thread(path.stat)).st_size)
    return path


async def _in_thread(part: hub.HubFile, on_bytes: Callable[[int, int], None]) -> Path:
    """Download in a thread, which is told to end when the caller is cancelled."""
    loop = asyncio.get_running_loop()
    left = threading.Event()

    def report(done_bytes: int, total_bytes: int) -> None:
        if left.is_set():
            raise DownloadLeftError
        loop.call_soon_threadsafe(on_bytes, done_bytes, total_bytes)

    try:
        return await asyncio.to_thread(hub.download, part, on_progress=report)
    finally:
        left.set()


def _parts(wanted: hub.HubFile) -> list[hub.HubFile]:
    directory, slash, file_name = wanted.file.rpartition("/")
    named = split_name(file_name)
    if named is None:
        return [wanted]
    stem, _, count = named
    names = [f"{directory}{slash}{stem}-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1)]
    return [hub.HubFile(wanted.repository, name) for name in names]
