"""What every machine's shelf of model files does: this one's, and another one's over its connection."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from shelf_rigs import (
    HIVE,
    FakeCaller,
    caller_here,
    copy_in,
    files_of,
    local_shelf,
    model_bytes,
    put,
    put_split,
    read,
)
from swarmesh.core.errors import SwarmeshError
from swarmesh.models.catalog import Catalog
from swarmesh.models.demo import DEMO_GGUF
from swarmesh.models.modelcell import ModelSource
from swarmesh.models.shelf import ModelFiles, Shelf
from swarmesh.queen.remote_shelf import RemoteShelf


@dataclass
class Machine:
    """A shelf, its home and the one usual place where models of other programs lie."""

    shelf: Shelf
    home: Path
    hub: Path

    @property
    def catalog(self) -> Catalog:
        return Catalog(self.home)


@pytest.fixture(params=["local", "remote in this process", "remote in another process"])
async def machine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Machine]:
    if request.param == "remote in another process":
        hub = tmp_path / "user" / ".cache" / "huggingface" / "hub"
        async with caller_here(tmp_path / "user") as caller:
            home = tmp_path / "user" / ".swarmesh" / "hives" / HIVE
            yield Machine(RemoteShelf(caller, hive=HIVE), home, hub)
        return
    local = local_shelf(tmp_path)
    remote = request.param != "local"
    shelf = RemoteShelf(FakeCaller(local), hive=HIVE) if remote else local
    yield Machine(shelf, tmp_path / "home", tmp_path / "hub")


async def test_the_demo_is_on_every_shelf(machine: Machine) -> None:
    path = await machine.shelf.path_of("demo")
    assert Path(path) == DEMO_GGUF
    model = await machine.shelf.identify("demo", path)
    assert model == files_of("demo", DEMO_GGUF)
    assert await machine.shelf.find(model) == path


async def test_what_is_nowhere_is_not_found(machine: Machine) -> None:
    assert await machine.shelf.path_of("qwen") == ""
    digest = "a" * 64
    part = msgspec.structs.replace(files_of("qwen", DEMO_GGUF).parts[0], sha256=digest)
    assert await machine.shelf.find(ModelFiles(modelcell="qwen", parts=(part,))) == ""
    assert [cell.name for cell in machine.catalog.list()] == ["demo"]


async def test_a_copy_is_taken_kept_and_found(machine: Machine, tmp_path: Path) -> None:
    source = put(tmp_path / "Qwen.gguf", model_bytes())
    model = files_of("qwen", source)
    assert await machine.shelf.find(model) == ""

    path = await copy_in(machine.shelf, model, source.read_bytes())
    assert await machine.shelf.keep(model) == path

    assert Path(path) == machine.home / "models" / model.directory / "Qwen.gguf"
    assert read(path) == source.read_bytes()
    assert await machine.shelf.find(model) == path
    assert await machine.shelf.path_of("qwen") == path
    cell = machine.catalog.get("qwen")
    assert (cell.source, cell.sha256, cell.target) == (ModelSource.COPY, model.parts[0].sha256, path)


async def test_a_file_goes_out_from_any_byte(machine: Machine) -> None:
    content = model_bytes(padding=2_500_000)
    path = put(machine.hub / "m.gguf", content)
    for offset in (0, 1, 1_048_577, len(content) - 1):
        outgoing = await machine.shelf.send(str(path), offset)
        try:
            assert outgoing.size_bytes == len(content) - offset
            got = b""
            while data := await outgoing.read():
                got += data
        finally:
            await outgoing.aclose()
        assert got == content[offset:]


@pytest.mark.parametrize("cut_bytes", [1, 1_000, 1_048_576, 1_500_001])
async def test_a_copy_goes_on_from_what_has_arrived(machine: Machine, tmp_path: Path, cut_bytes: int) -> None:
    source = put(tmp_path / "Qwen.gguf", model_bytes(padding=1_600_000))
    content, model = source.read_bytes(), files_of("qwen", source)
    directory = machine.home / "models" / model.directory
    put(directory / ".Qwen.gguf.part", content[:cut_bytes])

    incoming = await machine.shelf.receive(model, model.parts[0])
    try:
        assert incoming.offset == cut_bytes
        await incoming.write(content[cut_bytes:])
        path = await incoming.finish()
    finally:
        await incoming.aclose()

    assert read(path) == content
    assert not (directory / ".Qwen.gguf.part").exists()


async def test_what_is_whole_already_is_not_asked_for_again(machine: Machine, tmp_path: Path) -> None:
    source = put(tmp_path / "Qwen.gguf", model_bytes())
    model = files_of("qwen", source)
    path = await copy_in(machine.shelf, model, source.read_bytes())

    incoming = await machine.shelf.receive(model, model.parts[0])
    try:
        assert incoming.offset == len(source.read_bytes())
        assert await incoming.finish() == path
    finally:
        await incoming.aclose()


async def test_another_content_is_thrown_away(machine: Machine, tmp_path: Path) -> None:
    source = put(tmp_path / "Qwen.gguf", model_bytes())
    model = files_of("qwen", source)

    with pytest.raises(SwarmeshError) as caught:
        await copy_in(machine.shelf, model, bytes(model.size_bytes))

    assert caught.value.code == "model_digest_mismatch"
    directory = machine.home / "models" / model.directory
    assert [path.name for path in directory.iterdir() if not path.name.endswith(".lock")] == []
    assert await machine.shelf.find(model) == ""


async def test_a_model_of_which_a_part_is_missing_is_not_kept(machine: Machine, tmp_path: Path) -> None:
    model = files_of("qwen", put(tmp_path / "Qwen.gguf", model_bytes()))
    with pytest.raises(SwarmeshError) as caught:
        await machine.shelf.keep(model)
    assert caught.value.code == "model_file_unusable"
    assert f"{model.size_bytes:,}" in caught.value.message
    assert [cell.name for cell in machine.catalog.list()] == ["demo"]


async def test_a_file_that_is_no_model_is_not_kept(machine: Machine, tmp_path: Path) -> None:
    model = files_of("qwen", put(tmp_path / "Qwen.gguf", b"x" * 5_000))
    await copy_in(machine.shelf, model, b"x" * 5_000)
    with pytest.raises(SwarmeshError) as caught:
        await machine.shelf.keep(model)
    assert caught.value.code == "model_file_unusable"


async def test_a_file_of_another_program_is_found_by_its_content(machine: Machine, tmp_path: Path) -> None:
    content = model_bytes()
    lying = put(machine.hub / "models--org--repo" / "snapshots" / "1" / "other name.gguf", content)
    put(machine.hub / "a-decoy.gguf", content[:-1] + bytes([content[-1] ^ 1]))
    model = files_of("qwen", put(tmp_path / "Qwen.gguf", content))

    assert await machine.shelf.find(model) == str(lying)

    assert await machine.shelf.path_of("qwen") == str(lying)
    assert machine.catalog.get("qwen").source is ModelSource.SCAN


async def test_a_modelcell_of_another_name_is_found_by_its_content(machine: Machine, tmp_path: Path) -> None:
    file = put(tmp_path / "Qwen.gguf", model_bytes())
    machine.catalog.add_file("theirs", file, added_at=0)
    assert await machine.shelf.find(files_of("qwen", file)) == str(file)
    assert {cell.name for cell in machine.catalog.list()} == {"demo", "theirs", "qwen"}


async def test_a_name_with_another_meaning_there_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    theirs = put(tmp_path / "theirs.gguf", model_bytes("Theirs"))
    machine.catalog.add_file("qwen", theirs, added_at=0)
    source = put(tmp_path / "Qwen.gguf", model_bytes("Ours", padding=9))
    model = files_of("qwen", source)

    path = await copy_in(machine.shelf, model, source.read_bytes())

    assert await machine.shelf.keep(model) == path
    assert machine.catalog.get("qwen").target == str(theirs)
    assert await machine.shelf.find(model) == path


async def test_an_older_copy_gives_its_name_to_a_newer_one(machine: Machine, tmp_path: Path) -> None:
    paths = []
    for version in (b"1", b"22"):
        source = put(tmp_path / "Qwen.gguf", model_bytes() + version)
        model = files_of("qwen", source)
        paths.append(await copy_in(machine.shelf, model, source.read_bytes()))
        await machine.shelf.keep(model)
    assert machine.catalog.get("qwen").target == paths[1]


async def test_a_split_model_is_one(machine: Machine, tmp_path: Path) -> None:
    first = put_split(machine.hub, "big model")
    model = await machine.shelf.identify("big", str(first))

    assert [part.file_name for part in model.parts] == [f"big-model-0000{part}-of-00003.gguf" for part in (1, 2, 3)]
    contents = [path.read_bytes() for path in model.paths(first)]
    assert [part.sha256 for part in model.parts] == [hashlib.sha256(content).hexdigest() for content in contents]
    assert model.size_bytes == sum(map(len, contents))
    assert await machine.shelf.find(model) == str(first)

    for part, content in zip(model.parts, contents, strict=True):
        with pytest.raises(SwarmeshError):
            await machine.shelf.keep(model)
        incoming = await machine.shelf.receive(model, part)
        try:
            await incoming.write(content)
            await incoming.finish()
        finally:
            await incoming.aclose()
    kept = await machine.shelf.keep(model)
    assert Path(kept).parent == machine.home / "models" / model.directory
    assert (await machine.shelf.header(kept)).size_bytes == model.size_bytes


async def test_progress_of_a_digest_reaches_the_end(machine: Machine) -> None:
    file = put(machine.hub / "m.gguf", model_bytes(padding=9_000_000))
    heard: list[tuple[int, int]] = []
    model = await machine.shelf.identify("m", str(file), lambda done, total: heard.append((done, total)))
    assert heard
    assert {total for _, total in heard} == {model.size_bytes}
    assert heard[-1] == (model.size_bytes, model.size_bytes)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


@pytest.mark.parametrize("content", [None, b"", b"not a model at all, whoever looks"])
async def test_what_is_no_model_has_no_header_and_no_identity(
    machine: Machine, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "m.gguf"
    if content is not None:
        put(path, content)
    for ask in (machine.shelf.header(str(path)), machine.shelf.identify("m", str(path))):
        with pytest.raises(SwarmeshError) as caught:
            await ask
        assert caught.value.code == "model_file_unusable"


async def test_a_scan_adds_what_is_new(machine: Machine) -> None:
    file = put(machine.hub / "Tiny-Q8_0.gguf", model_bytes())
    for _ in range(2):
        (found,) = await machine.shelf.scan()
        assert (found.host, found.name, found.path) == ("", "tiny", str(file))
        assert (found.known_as, found.architecture) == ("tiny", "llama")
        assert found.size_bytes == file.stat().st_size
    assert machine.catalog.get("tiny").source is ModelSource.SCAN
    assert await machine.shelf.path_of("tiny") == str(file)


async def test_a_name_whose_file_is_gone_has_no_path(machine: Machine, tmp_path: Path) -> None:
    file = put(tmp_path / "m.gguf", model_bytes())
    machine.catalog.add_file("m", file, added_at=0)
    machine.catalog.add_python_class("upper", "tasks:Upper", added_at=0)
    assert await machine.shelf.path_of("m") == str(file)
    file.unlink()
    assert await machine.shelf.path_of("m") == ""
    assert await machine.shelf.path_of("upper") == ""
