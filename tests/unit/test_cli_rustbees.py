"""`swarmesh spawn rustbee`, `swarmesh rustbees`, `swarmesh waggle`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli_shell import Shell, shell_at, terminal
from fake_queen import copied, error, failed, finished, rustbee, step
from swarmesh.cli import waiting

FIELDS = {
    "rustbee_id",
    "modelcell",
    "backend",
    "host",
    "location",
    "status",
    "load",
    "slots",
    "slots_busy",
    "vram_used",
    "quality",
    "uptime_s",
    "pid",
    "engine_pid",
    "next_waggle",
}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with shell_at(tmp_path, monkeypatch, capsys) as shell:
        yield shell


def test_spawn_waits_until_the_rustbee_is_healthy(shell: Shell) -> None:
    shell.queen.loading = 2
    result = shell.run("spawn", "rustbee", "--type", "cpu", "--modelcell", "demo", "--json")
    assert result.code == 0
    assert result.json["rustbee_id"] == "rustbee-1"
    assert result.json["status"] == "healthy"
    assert len(shell.queen.requests("GET", "/v2/swarmesh/rustbees/rustbee-1")) == 3
    assert shell.queen.seen[0].body == {"type": "cpu", "modelcell": "demo"}


REFERENCE = "hf:org/repo/qwen.gguf"


@pytest.mark.parametrize("options", [[], ["--no-wait"]])
def test_spawn_of_a_model_of_the_hub_downloads_it_first(shell: Shell, options: list[str]) -> None:
    script = [step("download", "org/repo/qwen.gguf"), finished(copied("qwen", "localhost"))]
    shell.queen.answers["POST", "/v2/swarmesh/models/copy"] = script
    result = shell.run("spawn", "rustbee", "--modelcell", REFERENCE, "--host", "mac", *options)
    assert result.code == 0
    assert result.err.splitlines()[0] == "  org/repo/qwen.gguf"
    assert shell.queen.seen[0].body == {"modelcell": REFERENCE, "to": "localhost"}
    assert shell.queen.seen[1].body == {"type": "auto", "modelcell": "qwen", "host": "mac"}


def test_a_download_that_fails_spawns_nothing(shell: Shell) -> None:
    shell.queen.answers["POST", "/v2/swarmesh/models/copy"] = [failed("download_failed", "the hub is away")]
    result = shell.run("spawn", "rustbee", "--modelcell", REFERENCE)
    assert (result.code, result.out, len(shell.queen.seen)) == (1, "", 1)
    assert "the hub is away" in result.err


def test_spawn_no_wait(shell: Shell) -> None:
    result = shell.run("spawn", "rustbee", "--modelcell", "demo", "--no-wait", "--json")
    assert result.json == {"rustbee_id": "rustbee-1", "status": "starting"}
    assert len(shell.queen.seen) == 1
    assert shell.run("spawn", "rustbee", "--modelcell", "demo", "--no-wait").out == "rustbee-2 is starting\n"


def test_spawn_passes_its_options_on(shell: Shell) -> None:
    options = ["--host", "mac", "--gpu", "1", "--cellalloc", "512", "--slots", "2", "--context", "1024"]
    result = shell.run("spawn", "rustbee", "--type", "cuda", "--modelcell", "qwen", *options)
    assert (result.code, result.out) == (0, "rustbee-1 is healthy on mac\n")
    assert shell.queen.seen[0].body == {
        "type": "cuda",
        "modelcell": "qwen",
        "host": "mac",
        "gpu": 1,
        "cellalloc": 512,
        "slots": 2,
        "context": 1024,
    }


def test_spawn_adopts_a_server_and_takes_its_key_from_a_variable(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOX_KEY", "sk-box")
    options = ["--url", "http://box:11434", "--api-key-env", "BOX_KEY"]
    assert shell.run("spawn", "rustbee", "--modelcell", "qwen", *options).code == 0
    body = shell.queen.seen[0].body
    assert body == {"type": "openai", "modelcell": "qwen", "url": "http://box:11434", "api_key": "sk-box"}


def test_spawn_of_a_class_of_ones_own(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert shell.run("spawn", "rustbee", "--modelcell", "stats", "--class", "m:C", "--python-path", "lib").code == 0
    body = shell.queen.seen[0].body
    assert body == {"type": "python", "modelcell": "stats", "class_path": "m:C", "python_path": str(tmp_path / "lib")}


def test_a_rustbee_that_never_gets_ready(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.queen.loading = 1000
    monkeypatch.setattr(waiting, "LOAD_WAIT_S_MAX", 0.0)
    result = shell.run("spawn", "rustbee", "--modelcell", "demo")
    assert result.code == 1
    assert "error: still not healthy after" in result.err


def fast_clock() -> SimpleNamespace:
    """Each look at it takes 200 seconds."""
    clock_s = itertools.count(step=200.0)
    return SimpleNamespace(monotonic=lambda: next(clock_s), sleep=lambda _s: None)


def copying(done_bytes: int, total_bytes: int = 8 * 1048576) -> dict[str, Any]:
    step = {"step": "copy", "state": "running", "text": "copying demo to mac"}
    return {**step, "done_bytes": done_bytes, "total_bytes": total_bytes}


def test_a_copy_that_moves_on_is_waited_for_however_long_it_takes(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "time", fast_clock())
    shell.queen.loading = 40
    shell.queen.progress = [copying(done) for done in range(38)]
    result = shell.run("spawn", "rustbee", "--modelcell", "demo", "--host", "mac")
    assert result.code == 0
    assert result.err.splitlines().count("copying demo to mac") == 1


def test_a_copy_that_stands_still_is_not(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "time", fast_clock())
    shell.queen.loading = 40
    shell.queen.progress = [copying(5)] * 38
    result = shell.run("spawn", "rustbee", "--modelcell", "demo", "--host", "mac")
    assert result.code == 1
    assert "still not healthy after" in result.err


def test_a_copy_is_shown_on_a_terminal(shell: Shell) -> None:
    shell.queen.loading = 4
    shell.queen.progress = [copying(2 * 1048576)] * 3
    with terminal() as seen:
        with shell.start("spawn", "rustbee", "--modelcell", "demo", "--json", stderr=seen.end) as process:
            process.communicate(timeout=60)
        shown = seen.shown()
    assert process.returncode == 0
    assert "copying demo to mac [#####...............] 25%, 2.0 MiB of 8.0 MiB" in shown


def test_loading_is_shown_on_a_terminal(shell: Shell) -> None:
    shell.queen.loading = 4
    with terminal() as seen:
        with shell.start("spawn", "rustbee", "--modelcell", "demo", "--json", stderr=seen.end) as process:
            out, _ = process.communicate(timeout=60)
        shown = seen.shown()
    assert process.returncode == 0
    assert b'"status":"healthy"' in out
    assert "loading demo: 0 of 1 rustbee healthy" in shown


def test_list(shell: Shell) -> None:
    shell.queen.rustbees = {"rustbee-1": rustbee("rustbee-1"), "rustbee-2": rustbee("rustbee-2", status="suspect")}
    result = shell.run("rustbees", "list")
    assert result.code == 0
    header, first, second = result.out.splitlines()
    assert header.split()[:5] == ["rustbee", "modelcell", "type", "host", "status"]
    assert first == "rustbee-1  demo       cpu   local  healthy  1/4    99   0.95     1m05s"
    assert second.split()[4] == "suspect"
    views = shell.run("rustbees", "list", "--json").json
    assert [view["rustbee_id"] for view in views] == ["rustbee-1", "rustbee-2"]
    assert views[0].keys() >= FIELDS


def test_list_says_why_one_could_not_be_taken_back(shell: Shell) -> None:
    why = error("not_adopted", "its\x1b hive is another", "swarmesh rustbees stop rustbee-1")["error"]
    dead = rustbee("rustbee-2", status="dead", error=why)
    shell.queen.rustbees = {"rustbee-1": rustbee("rustbee-1", status="suspect", error=why), "rustbee-2": dead}
    result = shell.run("rustbees", "list")
    assert result.code == 0
    assert result.err == "rustbee-1: its hive is another\n  next: swarmesh rustbees stop rustbee-1\n"


def test_list_shows_how_far_a_copy_is(shell: Shell) -> None:
    waits = rustbee("rustbee-1", host="mac", status="starting", progress=copying(3 * 1048576))
    shell.queen.rustbees = {"rustbee-1": waits}
    assert "  mac   starting, copy 38%  " in shell.run("rustbees", "list").out


@pytest.mark.parametrize(("width", "coloured"), [(80, True), (40, False)])
def test_list_on_a_terminal(shell: Shell, width: int, coloured: bool) -> None:  # noqa: FBT001 - pytest's parameter
    shell.queen.rustbees = {"rustbee-1": rustbee("rustbee-1", modelcell="[red]odd")}
    with terminal(width) as seen:
        with shell.start("rustbees", "list", stdout=seen.end) as process:
            process.wait(60)
        shown = seen.shown()
    assert ("\x1b[" in shown) is coloured
    assert "[red]odd" in shown
    assert "1m05s" in shown


def test_an_empty_list_says_what_to_do(shell: Shell) -> None:
    result = shell.run("rustbees", "list")
    assert (result.code, result.out) == (0, "")
    assert "next: swarmesh spawn rustbee" in result.err
    assert shell.run("rustbees", "list", "--json").out == "[]\n"


def test_stop(shell: Shell) -> None:
    shell.queen.rustbees = {"rustbee-1": rustbee("rustbee-1"), "rustbee-2": rustbee("rustbee-2")}
    result = shell.run("rustbees", "stop", "rustbee-1", "--grace", "5")
    assert (result.code, result.out) == (0, "rustbee-1 has ended\n")
    assert shell.queen.seen[0].query == {"grace_s": "5"}
    assert shell.run("rustbees", "stop", "rustbee-2", "--no-wait").out == "rustbee-2 is draining\n"
    assert shell.run("rustbees", "stop", "rustbee-2").code == 1
    shell.queen.rustbees = {"rustbee-3": rustbee("rustbee-3")}
    assert shell.run("rustbees", "stop", "rustbee-3", "--json").json == {"rustbee_id": "rustbee-3", "status": "ended"}


def test_a_rustbee_that_does_not_stop(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmesh.cli.rustbees.STOP_SLACK_S", -1.0)
    shell.queen.rustbees = {"rustbee-1": rustbee("rustbee-1")}
    shell.queen.answers["DELETE", "/v2/swarmesh/rustbees/rustbee-1"] = 202, {}
    result = shell.run("rustbees", "stop", "rustbee-1", "--grace", "0")
    assert result.code == 1
    assert "still there after -1 s: rustbee-1 (pid 101)" in result.err


def test_waggle_status(shell: Shell) -> None:
    shell.queen.rustbees = {"rustbee-1": rustbee("rustbee-1")}
    message = "the engine ended:\n  in the middle\n\x1b[31msignal 9\n"
    shell.queen.alarms = [{"rustbee_id": "rustbee-0", "code": "engine_died", "message": message, "at": 1.0}]
    result = shell.run("waggle", "status")
    assert result.code == 0
    header, row, alarm = result.out.splitlines()
    assert header == "rustbee    modelcell  status   load  MiB  quality  trail  tokens/s  age    took    next"
    assert row == "rustbee-1  demo       healthy  0.25  99   0.95     1.00   12.5      0.4 s  1.5 ms  30 s"
    assert alarm.endswith("rustbee-0  engine_died: the engine ended: ... [31msignal 9")
    waggles = shell.run("waggle", "status", "--json").json
    assert waggles[0]["waggle_rtt_ms"] == 1.5
