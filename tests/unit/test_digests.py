"""Digests of model files: computed once, remembered across processes, and never of a file that has changed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from swarmesh.config.home import Home
from swarmesh.core.errors import ModelFileError
from swarmesh.models import digests as digests_module
from swarmesh.models.digests import Digests, sha256_of

CONTENT = b"weights" * 1_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def write(path: Path, content: bytes, *, mtime_ns: int) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


class Readings:
    """Counts how often a file was read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real = digests_module._hash

        def counted(*args: Any) -> str:
            self.count += 1
            return real(*args)

        monkeypatch.setattr(digests_module, "_hash", counted)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    return Readings(monkeypatch)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(CONTENT)
    return path


async def test_a_digest_is_computed_once_and_remembered_by_the_next_process(
    home: Home, model: Path, readings: Readings
) -> None:
    digests = Digests(home)
    assert await digests.known(model) == ""
    assert [await digests.of(model) for _ in range(2)] == [SHA256, SHA256]
    assert await Digests(home).known(model) == SHA256
    assert await Digests(home).of(model) == SHA256
    assert readings.count == 1
    assert (home.root / "digests.json").stat().st_mode & 0o077 == 0


async def test_a_file_that_changed_is_read_again(home: Home, model: Path, readings: Readings) -> None:
    digests = Digests(home)
    write(model, CONTENT, mtime_ns=1_000)
    await digests.of(model)

    write(model, CONTENT + b"!", mtime_ns=1_000)
    assert await digests.of(model) == hashlib.sha256(CONTENT + b"!").hexdigest()

    write(model, CONTENT, mtime_ns=2_000)
    assert await digests.of(model) == SHA256

    write(model.with_name("new"), CONTENT[::-1], mtime_ns=2_000).replace(model)
    assert await digests.of(model) == hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert readings.count == 4


async def test_two_callers_share_one_reading(home: Home, model: Path, readings: Readings) -> None:
    digests = Digests(home)
    assert await asyncio.gather(digests.of(model), digests.of(model)) == [SHA256, SHA256]
    assert readings.count == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version":2,"digests":[]}', b'{"version":1,"digests":[{}]}'])
async def test_a_broken_file_is_ignored_and_written_anew(home: Home, model: Path, content: bytes) -> None:
    home.root.mkdir()
    (home.root / "digests.json").write_bytes(content)
    assert await Digests(home).of(model) == SHA256
    assert await Digests(home).known(model) == SHA256


async def test_a_file_that_cannot_be_written_costs_time_only(home: Home, model: Path, readings: Readings) -> None:
    home.root.write_text("not a directory")
    digests = Digests(home)
    assert await digests.of(model) == SHA256
    assert await digests.of(model) == SHA256
    assert await Digests(home).of(model) == SHA256
    assert readings.count == 2


async def test_no_more_are_remembered_than_fit(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests_module, "REMEMBERED_MAX", 3)
    digests = Digests(home)
    paths = [tmp_path / str(number) for number in range(5)]
    for path in paths:
        path.write_text(path.name)
        await digests.of(path)
    assert [bool(await digests.known(path)) for path in paths] == [False, False, True, True, True]
    assert len(msgspec.json.decode((home.root / "digests.json").read_bytes())["digests"]) == 3


@pytest.mark.parametrize("prefix", ["", "sha256-"])
async def test_blobs_of_other_programs_say_their_digest(
    home: Home, tmp_path: Path, readings: Readings, prefix: str
) -> None:
    blob = tmp_path / "blobs" / f"{prefix}{SHA256}"
    blob.parent.mkdir()
    blob.write_bytes(CONTENT)
    link = tmp_path / "snapshots" / "1" / "m.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(Path("../../blobs") / blob.name)
    for path in (blob, link):
        assert await Digests(home).known(path) == SHA256
        assert await Digests(home).of(path) == SHA256
    assert readings.count == 0


@pytest.mark.parametrize("name", [f"blobs/{SHA256}.incomplete", f"blobs/sha256-{SHA256}-partial", f"other/{SHA256}"])
async def test_other_names_say_nothing(home: Home, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert await Digests(home).known(path) == ""


async def test_a_digest_that_was_checked_elsewhere_is_taken(home: Home, model: Path, readings: Readings) -> None:
    digests = Digests(home)
    await digests.remember(model, SHA256)
    assert await digests.of(model) == SHA256
    assert readings.count == 0
    await digests.remember(model.with_name("none"), SHA256)


async def test_what_cannot_be_read_has_no_digest(home: Home, tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ModelFileError):
            await Digests(home).of(path)


async def test_reading_ends_when_nobody_waits(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(model, bytes(1_000), mtime_ns=1)
    monkeypatch.setattr(digests_module, "CHUNK_BYTES", 1)
    monkeypatch.setattr(digests_module, "REPORT_INTERVAL_S", 0.0)
    heard: list[int] = []
    over = threading.Event()
    real = digests_module._hash

    def watched(*args: Any) -> str:
        try:
            return real(*args)
        finally:
            over.set()

    def leave(done_bytes: int) -> None:
        heard.append(done_bytes)
        reading.cancel()

    monkeypatch.setattr(digests_module, "_hash", watched)
    reading = asyncio.create_task(sha256_of(model, lambda done, _: leave(done)))
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await asyncio.to_thread(over.wait, 10)
    assert heard
