"""Copying models between machines: cuts, wrong content, callers that come and go."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shelf_rigs import HIVE, FakeCaller, files_of, local_shelf, model_bytes, put, put_split, read
from swarmesh.core.errors import ModelFileError
from swarmesh.models.local_shelf import LocalShelf
from swarmesh.models.shelf import ModelFiles, Shelf, TransferBrokenError
from swarmesh.queen import remote_shelf
from swarmesh.queen.model_copy import PAUSE_MAX_S, PAUSE_S, TRIES_MAX, ModelCopies, Place
from swarmesh.queen.remote_shelf import RemoteShelf
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.hosts import Step, StepState


@dataclass
class Swarm:
    """The queen's machine with a model of 3 MB, and two hosts."""

    root: Path
    pauses: list[float] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.copies = ModelCopies(pause=self.pause)
        self.local = local_shelf(self.root / "queen")
        self.mac = FakeCaller(local_shelf(self.root / "mac"))
        self.box = FakeCaller(local_shelf(self.root / "box"))
        self.file = put(self.root / "m.gguf", model_bytes(padding=3_000_000))
        self.model = files_of("m", self.file)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    async def copy(self, target: FakeCaller, source: Place | None = None, on: list[Step] | None = None) -> int:
        place = source or Place("localhost", self.local, str(self.file))
        steps = self.steps if on is None else on
        shelf = RemoteShelf(target, hive=HIVE)
        return await self.copies.copy(self.model, place, "mac", shelf, steps.append)

    def arrived(self, caller: FakeCaller) -> bytes:
        return arrived(caller.shelf, self.model)


def arrived(shelf: LocalShelf, model: ModelFiles) -> bytes:
    return read(str(shelf._copy_of(model)))


@pytest.fixture
def swarm(tmp_path: Path) -> Swarm:
    return Swarm(tmp_path)


async def test_from_the_queens_disk_to_a_host(swarm: Swarm) -> None:
    assert await swarm.copy(swarm.mac) == swarm.model.size_bytes
    assert swarm.arrived(swarm.mac) == read(str(swarm.file))
    assert await swarm.mac.shelf.keep(swarm.model)


async def test_from_one_host_through_the_queen_to_another(swarm: Swarm) -> None:
    source = Place("box", RemoteShelf(swarm.box, hive=HIVE), str(swarm.file))
    assert await swarm.copy(swarm.mac, source) == swarm.model.size_bytes
    assert swarm.arrived(swarm.mac) == read(str(swarm.file))


async def test_from_a_host_to_the_queens_disk(swarm: Swarm) -> None:
    source = Place("box", RemoteShelf(swarm.box, hive=HIVE), str(swarm.file))
    target: Shelf = swarm.local
    await swarm.copies.copy(swarm.model, source, "localhost", target, swarm.steps.append)
    assert arrived(swarm.local, swarm.model) == read(str(swarm.file))


async def test_every_part_of_a_split_model_is_copied(swarm: Swarm) -> None:
    first = put_split(swarm.root, "big")
    model = await swarm.local.identify("big", str(first))
    target = RemoteShelf(swarm.mac, hive=HIVE)
    place = Place("localhost", swarm.local, str(first))
    assert await swarm.copies.copy(model, place, "mac", target, swarm.steps.append) == model.size_bytes
    assert await target.keep(model)
    assert swarm.steps[-1].done_bytes == swarm.steps[-1].total_bytes == model.size_bytes
    assert {step.total_bytes for step in swarm.steps} == {model.size_bytes}


@pytest.mark.parametrize("cuts", [[1], [1_234_567], [1, 7, 1_048_577], [0, 0, 0, 0]])
async def test_a_connection_that_breaks_costs_only_what_was_in_flight(swarm: Swarm, cuts: list[int]) -> None:
    swarm.mac.cuts = [*cuts]
    assert await swarm.copy(swarm.mac) == swarm.model.size_bytes
    assert swarm.arrived(swarm.mac) == read(str(swarm.file))
    assert swarm.mac.moved_bytes == swarm.model.size_bytes, "nothing was sent twice"
    assert swarm.mac.offsets == sorted(swarm.mac.offsets)
    assert len(swarm.pauses) == len(cuts)


@pytest.mark.parametrize("cuts", [[1], [1_234_567, 1_000_000], [0, 0]])
async def test_so_does_the_sources(swarm: Swarm, cuts: list[int]) -> None:
    swarm.box.cuts = [*cuts]
    source = Place("box", RemoteShelf(swarm.box, hive=HIVE), str(swarm.file))
    assert await swarm.copy(swarm.mac, source) == swarm.model.size_bytes
    assert swarm.arrived(swarm.mac) == read(str(swarm.file))


async def test_a_connection_that_breaks_again_and_again_is_given_up(swarm: Swarm) -> None:
    swarm.mac.cuts = [0] * 100
    with pytest.raises(TransferBrokenError, match=f"broke {TRIES_MAX} times: .*connection") as caught:
        await swarm.copy(swarm.mac)
    assert "goes on from there" in caught.value.hint
    assert len(swarm.mac.openings) == TRIES_MAX
    assert swarm.pauses == [min(PAUSE_S * 2**number, PAUSE_MAX_S) for number in range(TRIES_MAX - 1)]


async def test_tries_that_come_further_do_not_count(swarm: Swarm) -> None:
    swarm.file = put(swarm.root / "large.gguf", model_bytes(padding=10_000_000))
    swarm.model = files_of("m", swarm.file)
    swarm.mac.cuts = [1_048_576] * 9
    assert await swarm.copy(swarm.mac) == swarm.model.size_bytes
    assert swarm.arrived(swarm.mac) == read(str(swarm.file))


async def test_a_transfer_in_which_nothing_moves_is_lost(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_shelf, "SILENCE_LIMIT_S", 0.001)
    swarm.mac.gate.clear()
    with pytest.raises(TransferBrokenError, match="nothing moved for too long"):
        await swarm.copy(swarm.mac)
    assert len(swarm.mac.openings) == TRIES_MAX


async def test_what_an_earlier_copy_left_is_gone_on_from(swarm: Swarm) -> None:
    swarm.mac.cuts = [1_000_001] + [0] * 100
    with pytest.raises(TransferBrokenError):
        await swarm.copy(swarm.mac)
    swarm.mac.cuts = []
    assert await swarm.copy(swarm.mac) == swarm.model.size_bytes - 1_000_001
    assert swarm.arrived(swarm.mac) == read(str(swarm.file))


async def test_another_content_is_told_and_not_tried_again(swarm: Swarm) -> None:
    content = bytearray(read(str(swarm.file)))
    content[-1] ^= 1
    put(swarm.file, bytes(content))
    with pytest.raises(RemoteError) as caught:
        await swarm.copy(swarm.mac)
    assert caught.value.code == "model_digest_mismatch"
    assert len(swarm.mac.openings) == 1


async def test_a_source_of_another_size_is_told_before_anything_is_sent(swarm: Swarm) -> None:
    put(swarm.file, read(str(swarm.file)) + b"!")
    with pytest.raises(ModelFileError, match="has another size"):
        await swarm.copy(swarm.mac)
    assert swarm.mac.moved_bytes == 0


async def test_a_full_disk_is_told_and_not_tried_again(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1_000

    monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage)
    with pytest.raises(RemoteError, match=r"needs .* where 1,000 are free") as caught:
        await swarm.copy(swarm.mac)
    assert caught.value.code == "disk_full"
    assert len(swarm.mac.openings) == 1


async def test_steps_count_the_bytes(swarm: Swarm) -> None:
    swarm.mac.cuts = [2_000_000]
    await swarm.copy(swarm.mac)
    copying = [step for step in swarm.steps if step.step == "copy"]
    assert [step.done_bytes for step in copying] == sorted(step.done_bytes for step in copying)
    assert (copying[0].done_bytes, copying[0].text) == (0, "m from localhost to mac")
    assert copying[-1].done_bytes == swarm.model.size_bytes
    ends = [(step.step, step.state) for step in swarm.steps if step.state is StepState.DONE]
    assert ends == [("copy", StepState.DONE), ("check", StepState.DONE)]


async def test_two_callers_share_one_copy(swarm: Swarm) -> None:
    heard: tuple[list[Step], list[Step]] = ([], [])
    sent = await asyncio.gather(*(swarm.copy(swarm.mac, on=steps) for steps in heard))
    assert sent == [swarm.model.size_bytes] * 2
    assert swarm.mac.moved_bytes == swarm.model.size_bytes
    assert heard[0] == heard[1]


async def test_a_caller_that_leaves_ends_the_copy_unless_somebody_else_waits(swarm: Swarm) -> None:
    swarm.mac.gate.clear()
    callers = [asyncio.create_task(swarm.copy(swarm.mac)) for _ in range(3)]
    await swarm.mac.opened.wait()
    callers[0].cancel()
    await asyncio.wait([callers[0]])
    swarm.mac.gate.set()
    assert await callers[1] == swarm.model.size_bytes
    assert await callers[2] == swarm.model.size_bytes

    swarm.box.gate.clear()
    last = asyncio.create_task(swarm.copy(swarm.box))
    await swarm.box.opened.wait()
    last.cancel()
    await asyncio.wait([last])
    swarm.box.gate.set()
    assert await swarm.copy(swarm.box) == swarm.model.size_bytes, "nothing of it had been sent"
