"""The home directory: private, short enough for sockets, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from swarmesh.config import home as home_module
from swarmesh.config.home import SOCKET_PATH_BYTES_MAX, Home, QueenFile, find_home, read_queen_file, write_private
from swarmesh.core.errors import ConfigError


def test_the_environment_names_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_home({"SWARMESH_HOME": "/a/b"}).root == Path("/a/b")
    assert find_home({"SWARMESH_HOME": "~/bees"}).root == tmp_path / "bees"
    monkeypatch.chdir(tmp_path)
    assert find_home({"SWARMESH_HOME": "here"}).root == tmp_path / "here"
    for unset in ({}, {"SWARMESH_HOME": ""}):
        assert find_home(unset).root.name == "swarmesh"


def test_directories_are_private(tmp_path: Path) -> None:
    home = Home(tmp_path / "deep" / "home")
    home.make()
    home.make()
    for path in (home.root, home.logs_dir, home.workers_dir, home.sockets_dir):
        assert path.stat().st_mode & 0o777 == 0o700


def test_sockets_lie_elsewhere_when_the_home_is_too_deep(tmp_path: Path) -> None:
    assert Home(Path("/h")).sockets_dir == Path("/h/run")
    deep = Home(tmp_path / ("x" * 100))
    other = Home(tmp_path / ("y" * 100))
    assert not deep.sockets_dir.is_relative_to(deep.root)
    assert deep.sockets_dir != other.sockets_dir
    longest = deep.sockets_dir / ("s" * home_module.LONGEST_SOCKET_NAME)
    assert len(os.fsencode(longest)) <= SOCKET_PATH_BYTES_MAX or len(str(tmp_path)) > 40


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made") as raised:
        Home(tmp_path / "file").make()
    assert raised.value.hint == "Set SWARMESH_HOME."


def test_a_home_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ConfigError, match="belongs to another user"):
        Home(tmp_path).make()


def test_a_private_file_is_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("open to all")
    path.chmod(0o644)
    write_private(path, b"mine")
    assert path.read_bytes() == b"mine"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    write_private(path, b"before")

    def no_space(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_private(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_queens_note(tmp_path: Path) -> None:
    path = tmp_path / "queen.json"
    assert read_queen_file(path) is None
    note = QueenFile("http://127.0.0.1:1", 5, 1.5, "0")
    path.write_bytes(msgspec.json.encode(note))
    assert read_queen_file(path) == note
    for broken in (b"", b"{", b'{"url": 1}', b'"\xff"'):
        path.write_bytes(broken)
        assert read_queen_file(path) is None
