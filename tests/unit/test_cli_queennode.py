"""`swarmesh queennode`, `up`, `down`, `demo`: a queen as a process, played by the fake one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

import fake_queen
from cli_shell import Shell, shell_at
from swarmesh.cli import queen_process
from swarmesh.config.home import Home, QueenFile, read_queen_file
from swarmesh.hosts.agent_file import AgentFile
from swarmesh.hosts.process_identity import boot_id


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    def command(*, port: int | None, host: str | None) -> list[str]:
        return [sys.executable, fake_queen.__file__]

    monkeypatch.setattr(queen_process, "queen_command", command)
    monkeypatch.setattr("swarmesh.cli.queennode.queen_command", command)
    with shell_at(tmp_path / "home", monkeypatch, capsys, named=False) as shell:
        yield shell
        queen_process.stop_queen(Home(shell.home))


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    """A process that can stand for an agent."""
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        yield psutil.Process(process.pid)
        process.kill()


def pretend_agent(home: Path, process: psutil.Process, rustbee_id: str = "rustbee-1") -> None:
    directory = Home(home).worker_dir(rustbee_id)
    directory.mkdir(parents=True)
    AgentFile(
        rustbee_id=rustbee_id,
        modelcell="demo",
        pid=process.pid,
        started_at=process.create_time(),
        boot_id=boot_id(),
        socket_path=str(home / "a.sock"),
        engine_socket_path=str(home / "e.sock"),
    ).write(directory)


def note_of(shell: Shell) -> QueenFile:
    note = read_queen_file(Home(shell.home).queen_file)
    assert note is not None
    return note


def test_start_status_stop(shell: Shell) -> None:
    started = shell.run("queennode", "start")
    assert started.code == 0
    note = note_of(shell)
    assert f"healthy at {note.url}, pid {note.pid}" in started.out
    assert os.getsid(note.pid) == note.pid, "she does not end with this terminal"
    assert shell.run("queennode", "status", "--json").json["url"] == note.url
    assert "no_rustbees" in shell.run("queennode", "status").out
    again = shell.run("queennode", "start")
    assert (again.code, again.out) == (0, f"the queennode runs already at {note.url}, pid {note.pid}\n")
    assert shell.run("queennode", "stop").out == f"the queennode, pid {note.pid}, has ended\n"
    assert shell.run("queennode", "stop").out == "no queennode runs here\n"
    assert shell.run("queennode", "status").code == 3


def test_a_queen_that_does_not_start_says_why_in_her_own_words(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.dumps(fake_queen.error("port_taken", "port 8500 is taken by pid 7 (cat)", "choose another port"))
    monkeypatch.setenv("FAKE_QUEEN_FAILS", said)
    result = shell.run("queennode", "start")
    expected = "error: port 8500 is taken by pid 7 (cat)\n  next: choose another port\n"
    assert (result.code, result.out, result.err) == (1, "", expected)
    as_json = shell.run("up", "--modelcell", "demo")
    assert as_json.code == 1
    foreground = shell.run("queennode", "start", "--foreground")
    assert (foreground.code, foreground.err) == (1, f"a line of the log\n{expected}")


def test_a_queen_that_ends_without_a_word(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_QUEEN_FAILS", "Killed")
    result = shell.run("queennode", "start")
    assert result.code == 1
    assert "error: the queennode ended with exit code 1; its last line is 'Killed'" in result.err
    assert f"next: See {shell.home}/logs/queennode.log" in result.err


def test_a_queen_that_never_gets_healthy_is_ended(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queen_process, "START_WAIT_S", 0.0)
    result = shell.run("queennode", "start")
    assert result.code == 1
    assert "was not healthy within 0 s" in result.err
    assert queen_process.running_queen(Home(shell.home)) is None


def test_foreground_carries_signals_and_exit_code(shell: Shell) -> None:
    command = "import sys; from swarmesh.cli import queennode; from swarmesh.cli.program import run; "
    command += f"queennode.queen_command = lambda **_: [sys.executable, {fake_queen.__file__!r}]; "
    command += "sys.exit(run(['swarmesh', 'queennode', 'start', '--foreground']))"
    with subprocess.Popen([sys.executable, "-c", command], env=dict(os.environ)) as process:
        queen_file = Home(shell.home).queen_file
        watched = psutil.Process(process.pid)
        while not queen_file.exists():
            with pytest.raises(psutil.TimeoutExpired):
                watched.wait(0.05)
        queen = psutil.Process(note_of(shell).pid)
        assert queen.ppid() == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not queen.is_running()


def test_a_note_of_a_dead_queen_is_no_queen(shell: Shell, sleeper: psutil.Process) -> None:
    shell.home.mkdir()
    # The pid lives, but its process began long after the note was written: it is somebody else.
    note = QueenFile("http://127.0.0.1:1", sleeper.pid, sleeper.create_time() - 1000, "0.1.0")
    (shell.home / "queen.json").write_bytes(msgspec.json.encode(note))
    assert shell.run("down").out == "no queennode runs here\n"
    assert sleeper.is_running()


def test_up_starts_what_is_missing(shell: Shell) -> None:
    result = shell.run("up", "--modelcell", "demo", "--rustbees", "2")
    assert result.code == 0
    note = note_of(shell)
    assert result.out == f"the queennode is healthy at {note.url}, 2 rustbees serve demo\n"
    assert "spawned rustbee-1 for demo" in result.err
    assert "spawned rustbee-2 for demo" in result.err
    again = shell.run("up", "--rustbees", "2")
    assert again.code == 0
    assert "spawned" not in again.err
    assert note_of(shell).pid == note.pid


def test_up_waits_for_rustbees_of_an_earlier_queen(
    shell: Shell, sleeper: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_agent(shell.home, sleeper)
    monkeypatch.setattr("swarmesh.cli.up.REGISTER_WAIT_S_MAX", 0.0)
    result = shell.run("up", "--rustbees", "1")
    assert result.code == 1
    assert "no rustbee is called 'rustbee-1'" in result.err


def test_demo_without_its_drill(shell: Shell) -> None:
    result = shell.run("demo", "--no-chaos")
    assert result.code == 0
    lines = result.out.splitlines()
    note = note_of(shell)
    assert lines[0] == f"The queennode is healthy at {note.url}. Rustbees: rustbee-1, rustbee-2."
    assert "> What is a rustbee?\nA worker.\n" in result.out
    for step in ('eval "$(swarmesh env)"', f"curl {note.url}/v1/chat/completions", "from openai import OpenAI"):
        assert step in result.out
    assert f"export SWARMESH_HOME={shell.home}" in result.out
    assert psutil.pid_exists(note.pid)


def test_down_leaves_the_rustbees(shell: Shell, sleeper: psutil.Process) -> None:
    shell.run("up")
    pretend_agent(shell.home, sleeper)
    result = shell.run("down")
    assert result.code == 0
    assert "has ended" in result.out
    assert "1 rustbee goes on (1 here); 'swarmesh down --all' stops it too" in result.err
    assert sleeper.is_running()


def test_down_all_stops_everything(shell: Shell, sleeper: psutil.Process) -> None:
    shell.run("up", "--rustbees", "2")
    note = note_of(shell)
    pretend_agent(shell.home, sleeper, "rustbee-9")
    result = shell.run("down", "--all")
    assert result.code == 0
    assert result.out == f"the queennode, pid {note.pid}, has ended\n3 rustbees have ended, nothing is left\n"
    assert sleeper.status() == psutil.STATUS_ZOMBIE
    assert queen_process.running_queen(Home(shell.home)) is None


def test_down_all_without_a_queen(shell: Shell, sleeper: psutil.Process) -> None:
    pretend_agent(shell.home, sleeper)
    result = shell.run("down", "--all")
    assert (result.code, result.out) == (0, "no queennode runs here\n1 rustbee has ended, nothing is left\n")
    assert sleeper.status() == psutil.STATUS_ZOMBIE


def test_env(shell: Shell) -> None:
    assert shell.run("env").code == 3
    shell.run("queennode", "start")
    url = note_of(shell).url
    lines = [f"export OPENAI_BASE_URL={url}/v1", f"export OPENAI_API_KEY={fake_queen.KEY}"]
    assert shell.run("env").out.splitlines() == lines
    assert shell.run("env", "--json").json == {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": fake_queen.KEY}
