"""The drill of `swarmesh demo`: what it kills, what it compares, and what it admits."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cli_shell import Bee, Shell, Sleeper, ended, is_up, shell_at, sleepers
from fake_queen import Step, accepted, done, failed, flow, token, write_note
from swarmesh.cli import recital

WORDS = ["One ", "small ", "bee ", "wakes."]
ANSWER: Sequence[Step] = [accepted(), token(1, "A worker."), done()]
PEACEFUL: Sequence[Step] = [accepted(), *(token(seq, word) for seq, word in enumerate(WORDS, 1)), done(tokens=4)]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with shell_at(tmp_path, monkeypatch, capsys, named=False) as shell:
        write_note(shell.home, shell.queen.url)
        yield shell


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    with sleepers() as start:
        yield start


@pytest.fixture
def bees(shell: Shell, sleeper: Sleeper) -> list[Bee]:
    """Two rustbees; the first one recites."""
    shell.queen.flows["job-1"] = flow(status="running", rustbee_id="rustbee-1")
    return [Bee(shell, sleeper, "rustbee-1"), Bee(shell, sleeper, "rustbee-2")]


class Drill:
    """One broken recital: its first word, the death of its rustbee, and what the queen makes of that."""

    def __init__(self, shell: Shell, bee: Bee, rest: Sequence[Step], attempts: int = 2) -> None:
        self._shell, self._bee, self._attempts = shell, bee, attempts
        self._noticed = threading.Event()
        shell.queen.streams.append([accepted(), token(1, WORDS[0]), self._noticed, *rest])
        self._thread = threading.Thread(target=self._notice)
        self._thread.start()

    def _notice(self) -> None:
        self._bee.agent.wait(20)
        self._bee.view["status"] = "dead"
        self._shell.queen.flows["job-1"] |= {"attempts": self._attempts, "rustbee_id": "rustbee-2"}
        self._noticed.set()

    def join(self) -> None:
        self._thread.join()


REST = [token(seq, word) for seq, word in enumerate(WORDS[1:], 2)]


def test_the_stream_outlives_its_rustbee(shell: Shell, bees: list[Bee]) -> None:
    shell.queen.streams = [ANSWER, PEACEFUL]
    drill = Drill(shell, bees[0], [*REST, done(tokens=4)])
    result = shell.run("demo")
    drill.join()
    assert (result.code, result.err) == (0, "spawned rustbee-3 for demo\n")
    assert "> What is a rustbee?\nA worker.\n" in result.out
    mark = "--- rustbee-1 is killed with kill -9 here, agent and engine ---"
    assert f"> Recite the song of the hive.\nOne \n{mark}\nsmall bee wakes.\n" in result.out
    assert "killed       rustbee-1, with kill -9, after token 1 of 4\nwent on      rustbee-2\n" in result.out
    assert re.search(r"^longest gap  \d+ ms$", result.out, re.MULTILINE)
    assert "tokens lost  0 of 4, none came twice: identical to the unbroken recital" in result.out
    assert "The swarm goes on running." in result.out
    assert ended(bees[0].engine) == -signal.SIGKILL
    assert (bees[0].lives, bees[1].lives) == ((False, False), (True, True))
    assert [view["status"] for view in shell.queen.rustbees.values()] == ["dead", "healthy", "healthy"]


def test_a_kill_that_came_too_late_is_no_drill(shell: Shell, bees: list[Bee]) -> None:
    shell.queen.streams = [ANSWER, PEACEFUL]
    drills = [
        Drill(shell, bees[0], [*REST, done(tokens=4)], attempts=1),
        Drill(shell, bees[1], [*REST, done(tokens=4)]),
    ]
    result = shell.run("demo")
    for drill in drills:
        drill.join()
    assert result.code == 0
    assert "the recital was over before the kill; once more" in result.err
    assert "killed       rustbee-2, with kill -9, after token 1 of 4" in result.out
    assert not any(is_up(bee.agent) for bee in bees)
    assert [view["status"] for view in shell.queen.rustbees.values()].count("healthy") == 2


def test_a_kill_that_always_comes_too_late(
    shell: Shell, bees: list[Bee], sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarmesh.cli.demo.TRIES_MAX", 1)
    shell.queen.streams = [ANSWER, PEACEFUL]
    drill = Drill(shell, bees[0], [*REST, done(tokens=4)], attempts=1)
    result = shell.run("demo")
    drill.join()
    assert result.code == 1
    assert "error: the recital was over before the kill in each of 1 tries" in result.err


def test_a_stream_that_does_not_go_on_is_admitted(shell: Shell, bees: list[Bee]) -> None:
    shell.queen.streams = [ANSWER, PEACEFUL]
    drill = Drill(shell, bees[0], [failed("rustbee_lost", "it is gone", "send it again")])
    result = shell.run("demo")
    drill.join()
    assert result.code == 1
    assert "> Recite the song of the hive.\nOne \n" in result.out
    assert "identical" not in result.out
    assert result.err.splitlines() == [
        "the recital did not outlive its rustbee; it ended openly, with the error rustbee_lost",
        "spawned rustbee-3 for demo",
        "error: it is gone",
        "  next: send it again",
    ]
    assert bees[1].lives == (True, True)


@pytest.mark.parametrize(
    ("rest", "tokens", "words"),
    [
        (REST[1:], 3, "3 tokens and 14 characters, the unbroken one 4 and 20; they are the same for 4 characters"),
        ([token(2, "One "), *REST[1:]], 4, "4 tokens and 18 characters"),
        (REST, 5, "5 tokens and 20 characters, the unbroken one 4 and 20; they are the same for 20"),
    ],
    ids=["one lost", "one twice", "usage"],
)
def test_a_difference_is_admitted(shell: Shell, bees: list[Bee], rest: list[Step], tokens: int, words: str) -> None:
    shell.queen.streams = [ANSWER, PEACEFUL]
    drill = Drill(shell, bees[0], [*rest, done(tokens=tokens)])
    result = shell.run("demo")
    drill.join()
    assert result.code == 1
    assert words in result.err
    assert "tokens lost" not in result.out


def test_nobody_elses_rustbee_is_killed(shell: Shell, bees: list[Bee]) -> None:
    shell.queen.streams = [ANSWER, PEACEFUL, PEACEFUL]
    shell.queen.flows["job-1"] = flow(rustbee_id="rustbee-9")
    result = shell.run("demo")
    assert result.code == 1
    assert "runs on rustbee-9, which is none of rustbee-1, rustbee-2" in result.err
    assert [bee.lives for bee in bees] == [(True, True), (True, True)]


def test_a_recital_without_a_word_is_given_up(shell: Shell, bees: list[Bee], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recital, "SILENCE_S_MAX", 0.05)
    gate = threading.Event()
    shell.queen.streams = [ANSWER, PEACEFUL, [accepted(), gate, done()]]
    result = shell.run("demo")
    gate.set()
    assert result.code == 1
    assert "nothing came for 0.05 s" in result.err
    assert bees[0].lives == (True, True)


def test_one_rustbee_is_not_killed(shell: Shell, sleeper: Sleeper) -> None:
    bee = Bee(shell, sleeper, "rustbee-1")
    shell.queen.streams = [ANSWER]
    result = shell.run("demo", "--rustbees", "1")
    assert result.code == 0
    assert bee.lives == (True, True)
