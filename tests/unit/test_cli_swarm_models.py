"""`swarmesh models fit|copy|scan --host`, which ask the queen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_shell import Shell, shell_at
from fake_queen import copied, error, failed, finished, fit, host, step

MODELS = "/v2/swarmesh/models"
OFF = error("host_unreachable", "mac is off", "switch it on")["error"]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with shell_at(tmp_path, monkeypatch, capsys) as shell:
        yield shell


def found(name: str, **more: Any) -> dict[str, Any]:
    place = {"host": "mac", "name": name, "path": f"/m/{name}.gguf", "origin": "ollama", "architecture": "llama"}
    return {**place, "parameters": 5, "size_bytes": 3 * 1048576, "sha256": "", "known_as": "", **more}


def test_fit(shell: Shell) -> None:
    shell.queen.hosts["mac"] = host("mac")
    result = shell.run("models", "fit", "qwen", "--slots", "4", "--context", "2048")
    assert (result.code, result.err) == (0, "")
    needs, header, local, mac = result.out.splitlines()
    assert needs == (
        "qwen needs 5,000 MiB for 4 slots of 2,048 tokens: weights 4,000, KV cache 600, compute 300, process 100"
    )
    assert header.split()[:2] == ["host", "memory"]
    assert local.split() == ["local", "ram", "fits", "5,000", "8,500", "16,384", "there"]
    assert mac.split() == ["mac", "ram", "too", "small", "5,000", "8,500", "16,384", "stop", "rustbee-1"]
    assert shell.queen.seen[0].body == {"modelcell": "qwen", "slots": 4, "context": 2048}
    assert shell.run("models", "fit", "qwen", "--json").json["need_mib"] == 5000


@pytest.mark.parametrize("why", ["out of reach", "draining"])
def test_fit_of_a_host_that_takes_nothing_now(shell: Shell, why: str) -> None:
    answer = fit("qwen", ["local", "mac"])
    answer["hosts"][1]["would_help"] = why
    shell.queen.answers["POST", f"{MODELS}/fit"] = 200, answer
    line = shell.run("models", "fit", "qwen").out.splitlines()[3]
    assert line.split() == ["mac", "ram", *why.split(), "5,000", "8,500", "16,384"]


def test_copy(shell: Shell) -> None:
    result = shell.run("models", "copy", "qwen", "--to", "mac")
    assert (result.code, result.out) == (0, "qwen is on mac: /m/qwen.gguf (8.0 MiB sent, from local)\n")
    assert result.err == "  copied\n  next: swarmesh spawn rustbee --host mac --modelcell qwen\n"
    assert shell.queen.seen[0].body == {"modelcell": "qwen", "to": "mac"}
    assert shell.run("models", "copy", "qwen", "--to", "mac", "--json").json["host"] == "mac"


def test_copy_to_who_has_it(shell: Shell) -> None:
    shell.queen.answers["POST", f"{MODELS}/copy"] = [finished(copied("qwen", "mac", sent_bytes=0))]
    assert "(it was there already)" in shell.run("models", "copy", "qwen", "--to", "mac").out


def test_copy_that_fails(shell: Shell) -> None:
    shell.queen.answers["POST", f"{MODELS}/copy"] = [step("copy", state="running"), failed("host_lost", "it is gone")]
    result = shell.run("models", "copy", "qwen", "--to", "mac", "--json")
    assert (result.code, result.out) == (1, "")
    assert json.loads(result.err)["error"]["code"] == "host_lost"


def test_scan_of_a_host(shell: Shell) -> None:
    answer = {"found": [found("qwen"), found("llama", known_as="mine")], "errors": {}}
    shell.queen.answers["POST", f"{MODELS}/scan"] = 200, answer
    result = shell.run("models", "scan", "--host", "mac")
    assert result.code == 0
    _, first, second = result.out.splitlines()
    assert first.split() == ["mac", "qwen", "not", "added", "ollama", "3.0", "MiB", "/m/qwen.gguf"]
    assert second.split()[:5] == ["mac", "mine", "in", "its", "catalog"]
    assert result.err == "  next: swarmesh spawn rustbee --host mac --modelcell qwen\n"
    assert shell.queen.seen[0].body == {"host": "mac"}


def test_scan_of_every_host_says_who_could_not_be_asked(shell: Shell) -> None:
    shell.queen.answers["POST", f"{MODELS}/scan"] = 200, {"found": [found("qwen", host="box")], "errors": {"mac": OFF}}
    result = shell.run("models", "scan", "--all-hosts")
    assert result.code == 1
    assert result.out.splitlines()[1].split()[:2] == ["box", "qwen"]
    assert result.err == (
        "  next: swarmesh spawn rustbee --host box --modelcell qwen\n"
        "mac could not be asked: mac is off\n  next: switch it on\n"
    )
    assert shell.queen.seen[0].body == {"host": ""}
    assert shell.run("models", "scan", "--all-hosts", "--json").json["errors"]["mac"]["code"] == "host_unreachable"


def test_scan_of_a_host_that_could_not_be_asked(shell: Shell) -> None:
    shell.queen.answers["POST", f"{MODELS}/scan"] = 200, {"found": [], "errors": {"mac": OFF}}
    result = shell.run("models", "scan", "--host", "mac")
    assert (result.code, result.out, result.err) == (1, "", "error: mac is off\n  next: switch it on\n")


def test_scan_of_nothing(shell: Shell) -> None:
    result = shell.run("models", "scan", "--all-hosts")
    assert (result.code, result.out, result.err) == (0, "", "no models found\n")
