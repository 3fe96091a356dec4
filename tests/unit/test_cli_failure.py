"""How commands fail: exit codes, words, and never a traceback."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_shell import Shell, shell_at
from fake_queen import accepted, error, token
from swarmesh.cli.main import main

FULL = Path("/dev/full")

COMMANDS_THAT_ASK = [
    ["rustbees", "list"],
    ["rustbees", "stop", "rustbee-1"],
    ["waggle", "status"],
    ["queennode", "status"],
    ["spawn", "rustbee", "--modelcell", "demo"],
    ["nectarflow", "submit", "--prompt", "Hello"],
    ["nectarflow", "submit", "--prompt", "Hello", "--detach"],
    ["nectarflow", "show", "job-1"],
    ["nectarflow", "list"],
    ["nectarflow", "cancel", "job-1"],
    ["hosts", "list"],
    ["hosts", "show", "mac"],
    ["hosts", "add", "mac"],
    ["hosts", "remove", "mac"],
    ["hosts", "drain", "mac"],
    ["hosts", "doctor", "mac"],
    ["models", "fit", "qwen"],
    ["models", "copy", "qwen", "--to", "mac"],
    ["models", "scan", "--all-hosts"],
    ["honeytokens", "collect", "--job-id", "job-1"],
    ["honeytokens", "collect", "--job-id", "job-1", "--follow"],
]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with shell_at(tmp_path, monkeypatch, capsys) as shell:
        yield shell


@pytest.mark.parametrize("command", COMMANDS_THAT_ASK, ids=" ".join)
def test_no_queen_is_exit_3(shell: Shell, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWARMESH_URL")
    result = shell.run(*command)
    assert result.code == 3
    assert result.out == ""
    first, second = result.err.splitlines()
    assert first.startswith(f"error: no queennode runs with the home {shell.home}")
    assert second.startswith("  next: 'swarmesh up'")


@pytest.mark.parametrize("command", COMMANDS_THAT_ASK, ids=" ".join)
def test_a_wrong_key_is_exit_1(shell: Shell, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMESH_API_KEY", "wrong")
    result = shell.run(*command)
    assert (result.code, result.out) == (1, "")
    assert result.err == "error: no valid API key came with the request\n  next: send one\n"


@pytest.mark.parametrize("more", [[], ["--detach"]])
def test_a_refused_task_is_named(shell: Shell, more: list[str]) -> None:
    shell.queen.refused_as = "flow-1a2b"
    shell.queen.answers["POST", "/v2/swarmesh/nectarflow"] = (429, error("queue_full", "too many wait", "wait"))
    command = ["nectarflow", "submit", "--prompt", "Hello", *more]
    result = shell.run(*command)
    assert (result.code, result.out) == (1, "")
    assert result.err == "error: too many wait\n  next: wait\n  next: swarmesh explain refusal flow-1a2b\n"
    assert json.loads(shell.run(*command, "--json").err)["error"]["code"] == "queue_full"


def test_json_errors_go_to_stderr_as_the_envelope(shell: Shell) -> None:
    result = shell.run("nectarflow", "show", "job-9", "--json")
    assert (result.code, result.out) == (1, "")
    assert json.loads(result.err)["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["nectarflow", "submit"], "either --prompt or --input"),
        (["nectarflow", "submit", "--prompt", "a", "--input", "1"], "either --prompt or --input"),
        (["nectarflow", "submit", "--input", "{"], "--input is no JSON"),
        (["nectarflow", "submit", "--prompt", "a", "--priority", "urgent"], "'--priority'"),
        (["nectarflow", "submit", "--prompt", "a", "--max-tokens", "0"], "'--max-tokens'"),
        (["nectarflow", "submit", "--prompt", "a", "--temperature", "hot"], "'--temperature'"),
        (["spawn", "rustbee"], "Missing option '--modelcell'"),
        (["spawn", "rustbee", "--modelcell", "a", "--type", "quantum"], "'--type'"),
        (["spawn", "rustbee", "--modelcell", "a", "--type", "openai"], "--type openai needs --url"),
        (["spawn", "rustbee", "--modelcell", "a", "--type", "cpu", "--url", "http://x"], "--url needs --type openai"),
        (["spawn", "rustbee", "--modelcell", "a", "--type", "cpu", "--class", "m:C"], "--class needs --type python"),
        (["spawn", "rustbee", "--modelcell", "a", "--url", "http://x", "--class", "m:C"], "do not go together"),
        (["spawn", "rustbee", "--modelcell", "a", "--url", "http://x", "--api-key-env", "NOT_THERE"], "NOT_THERE"),
        (["rustbee", "spawn", "openai", "--modelcell", "a"], "adopted by the queennode"),
        (["hosts", "add"], "Missing argument"),
        (["hosts", "add", "mac", "--port", "ssh"], "'--port'"),
        (["hosts", "add", "-oProxyCommand=true"], "No such option"),
        (["models", "copy", "qwen"], "Missing option '--to'"),
        (["models", "fit", "qwen", "--slots", "0"], "'--slots'"),
        (["models", "scan", "--host", "mac", "--all-hosts"], "stand alone"),
        (["models", "scan", "/models", "--host", "mac"], "stand alone"),
        (["models", "scan", "--dry-run", "--all-hosts"], "stand alone"),
        (["honeytokens", "collect"], "Missing option '--job-id'"),
        (["policy", "use", "swarm", "--modelcell", ""], "the name is empty"),
        (["swarmscale", "pause", ""], "the name is empty"),
        (["swarmscale", "resume", " "], "the name is empty"),
        (["swarmscale", "set", "demo", "--max", "1001"], "'--max'"),
        (["rustbees", "lsit"], "Did you mean 'list'?"),
        (["rustbeees"], "Did you mean 'rustbees'"),
        (["rustbees", "list", "--jsn"], "No such option: --jsn"),
        (["queennode", "start", "--port", "99999"], "'--port'"),
    ],
)
def test_usage_errors_are_exit_2(shell: Shell, command: list[str], words: str) -> None:
    result = shell.run(*command)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert words in result.err
    assert "\n  next: " in result.err
    assert shell.queen.seen == []


@pytest.mark.parametrize(
    "command", [[], ["nectarflow"], ["spawn"], ["honeytokens"], ["waggle"], ["rustbee"], ["hosts"]]
)
def test_a_noun_alone_shows_its_commands_and_is_exit_2(shell: Shell, command: list[str]) -> None:
    result = shell.run(*command)
    assert result.code == 2
    assert "Usage: swarmesh" in result.out
    assert "error" not in result.err


def test_help_is_exit_0(shell: Shell) -> None:
    result = shell.run("nectarflow", "submit", "--help")
    assert result.code == 0
    assert "--priority" in result.out


def test_a_spawn_that_fails_says_why(shell: Shell) -> None:
    shell.queen.spawn_error = error("engine_start_failed", "no GPU 3", "leave --gpu out")["error"]
    result = shell.run("spawn", "rustbee", "--modelcell", "demo", "--gpu", "3")
    assert (result.code, result.out) == (1, "")
    assert "error: no GPU 3\n  next: leave --gpu out" in result.err


def test_an_answer_that_breaks_off_is_exit_1_and_its_text_is_kept(shell: Shell) -> None:
    fail = b"event: error\ndata: %s\n\n" % json.dumps(error("rustbee_lost", "it is gone")).encode()
    shell.queen.streams = [[accepted(), token(1, "Hel"), fail]]
    result = shell.run("nectarflow", "submit", "--prompt", "Hello")
    assert (result.code, result.out, result.err) == (1, "Hel\n", "error: it is gone\n")


@pytest.mark.parametrize("command", [["nectarflow", "submit", "--prompt", "Hello"]])
def test_ctrl_c_is_exit_130_and_quiet_and_frees_the_slot(shell: Shell, command: list[str]) -> None:
    never = threading.Event()
    shell.queen.streams = [[accepted(), token(1, "Hel"), never]]
    with shell.start(*command) as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"Hel"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    never.set()
    assert (process.returncode, out, err) == (130, b"\n", b"")
    assert len(shell.queen.requests("DELETE", "/v2/swarmesh/nectarflow/job-1")) == 1


def test_ctrl_c_while_following_leaves_the_task_alone(shell: Shell) -> None:
    never = threading.Event()
    shell.queen.streams = [[token(1, "Hel"), never]]
    with shell.start("honeytokens", "collect", "--job-id", "job-1", "--follow") as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"Hel"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    never.set()
    assert (process.returncode, err) == (130, b"")
    assert len(shell.queen.seen) == 1


def test_a_reader_that_leaves_ends_the_command_quietly(shell: Shell) -> None:
    go_on = threading.Event()
    shell.queen.streams = [[accepted(), token(1, "Hel"), go_on, *(token(n, "x" * 9000) for n in range(2, 40))]]
    with shell.start("nectarflow", "submit", "--prompt", "Hello") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(3) == b"Hel"
        process.stdout.close()
        go_on.set()
        assert process.stderr.read() == b""
        assert process.wait(20) == 1
    assert len(shell.queen.requests("DELETE", "/v2/swarmesh/nectarflow/job-1")) == 1


def test_a_reader_that_was_gone_before_is_no_error_to_speak_of(shell: Shell) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    try:
        with shell.start("version", "--help", stdout=writes) as process:
            _, err = process.communicate(timeout=20)
    finally:
        os.close(writes)
    assert (process.returncode, err) == (1, b"")


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize(
    "command",
    [
        ["sim", "run", "--workload", "agent", "--requests", "5"],
        ["rustbees", "list", "--json"],
        ["sim", "run", "--help"],
    ],
)
def test_output_that_cannot_be_written_is_said(shell: Shell, command: list[str]) -> None:
    with FULL.open("wb") as full, shell.start(*command, stdout=full) as process:
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (1, b"error: output cannot be written: No space left on device\n")


def test_ctrl_c_while_modules_are_loaded_is_exit_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_argv: list[str]) -> int:
        raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()

    monkeypatch.setattr("swarmesh.cli.program.run", run)
    monkeypatch.setattr("sys.argv", ["swarmesh", "policy", "list"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130


def test_what_the_parser_refuses_is_the_users_mistake(shell: Shell) -> None:
    for command in (["explain", "task"], ["explain", "nothing", "x"], ["swarmscale", "set", "demo", "--max", "x"]):
        result = shell.run(*command, "--json")
        said = json.loads(result.err)["error"]
        assert (result.code, said["code"], said["type"]) == (2, "usage_error", "invalid_request_error")


def test_no_error_of_the_queen_commands_the_terminal(shell: Shell) -> None:
    said = error("not_found", "no \x1b[31mtask", "ask \x9bagain")
    shell.queen.answers["GET", "/v2/swarmesh/nectarflow/job-1"] = (404, said)
    assert shell.run("nectarflow", "show", "job-1").err == "error: no [31mtask\n  next: ask again\n"
