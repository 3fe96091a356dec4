"""`swarmesh models`: no queen is asked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_shell import Shell, shell_at
from swarmesh.models.demo import DEMO_GGUF


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with shell_at(tmp_path / "home", monkeypatch, capsys) as shell:
        yield shell
        assert shell.queen.seen == []


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "little.gguf"
    path.parent.mkdir()
    shutil.copy(DEMO_GGUF, path)
    return path


def test_the_demo_is_always_there(shell: Shell) -> None:
    result = shell.run("models", "list")
    assert result.code == 0
    assert result.out.splitlines()[1].split()[:3] == ["demo", "gguf", "builtin"]
    (demo,) = shell.run("models", "list", "--json").json
    assert demo["name"] == "demo"
    assert demo["parameters"] > 0


def test_add_and_remove(shell: Shell, gguf: Path) -> None:
    result = shell.run("models", "add", str(gguf), "--name", "little")
    assert (result.code, result.out) == (0, f"little is {gguf}\n")
    assert "next: swarmesh spawn rustbee --modelcell little" in result.err
    assert [cell["name"] for cell in shell.run("models", "list", "--json").json] == ["demo", "little"]
    removed = shell.run("models", "remove", "little")
    assert removed.code == 0
    assert f"The file {gguf} is still there." in removed.out
    assert gguf.exists()
    assert [cell["name"] for cell in shell.run("models", "list", "--json").json] == ["demo"]


def test_add_twice(shell: Shell, gguf: Path, tmp_path: Path) -> None:
    other = shutil.copy(gguf, tmp_path / "other.gguf")
    assert shell.run("models", "add", str(gguf), "--name", "little", "--json").json["target"] == str(gguf)
    taken = shell.run("models", "add", str(other), "--name", "little")
    assert taken.code == 1
    assert "--replace" in taken.err
    assert shell.run("models", "add", str(other), "--name", "little", "--replace").code == 0


def test_what_cannot_be_added(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("this is no model")
    for file, name in (("missing.gguf", "a"), ("text.gguf", "a"), ("text.gguf", "A B"), ("text.gguf", "demo")):
        result = shell.run("models", "add", str(tmp_path / file), "--name", name)
        assert (result.code, result.out) == (1, ""), file
        assert result.err.startswith("error: ")
    assert shell.run("models", "add", "hf:nonsense", "--name", "a").code == 1
    assert shell.run("models", "add", str(tmp_path / "text.gguf")).code == 2


def test_scan_adds_what_it_finds(shell: Shell, gguf: Path) -> None:
    (gguf.parent / "broken.gguf").write_bytes(b"GGUF")
    dry = shell.run("models", "scan", str(gguf.parent), "--dry-run")
    assert dry.code == 0
    assert "would be added" in dry.out
    assert len(shell.run("models", "list", "--json").json) == 1
    result = shell.run("models", "scan", str(gguf.parent))
    assert result.code == 0
    assert "added" in result.out
    assert f"skipped {gguf.parent}/broken.gguf: " in result.err
    cell = shell.run("models", "list", "--json").json[1]
    assert (cell["target"], cell["source"]) == (str(gguf), "scan")
    again = shell.run("models", "scan", str(gguf.parent), "--json").json
    assert again["found"][0]["known_as"] == cell["name"]
    assert again["skipped"][0]["path"] == str(gguf.parent / "broken.gguf")


def test_scan_of_nothing(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = shell.run("models", "scan", str(tmp_path / "empty"))
    assert (result.code, result.out) == (0, "")
    assert "no models found" in result.err
    assert shell.run("models", "scan", str(tmp_path / "nowhere")).code == 1


def test_remove_what_is_not_there(shell: Shell) -> None:
    result = shell.run("models", "remove", "dem")
    assert result.code == 1
    assert "Did you mean 'demo'?" in result.err
    assert shell.run("models", "remove", "demo").code == 1
