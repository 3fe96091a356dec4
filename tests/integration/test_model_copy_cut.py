"""Copies to and from another process whose connections are killed on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shelf_rigs import HIVE, CallerHere, caller_here, files_of, local_shelf, model_bytes, put, read
from swarmesh.models.shelf import ModelFiles
from swarmesh.queen.model_copy import ModelCopies, Place
from swarmesh.queen.remote_shelf import RemoteShelf, Transfer
from swarmesh.wire.hosts import Step
from swarmesh.wire.session import Opening

SIZE_BYTES = 60_000_000


class Killed:
    """Kills the open transfer whenever so many bytes of the model have passed."""

    def __init__(self, caller: CallerHere, at_bytes: list[int]) -> None:
        self.openings: list[Opening] = []
        self.steps: list[Step] = []
        self._caller = caller
        self._at_bytes = at_bytes
        self.call = caller.call

    async def open_transfer(self, opening: Opening) -> Transfer:
        self.openings.append(opening)
        return Counted(await self._caller.open_transfer(opening), self._at_bytes)


class Counted:
    """A transfer that is killed when so many bytes have passed, in this transfer and those before it."""

    passed_bytes = 0
    _killed = False

    def __init__(self, transfer: Transfer, at_bytes: list[int]) -> None:
        self._transfer = transfer
        self._at_bytes = at_bytes
        self.read, self.line = transfer.read, transfer.line
        self.close, self.kill = transfer.close, transfer.kill

    async def bytes(self, size_max: int) -> bytes:
        data = await self._transfer.bytes(size_max)
        self._count(len(data))
        return data

    async def send(self, data: bytes) -> None:
        await self._transfer.send(data)
        self._count(len(data))

    def _count(self, size_bytes: int) -> None:
        self.passed_bytes += size_bytes
        if self._at_bytes and not self._killed and self.passed_bytes >= self._at_bytes[0]:
            self._at_bytes.pop(0)
            self._killed = True  # What is sent now is swallowed by a buffer that nobody reads.
            self._transfer.kill()


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[CallerHere]:
    async with caller_here(tmp_path / "user") as caller:
        yield caller


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, ModelFiles]:
    file = put(tmp_path / "user" / ".cache" / "huggingface" / "hub" / "m.gguf", model_bytes(padding=SIZE_BYTES))
    return file, files_of("m", file)


def pauses() -> ModelCopies:
    return ModelCopies(pause=lambda _seconds: asyncio.sleep(0.05))


async def test_a_host_that_is_cut_off_gets_the_rest_later(
    host: CallerHere, model: tuple[Path, ModelFiles], tmp_path: Path
) -> None:
    file, files = model
    killed = Killed(host, [1, 20_000_000, 20_000_000])
    target = RemoteShelf(killed, hive=HIVE)
    source = Place("localhost", local_shelf(tmp_path / "queen"), str(file))
    await pauses().copy(files, source, "here", target, killed.steps.append)
    path = await target.keep(files)
    assert read(path) == read(str(file))
    assert len(killed.openings) == 4
    copying = [step.done_bytes for step in killed.steps if step.step == "copy"]
    assert copying[-1] == files.size_bytes


async def test_so_does_the_queen_from_a_host(host: CallerHere, model: tuple[Path, ModelFiles], tmp_path: Path) -> None:
    file, files = model
    killed = Killed(host, [1, 30_000_000])
    target = local_shelf(tmp_path / "queen")
    source = Place("here", RemoteShelf(killed, hive=HIVE), str(file))
    await pauses().copy(files, source, "localhost", target, killed.steps.append)
    assert read(await target.keep(files)) == read(str(file))
    offsets = [opening.offset for opening in killed.openings]
    assert len(offsets) == 3
    assert offsets == sorted(offsets)
    assert offsets[2] >= offsets[1] + 20_000_000, "it went on from what had arrived"
