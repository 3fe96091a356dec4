"""A policy script's file as the queen looks at it: whatever lies there, she neither waits for it nor takes it all."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from swarmesh.policy.script import SOURCE_BYTES_MAX
from swarmesh.queen import script_file
from swarmesh.queen.script_file import ScriptFile, may_watch

Until = Callable[..., Awaitable[Any]]
SOURCE = "def admit(task):\n    return None\n"


async def text_at(path: Path | str) -> str | None:
    saved = await ScriptFile().read(str(path), None)
    return saved[1] if saved is not None else None


async def test_a_file_is_read_when_its_stamp_is_another(tmp_path: Path) -> None:
    path, file = tmp_path / "night.star", ScriptFile()
    path.write_bytes(SOURCE.replace("\n", "\r\n").encode())
    first = await file.read(str(path), None)
    assert first is not None
    assert first[1] == SOURCE
    assert await file.read(str(path), first[0]) is None
    path.write_text("longer" + SOURCE)
    second = await file.read(str(path), first[0])
    assert second is not None
    assert second[1] == "longer" + SOURCE


async def test_a_mark_that_windows_begins_files_with_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "night.star").write_bytes(b"\xef\xbb\xbf" + SOURCE.encode())
    assert await text_at(tmp_path / "night.star") == SOURCE


async def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.star").write_text(SOURCE)
    (tmp_path / "link.star").symlink_to(tmp_path / "real.star")
    assert await text_at(tmp_path / "link.star") == SOURCE


async def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.star")
    (tmp_path / "folder.star").mkdir()
    (tmp_path / "zero.star").symlink_to("/dev/zero")
    (tmp_path / "loop.star").symlink_to(tmp_path / "loop.star")
    for name in ("pipe", "folder", "zero", "loop", "missing", "nul\0"):
        assert await text_at(tmp_path / f"{name}.star") is None


async def test_a_file_may_be_as_long_as_a_script(tmp_path: Path) -> None:
    path = tmp_path / "long.star"
    path.write_bytes(b"#" * SOURCE_BYTES_MAX)
    assert await text_at(path) == "#" * SOURCE_BYTES_MAX
    path.write_bytes(b"#" * (SOURCE_BYTES_MAX + 1))
    assert await text_at(path) is None
    path.write_bytes(b"\xff")
    assert await text_at(path) is None


@pytest.mark.skipif(not Path("/proc/kallsyms").is_file(), reason="there is no file here that has more than it says")
async def test_a_file_that_has_more_than_it_says_is_not_read_to_its_end() -> None:
    assert os.stat("/proc/kallsyms").st_size == 0  # noqa: PTH116 - beside what the queen asks
    assert await text_at("/proc/kallsyms") is None


async def test_a_look_that_never_comes_back_is_the_last_and_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, until: Until
) -> None:
    answered, looks = threading.Event(), list[str]()

    def hang(path: str, _stamp: object) -> None:
        looks.append(path)
        answered.wait(30)

    monkeypatch.setattr(script_file, "READ_S_MAX", 0.01)
    monkeypatch.setattr(script_file, "_read_changed", hang)
    file = ScriptFile()
    try:
        for _ in range(3):
            assert await asyncio.wait_for(file.read("/net/night.star", None), 10) is None
        await until(lambda: looks, "the first look has begun")  # Its thread may be waiting for its turn.
    finally:
        answered.set()
    await until(lambda: not file._is_reading, "it has come back after all")
    assert looks == ["/net/night.star"]


def test_only_scripts_are_looked_at() -> None:
    assert may_watch("/x/night.star")
    assert not may_watch("night.star")
    assert not may_watch("/etc/shadow")


async def test_it_is_known_whether_there_is_a_file_at_all(tmp_path: Path) -> None:
    path, file = tmp_path / "night.star", ScriptFile()
    assert not file.is_gone, "nobody has looked"
    await file.read(str(path), None)
    assert file.is_gone
    path.write_text(SOURCE)
    saved = await file.read(str(path), None)
    assert saved is not None
    assert not file.is_gone
    assert await file.read(str(path), saved[0]) is None
    assert not file.is_gone, "it is only the same as before"
    assert await file.read(str(path / "below.star"), None) is None
    assert file.is_gone
