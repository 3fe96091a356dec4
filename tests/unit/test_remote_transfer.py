"""Model files out of a host and in, without a process around: which ones, from which byte on, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from remote_rig import hive_home_of, opening
from swarmesh.config.home import Home
from swarmesh.core.errors import ConflictError, ForbiddenError, InvalidValueError, ModelFileError, NotFoundError
from swarmesh.models.catalog import Catalog
from swarmesh.models.demo import DEMO_GGUF
from swarmesh.models.scan import Origin, ScanRoot
from swarmesh.models.shelf import DigestMismatchError, TransferBrokenError
from swarmesh.remote import transfer
from swarmesh.remote.errors import HostDiskFullError
from swarmesh.remote.output import Output
from swarmesh.remote.sendable import sendable
from swarmesh.remote.transfer import open_wanted, receive_file, send_file
from swarmesh.wire.session import FileSize, Kept, Opening, Purpose, Wanted

Until = Callable[..., Awaitable[Any]]

CONTENT = b"GGUF" + bytes(range(251)) + b"\n{}\n"
DIRECTORY = "0123456789abcdef"
LIMIT_S = 5.0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = hive_home_of(tmp_path / "u")
    home.make()
    return home


class Pipe:
    """Where a transfer writes."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()
        self.output = Output(self._write_end)

    def said(self) -> bytes:
        os.close(self._write_end)
        with os.fdopen(self.read_end, "rb") as file:
            return file.read()


def arriving(**changes: Any) -> Opening:
    facts = {
        "name": "tiny.gguf",
        "directory": DIRECTORY,
        "size_bytes": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
    }
    return opening(Purpose.RECEIVE, **{**facts, **changes})


async def receive(home: Home, wanted: Opening, data: bytes, *, ends: bool = True) -> list[bytes]:
    """The lines that were answered when these bytes came, and the end after them."""
    source = asyncio.StreamReader()
    source.feed_data(data)
    if ends:
        source.feed_eof()
    pipe = Pipe()
    try:
        await receive_file(wanted, home, source, pipe.output, LIMIT_S)
    finally:
        said = pipe.said().splitlines()
    return said


def place(home: Home, name: str = "tiny.gguf") -> Path:
    return home.models_dir / DIRECTORY / name


def left_over(home: Home) -> list[bytes]:
    """What lies among the copies under another name than a whole file's."""
    return [path.read_bytes() for path in (home.models_dir / DIRECTORY).iterdir() if path.name.endswith(".part")]


async def test_a_file_arrives_whole(home: Home) -> None:
    wanted, kept = await receive(home, arriving(), CONTENT)
    assert msgspec.json.decode(wanted, type=Wanted).offset == 0
    assert msgspec.json.decode(kept, type=Kept).path == str(place(home))
    assert place(home).read_bytes() == CONTENT
    assert [path.name for path in place(home).parent.iterdir()] == ["tiny.gguf"]


async def test_a_file_that_is_there_is_not_asked_for_again(home: Home) -> None:
    await receive(home, arriving(), CONTENT)
    wanted, kept = await receive(home, arriving(), b"")
    assert msgspec.json.decode(wanted, type=Wanted).offset == len(CONTENT)
    assert msgspec.json.decode(kept, type=Kept).path == str(place(home))


async def test_it_goes_on_after_every_odd_byte(home: Home) -> None:
    for offset in range(1, len(CONTENT), 2):
        with pytest.raises(TransferBrokenError, match=f"after {offset} of {len(CONTENT)} bytes"):
            await receive(home, arriving(), CONTENT[:offset])
        assert not place(home).exists()
        wanted, _ = await receive(home, arriving(), CONTENT[offset:])
        assert msgspec.json.decode(wanted, type=Wanted).offset == offset
        assert place(home).read_bytes() == CONTENT
        place(home).unlink()


async def test_it_goes_on_byte_by_byte(home: Home) -> None:
    for byte in CONTENT[:-1]:
        with pytest.raises(TransferBrokenError):
            await receive(home, arriving(), bytes([byte]))
    await receive(home, arriving(), CONTENT[-1:])
    assert place(home).read_bytes() == CONTENT


async def test_more_bytes_than_announced_are_not_taken(home: Home) -> None:
    await receive(home, arriving(), CONTENT + b"more")
    assert place(home).read_bytes() == CONTENT


@pytest.mark.parametrize("wrong_at", [0, 100, len(CONTENT) - 1])
async def test_another_content_is_thrown_away(home: Home, wrong_at: int) -> None:
    wrong = bytearray(CONTENT)
    wrong[wrong_at] ^= 1
    with pytest.raises(DigestMismatchError) as caught:
        await receive(home, arriving(), bytes(wrong))
    assert caught.value.code == "model_digest_mismatch"
    assert not place(home).exists()
    assert left_over(home) == []
    await receive(home, arriving(), CONTENT)


async def test_what_had_arrived_before_counts_into_the_digest(home: Home) -> None:
    with pytest.raises(TransferBrokenError):
        await receive(home, arriving(), b"JUNK")
    with pytest.raises(DigestMismatchError):
        await receive(home, arriving(), CONTENT[4:])
    await receive(home, arriving(), CONTENT)


async def test_a_part_that_is_longer_than_the_file_is_none_of_it(home: Home) -> None:
    longer = arriving(size_bytes=1_000, sha256="0" * 64)
    with pytest.raises(TransferBrokenError):
        await receive(home, longer, bytes(999))
    wanted, _ = await receive(home, arriving(), CONTENT)
    assert msgspec.json.decode(wanted, type=Wanted).offset == 0


async def test_a_file_that_cannot_fit_is_refused_before_a_byte_of_it_comes(home: Home) -> None:
    with pytest.raises(HostDiskFullError, match=r"mac has no space for tiny\.gguf") as caught:
        await receive(home, arriving(size_bytes=1 << 60), b"")
    assert caught.value.code == "host_disk_full"
    assert caught.value.status == 507


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../tiny.gguf"},
        {"name": "a/b.gguf"},
        {"name": ".hidden"},
        {"name": ""},
        {"name": "x" * 201},
        {"name": "tiny.gguf\n"},
        {"directory": ""},
        {"directory": ".."},
        {"directory": "0123456789abcde/"},
        {"directory": "0123456789ABCDEF"},
        {"directory": DIRECTORY + "\n"},
        {"size_bytes": 0},
        {"size_bytes": -1},
        {"sha256": ""},
        {"sha256": "0" * 63 + "g"},
    ],
)
async def test_a_place_or_a_digest_that_is_none_is_refused(home: Home, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        await receive(home, arriving(**wrong), CONTENT)
    assert not home.models_dir.exists()


async def test_a_second_one_waits_and_finds_the_file(home: Home, until: Until) -> None:
    source, first = asyncio.StreamReader(), Pipe()
    taking = asyncio.create_task(receive_file(arriving(), home, source, first.output, LIMIT_S))
    source.feed_data(CONTENT[:50])
    await until(lambda: any(place(home).parent.glob(".*.lock")))
    second = asyncio.create_task(receive(home, arriving(), b""))
    source.feed_data(CONTENT[50:])
    await taking
    wanted, _ = await second
    assert msgspec.json.decode(wanted, type=Wanted).offset == len(CONTENT)
    first.said()


async def test_a_second_one_gives_up_in_the_end(home: Home, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "LOCK_WAIT_S", 0.05)
    monkeypatch.setattr(transfer, "LOCK_LOOK_S", 0.01)
    source, first = asyncio.StreamReader(), Pipe()
    taking = asyncio.create_task(receive_file(arriving(), home, source, first.output, LIMIT_S))
    await until(lambda: any(place(home).parent.glob(".*.lock")))
    with pytest.raises(ConflictError, match=r"tiny\.gguf"):
        await receive(home, arriving(), CONTENT)
    source.feed_data(CONTENT)
    await taking
    assert place(home).read_bytes() == CONTENT
    first.said()


async def send(home: Home, path: Path, offset: int = 0, roots: tuple[ScanRoot, ...] = ()) -> bytes:
    wanted = opening(Purpose.SEND, path=str(path), offset=offset)
    file = await open_wanted(wanted, home, roots)
    pipe = Pipe()
    await send_file(wanted, file, pipe.output, LIMIT_S)
    return pipe.said()


async def test_a_file_leaves_from_every_odd_byte_on(home: Home) -> None:
    place(home).parent.mkdir(parents=True)
    place(home).write_bytes(CONTENT)
    for offset in [0, *range(1, len(CONTENT), 2), len(CONTENT)]:
        line, _, data = (await send(home, place(home), offset)).partition(b"\n")
        assert msgspec.json.decode(line, type=FileSize).size_bytes == len(CONTENT)
        assert data == CONTENT[offset:]
    for offset in (-1, len(CONTENT) + 1):
        with pytest.raises((InvalidValueError, ModelFileError)):
            await send(home, place(home), offset)


async def test_a_file_that_becomes_shorter_is_never_filled_up_with_words(home: Home) -> None:
    place(home).parent.mkdir(parents=True)
    place(home).write_bytes(CONTENT)
    wanted = opening(Purpose.SEND, path=str(place(home)))
    file, pipe = await open_wanted(wanted, home, ()), Pipe()
    os.truncate(place(home), 10)
    with pytest.raises(TransferBrokenError, match="became shorter"):
        await send_file(wanted, file, pipe.output, LIMIT_S)
    assert pipe.said().partition(b"\n")[2] == CONTENT[:10]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ScanRoot]:
    """A Hugging Face cache: a snapshot's name leads to a blob."""
    root = tmp_path / "hub"
    blobs, snapshot = root / "models--a--b" / "blobs", root / "models--a--b" / "snapshots" / "1"
    for directory in (blobs, snapshot):
        directory.mkdir(parents=True)
    (blobs / ("ab" * 32)).write_bytes(CONTENT)
    (blobs / ("sha256-" + "cd" * 32)).write_bytes(CONTENT)
    (snapshot / "tiny.gguf").symlink_to(blobs / ("ab" * 32))
    (snapshot / "config.json").write_bytes(b"{}")
    (snapshot / "stolen.gguf").symlink_to(tmp_path / "id_ed25519")
    (tmp_path / "id_ed25519").write_text("a private key")
    return ScanRoot(Origin.HUGGING_FACE, root)


async def test_what_lies_in_the_usual_places_may_leave(home: Home, hub: ScanRoot, tmp_path: Path) -> None:
    blobs = hub.path / "models--a--b" / "blobs"
    for path in (
        hub.path / "models--a--b/snapshots/1/tiny.gguf",
        blobs / ("ab" * 32),
        blobs / ("sha256-" + "cd" * 32),
    ):
        assert (await send(home, path, roots=(hub,))).endswith(CONTENT)
    (tmp_path / "link").symlink_to(hub.path)
    linked = ScanRoot(Origin.HUGGING_FACE, tmp_path / "link")
    assert sendable(str(blobs / ("ab" * 32)), home, (linked,))


async def test_what_the_catalog_knows_may_leave_with_all_its_parts(home: Home, tmp_path: Path) -> None:
    assert (await asyncio.to_thread(sendable, str(DEMO_GGUF), home, ())) == DEMO_GGUF
    own = tmp_path / "own"
    own.mkdir()
    file = own / "big-00001-of-00002.gguf"
    file.write_bytes(DEMO_GGUF.read_bytes())
    (own / "big-00002-of-00002.gguf").write_bytes(CONTENT)
    with pytest.raises(ForbiddenError):
        sendable(str(file), home, ())
    Catalog(home.root).add_file("big", file, added_at=0)
    assert sendable(str(file), home, ())
    assert sendable(str(own / "big-00002-of-00002.gguf"), home, ())
    with pytest.raises(ForbiddenError):
        sendable(str(own / "big-00003-of-00003.gguf"), home, ())


def test_nothing_else_may_leave(home: Home, hub: ScanRoot, tmp_path: Path) -> None:
    snapshot = hub.path / "models--a--b" / "snapshots" / "1"
    place(home).parent.mkdir(parents=True)
    place(home).write_bytes(b"not a model")
    place(home, "dir.gguf").mkdir()
    os.mkfifo(place(home, "pipe.gguf"))
    (home.root / "worker.secret").write_text("secret")
    denied: list[Path | str] = [
        "/etc/passwd",
        "",
        "etc/passwd",
        "/etc/passwd\0.gguf",
        tmp_path / "id_ed25519",
        snapshot / "config.json",
        snapshot / "stolen.gguf",
        f"{snapshot}/../../../../id_ed25519",
        f"{home.models_dir}/../worker.secret",
        home.worker_secret_file,
        place(home),
        place(home, "dir.gguf"),
        place(home, "pipe.gguf"),
        place(home, ".tiny.gguf.part"),
        "/etc/shadow.gguf",
    ]
    for path in denied:
        with pytest.raises(ForbiddenError):
            sendable(str(path), home, (hub,))
    with pytest.raises(NotFoundError):
        sendable(str(place(home, "missing.gguf")), home, (hub,))
