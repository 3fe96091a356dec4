"""`swarmesh doctor`, `version`, and the words of the screen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_shell import PROGRAM, Shell, shell_at
from swarmesh import __version__
from swarmesh.cli.screen import duration, mebibytes
from swarmesh.config.home import Home
from swarmesh.hosts import machine_checks
from swarmesh.hosts.machine_checks import check_machine


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with shell_at(tmp_path / "home", monkeypatch, capsys) as shell:
        yield shell


def test_a_machine_that_is_ready(shell: Shell) -> None:
    result = shell.run("doctor")
    assert result.code == 0
    for what in ("python", "cpu", "memory", "gpu", "home", "sockets", "engine", "llama-server", "queennode"):
        assert what in result.out
    findings = {finding["what"]: finding for finding in shell.run("doctor", "--json").json}
    assert findings["engine"]["verdict"] == "ok"
    assert findings["queennode"]["verdict"] == "ok"
    assert not shell.home.exists(), "looking changes nothing"


def test_no_queen_is_no_illness(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWARMESH_URL")
    result = shell.run("doctor")
    assert result.code == 0
    assert "next (queennode): swarmesh up" in result.out


def test_what_stops_it_from_working_is_exit_1(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.home.mkdir()
    (shell.home / "swarmesh.toml").write_text("no toml")
    monkeypatch.setattr(machine_checks, "_ASK_ENGINE", "raise SystemExit('the wheel is for another processor')")
    result = shell.run("doctor", "--json")
    assert result.code == 1
    findings = {finding["what"]: finding for finding in result.json}
    assert findings["settings"]["verdict"] == "fail"
    assert findings["engine"]["verdict"] == "fail"
    assert "another processor" in findings["engine"]["found"]
    assert "llama_server" in findings["engine"]["hint"]


def test_a_home_that_cannot_be_written(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    result = shell.run("doctor")
    assert result.code == 1
    assert "cannot be written" in result.out


def test_version(shell: Shell) -> None:
    for command in (["version"], ["--version"]):
        result = shell.run(*command)
        assert (result.code, result.out) == (0, f"swarmesh {__version__}\n")
    assert shell.run("version", "--json").json["version"] == __version__


def test_version_imports_next_to_nothing() -> None:
    command = [sys.executable, "-X", "importtime", *PROGRAM[1:], "version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"swarmesh {__version__}\n"
    for heavy in ("typer", "httpx", "rich", "msgspec", "xllamacpp", "asyncio"):
        assert f" {heavy}\n" not in done.stderr


def test_listing_imports_no_engine_and_no_server(shell: Shell) -> None:
    command = [sys.executable, "-X", "importtime", *PROGRAM[1:], "rustbees", "list", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for heavy in ("xllamacpp", "apsw", "starlette", "uvloop"):
        assert f" {heavy}\n" not in done.stderr


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0.0 s"), (59.94, "59.9 s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (90000, "1d01h")],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_mebibytes() -> None:
    assert mebibytes(3 * 1024 * 1024) == "3.0 MiB"
    assert mebibytes(0) == ""


@pytest.mark.parametrize(("name", "verdict"), [("llama-server", "ok"), ("missing", "fail")])
def test_a_llama_server_that_is_set_has_to_run(shell: Shell, name: str, verdict: str) -> None:
    shell.home.mkdir()
    program = shell.home / "llama-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    (shell.home / "swarmesh.toml").write_text(f'[rustbee]\nllama_server = "{shell.home / name}"\n')
    result = shell.run("doctor", "--json")
    finding = {finding["what"]: finding for finding in result.json}["llama-server"]
    assert (result.code, finding["verdict"]) == (int(verdict == "fail"), verdict)
    assert str(shell.home / name) in finding["found"]
    assert ("rustbee.llama_server" in finding["hint"]) is (verdict == "fail")


def test_the_built_in_engine_is_not_missed_where_a_llama_server_does_its_work(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.home.mkdir()
    (shell.home / "swarmesh.toml").write_text(f'[rustbee]\nllama_server = "{sys.executable}"\n')
    monkeypatch.setattr(machine_checks, "_ASK_ENGINE", "raise SystemExit('the wheel is for another processor')")
    result = shell.run("doctor", "--json")
    findings = {finding["what"]: finding for finding in result.json}
    assert (result.code, findings["engine"]["verdict"]) == (0, "warn")


def test_hints_for_a_host_that_lends_itself_do_not_speak_of_a_variable_that_nobody_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "hive")
    home.make()
    home.host_name_file.write_text("mac")
    monkeypatch.setattr(machine_checks, "DISK_MIB_LOW", 1 << 40)
    monkeypatch.setattr(machine_checks, "SOCKET_PATH_BYTES_MAX", 1)
    hints = [finding.hint for finding in check_machine(home)]
    assert "Free some space." in hints
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    hints += [finding.hint for finding in check_machine(home)]
    assert "Let the login user write there." in hints
    assert not [hint for hint in hints if "SWARMESH_HOME" in hint]
