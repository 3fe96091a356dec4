"""`swarmesh chaos`: drills hit exactly the process they are meant for, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import fake_queen
from cli_shell import Bee, Shell, Sleeper, ended, shell_at, sleepers
from fake_queen import error, rustbee
from swarmesh.cli import queen_process
from swarmesh.config.home import Home, read_queen_file

Told = list[tuple[int | None, str | None]]
"""Port and host of every queen that was started."""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with shell_at(tmp_path, monkeypatch, capsys) as shell:
        yield shell


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    with sleepers() as start:
        yield start


@pytest.fixture
def bee(shell: Shell, sleeper: Sleeper) -> Bee:
    return Bee(shell, sleeper, "rustbee-1")


def test_kill_worker_kills_agent_and_engine(shell: Shell, bee: Bee) -> None:
    result = shell.run("chaos", "kill-worker", "rustbee-1")
    assert result.code == 0
    assert result.out == f"killed rustbee-1 with -9: agent pid {bee.agent.pid}, engine pid {bee.engine.pid}\n"
    assert "swarmesh rustbees list; swarmesh waggle status" in result.err
    assert (ended(bee.agent), ended(bee.engine)) == (-signal.SIGKILL, -signal.SIGKILL)


def test_kill_worker_can_leave_the_agent(shell: Shell, bee: Bee) -> None:
    result = shell.run("chaos", "kill-worker", "rustbee-1", "--engine-only", "--json")
    assert result.json == {
        "drill": "kill-worker",
        "rustbee_id": "rustbee-1",
        "agent_pid": None,
        "engine_pid": bee.engine.pid,
    }
    assert ended(bee.engine) == -signal.SIGKILL
    assert bee.lives == (True, False)


def test_the_busiest_rustbee_of_this_machine_is_taken(shell: Shell, sleeper: Sleeper, bee: Bee) -> None:
    shell.queen.rustbees["rustbee-2"] = rustbee("rustbee-2", slots_busy=4, host="mac", pid=bee.agent.pid)
    busy = Bee(shell, sleeper, "rustbee-3", busy=2)
    result = shell.run("chaos", "kill-worker")
    assert "took rustbee-3, 2 of its 4 cells busy" in result.err
    assert (ended(busy.agent), ended(busy.engine)) == (-signal.SIGKILL, -signal.SIGKILL)
    assert (bee.lives, busy.lives) == ((True, True), (False, False))
    shell.queen.rustbees["rustbee-3"]["status"] = "dead"
    assert "took rustbee-1, 0 of its 4 cells busy" in shell.run("chaos", "kill-worker").err


def test_nobody_to_take(shell: Shell) -> None:
    shell.queen.rustbees["rustbee-2"] = rustbee("rustbee-2", status="starting")
    for command in (["kill-worker"], ["pause-worker"], ["cut"]):
        result = shell.run("chaos", *command)
        assert result.code == 1
        assert "error: no healthy rustbee is there for this drill\n  next: 'swarmesh rustbees list'" in result.err


@pytest.mark.parametrize(
    ("view", "code", "words"),
    [
        ({"host": "mac", "pid": 4711}, "rustbee_elsewhere", "(host mac, pid 4711) is no process of the home"),
        ({"backend": "openai", "pid": 0}, "rustbee_not_ours", "rustbee-1 is the adopted server at unix:"),
        ({"status": "dead"}, "process_gone", "is dead already"),
    ],
)
@pytest.mark.parametrize("command", [["kill-worker"], ["kill-worker", "--engine-only"], ["pause-worker"]], ids=" ".join)
def test_what_is_not_ours_to_kill(
    shell: Shell, bee: Bee, command: list[str], view: dict[str, object], code: str, words: str
) -> None:
    shell.queen.rustbees["rustbee-1"] |= view
    result = shell.run("chaos", *command, "rustbee-1", "--json")
    assert (result.code, result.out) == (1, "")
    assert f'"code":"{code}"' in result.err
    assert words in result.err
    assert bee.lives == (True, True)


def test_a_pid_that_is_somebody_elses_by_now(shell: Shell, sleeper: Sleeper) -> None:
    bee = Bee(shell, sleeper, "rustbee-1", older_s=1000)
    result = shell.run("chaos", "kill-worker", "rustbee-1")
    assert result.code == 1
    assert f"the agent of rustbee-1, pid {bee.agent.pid}, has ended" in result.err
    assert bee.lives == (True, True)


def test_an_id_does_not_lead_out_of_the_home(shell: Shell, bee: Bee) -> None:
    evil = "../rustbees/rustbee-1"
    shell.queen.rustbees[evil] = rustbee(evil, pid=bee.agent.pid)
    assert "is no process of the home" in shell.run("chaos", "kill-worker", evil).err
    assert bee.lives == (True, True)


def test_an_engine_that_is_not_there(shell: Shell, bee: Bee) -> None:
    bee.engine.kill()
    ended(bee.engine)
    result = shell.run("chaos", "kill-worker", "rustbee-1", "--engine-only")
    assert result.code == 1
    assert f"the engine of rustbee-1, pid {bee.engine.pid}, has ended" in result.err
    whole = shell.run("chaos", "kill-worker", "rustbee-1")
    assert whole.code == 0
    assert ended(bee.agent) == -signal.SIGKILL


@pytest.mark.parametrize("which", ["agent", "engine"])
def test_a_paused_process_goes_on(shell: Shell, bee: Bee, which: str) -> None:
    result = shell.run("chaos", "pause-worker", "rustbee-1", "--for-s", "0.1", f"--{which}", "--json")
    process = getattr(bee, which)
    assert result.code == 0
    assert result.json == {
        "drill": "pause-worker",
        "rustbee_id": "rustbee-1",
        "process": which,
        "pid": process.pid,
        "paused_s": 0.1,
        "ended_after_s": None,
    }
    assert f"paused the {which} of rustbee-1, pid {process.pid}, for 0.1 s" in result.err
    assert process.status() != psutil.STATUS_STOPPED


def test_an_engine_that_is_killed_while_it_is_paused(shell: Shell, bee: Bee) -> None:
    with shell.start("chaos", "pause-worker", "rustbee-1", "--for-s", "60", "--json") as command:
        assert command.stderr is not None
        assert b"paused the engine" in command.stderr.readline()
        wait_stopped(bee.engine)
        bee.engine.kill()
        out, _ = command.communicate(timeout=40)
    assert command.returncode == 0
    assert 0 <= json.loads(out)["ended_after_s"] < 60


def wait_stopped(process: psutil.Process) -> None:
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_pause_leaves_nothing_paused(shell: Shell, bee: Bee, signum: signal.Signals) -> None:
    with shell.start("chaos", "pause-worker", "rustbee-1", "--for-s", "60") as command:
        assert command.stderr is not None
        assert b"paused the engine" in command.stderr.readline()
        wait_stopped(bee.engine)
        command.send_signal(signum)
        command.communicate(timeout=20)
    assert command.returncode == 130
    assert bee.engine.status() != psutil.STATUS_STOPPED


def test_cut(shell: Shell) -> None:
    shell.queen.rustbees["rustbee-1"] = rustbee("rustbee-1", host="mac", slots_busy=0)
    result = shell.run("chaos", "cut", "--for-s", "2.5")
    assert result.code == 0
    assert result.out == "rustbee-1 is cut off from the queennode for 2.5 s; it heals by itself\n"
    assert shell.queen.requests("POST", "/v2/swarmesh/rustbees/rustbee-1/cut")[0].body == {"seconds": 2.5}
    named = shell.run("chaos", "cut", "rustbee-1", "--json")
    assert named.json == {"drill": "cut", "rustbee_id": "rustbee-1", "seconds": 5.0}
    assert shell.run("chaos", "cut", "rustbee-7").code == 1
    assert shell.run("chaos", "cut", "rustbee-1", "--for-s", "301").code == 2


def test_help_says_that_these_are_drills(shell: Shell) -> None:
    for command in ([], ["kill-worker"], ["kill-queen"], ["pause-worker"], ["cut"]):
        assert "Drill" in shell.run("chaos", *command, "--help").out


@pytest.fixture
def queen_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[tuple[Shell, Told]]:
    """A shell whose queen is a process, and where each of them was told to listen."""
    told: Told = []

    def command(*, port: int | None, host: str | None) -> list[str]:
        told.append((port, host))
        return [sys.executable, fake_queen.__file__]

    monkeypatch.setattr(queen_process, "queen_command", command)
    with shell_at(tmp_path / "home", monkeypatch, capsys, named=False) as shell:
        yield shell, told
        queen_process.stop_queen(Home(shell.home))


def test_kill_queen_starts_her_again_where_she_was(
    queen_shell: tuple[Shell, Told],
) -> None:
    shell, told = queen_shell
    assert shell.run("chaos", "kill-queen").code == 3
    shell.run("queennode", "start")
    first = read_queen_file(Home(shell.home).queen_file)
    assert first is not None
    result = shell.run("chaos", "kill-queen", "--json")
    second = read_queen_file(Home(shell.home).queen_file)
    assert second is not None
    assert result.json["pid"] == first.pid
    assert result.json["new_pid"] == second.pid != first.pid
    assert result.json["url"] == second.url
    assert 0 < result.json["down_s"] < 30
    assert not psutil.pid_exists(first.pid) or psutil.Process(first.pid).status() == psutil.STATUS_ZOMBIE
    port = int(first.url.rpartition(":")[2])
    assert told == [(None, None), (port, "127.0.0.1")]
    again = shell.run("chaos", "kill-queen", "--port", "0")
    assert f"killed the queennode, pid {second.pid}, with -9; pid " in again.out
    assert told[-1] == (0, "127.0.0.1")


def test_kill_queen_can_leave_her_dead(queen_shell: tuple[Shell, Told]) -> None:
    shell, told = queen_shell
    shell.run("queennode", "start")
    result = shell.run("chaos", "kill-queen", "--no-restart")
    assert (result.code, len(told)) == (0, 1)
    assert "'swarmesh queennode start' starts her again" in result.out
    assert queen_process.running_queen(Home(shell.home)) is None


@pytest.mark.parametrize("command", ["submit", "collect"])
def test_a_stream_on_the_terminal_outlives_its_queen(
    queen_shell: tuple[Shell, Told], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    shell, _ = queen_shell
    monkeypatch.setenv("FAKE_QUEEN_HALF", "yes")
    shell.run("queennode", "start")
    lines = {
        "submit": ("nectarflow", "submit", "--prompt", "What is a rustbee?"),
        "collect": ("honeytokens", "collect", "--job-id", "job-1", "--follow"),
    }
    with shell.start(*lines[command]) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"A "
        killed = shell.run("chaos", "kill-queen", "--json").json
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, b"worker.\n", b"")
    assert killed["new_pid"] != killed["pid"], "the queen of the second half is another process"


def test_nobody_is_taken_for_a_cut_that_is_refused(shell: Shell) -> None:
    shell.queen.rustbees["rustbee-1"] = rustbee("rustbee-1")
    path = "/v2/swarmesh/rustbees/rustbee-1/cut"
    shell.queen.answers["POST", path] = 403, error("forbidden", "this key may not do that")
    result = shell.run("chaos", "cut")
    assert (result.code, result.out) == (1, "")
    assert "took" not in result.err
    shell.queen.answers["POST", path] = 204, b""
    assert "took rustbee-1, " in shell.run("chaos", "cut").err
