"""Asks for model files of hub references, all at once, as spawns do: ``python model_wanter.py HOME REFERENCE...``.

A process of its own, because ``huggingface_hub`` reads its settings once. Prints one JSON list of what came of each.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec

from shelf_rigs import HIVE, FakeCaller, local_shelf
from swarmesh.config.home import Home
from swarmesh.core.errors import SwarmeshError
from swarmesh.models.local_shelf import LocalShelf
from swarmesh.models.shelf import Shelf
from swarmesh.queen.model_files import ModelFilesService
from swarmesh.queen.remote_shelf import RemoteShelf
from swarmesh.wire.hosts import Step


class Machines:
    """The queen's, and one more."""

    def __init__(self, root: Path) -> None:
        self._local = LocalShelf(Home(root / "home"), roots=lambda: ())
        self._other = FakeCaller(local_shelf(root / "other"))

    def names(self) -> list[str]:
        return ["localhost", "other"]

    reachable = names

    def shelf(self, name: str) -> Shelf:
        return self._local if name == "localhost" else RemoteShelf(self._other, hive=HIVE)

    def proximity(self, name: str) -> float:
        return 0.5

    def free(self, name: str) -> list[tuple[str, int, int]]:
        return []


async def want(service: ModelFilesService, reference: str, host: str) -> dict[str, Any]:
    steps: list[Step] = []
    try:
        path = await service.ensure(reference, host, steps.append)
    except SwarmeshError as error:
        return {"code": error.code, "message": error.message, "hint": error.hint}
    name = (await service.cell(reference, steps.append)).name
    return {"path": path, "name": name, "steps": steps}


async def main(root: Path, references: list[str]) -> None:
    service = ModelFilesService(Home(root / "home"), Machines(root))
    hosts = ["localhost", "other"]
    wants = (want(service, reference, hosts[number % 2]) for number, reference in enumerate(references))
    print(msgspec.json.encode(await asyncio.gather(*wants)).decode())


asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
