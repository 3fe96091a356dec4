"""`swarmesh policy check|test|activate|deactivate|script`: what people see, and what scripts of theirs rely on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_shell import Shell, shell_at
from fake_queen import error

SCRIPT = "/v2/swarmesh/policies/script"
GOOD = "def score(task, workers):\n    print('asked')\n    return [-worker.rank for worker in workers]\n"
BAD = "def score(task, workers):\n    return [worker.nope for worker in workers]\n"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with shell_at(tmp_path / "home", monkeypatch, capsys) as shell:
        yield shell


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.star"
    file.write_text(GOOD)
    return file


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.star"
    file.write_text(BAD)
    return file


def view(**more: Any) -> dict[str, Any]:
    shown = {"state": "active", "name": "good.star", "hooks": ["score"], "activated_at": 1_700_000_000.0}
    return {**shown, "asked": 1200, "failed": 2, "mean_ms": 0.12, "max_ms": 4.5, **more}


def test_a_check_needs_no_queen(shell: Shell, good: Path) -> None:
    result = shell.run("policy", "check", str(good))
    assert (result.code, result.out) == (0, "good.star is right: it defines score\n")
    assert "3 samples answered" in result.err
    assert shell.queen.seen == []
    findings = shell.run("policy", "check", str(good), "--json").json
    assert (findings["hooks"], findings["mistakes"], len(findings["trials"])) == (["score"], [], 3)


def test_a_check_shows_the_place_of_a_mistake(shell: Shell, bad: Path) -> None:
    result = shell.run("policy", "check", str(bad))
    assert result.code == 1
    assert result.out == (
        "bad.star:2:13: Object of type `struct` has no attribute `nope`\n"
        "        return [worker.nope for worker in workers]\n"
        "                ^\n"
    )
    assert result.err == "error: 1 mistake in bad.star\n"
    result = shell.run("policy", "check", str(bad), "--json")
    assert result.code == 1
    (mistake,) = result.json["mistakes"]
    assert (mistake["line"], mistake["column"], mistake["file"]) == (2, 13, "bad.star")


def test_a_file_that_is_none(shell: Shell, tmp_path: Path) -> None:
    result = shell.run("policy", "check", str(tmp_path / "none.star"))
    assert result.code == 1
    assert "none.star cannot be read: No such file or directory" in result.err
    (tmp_path / "x.star").write_bytes(b"\xff\xfe")
    assert "byte 0 is not UTF-8" in shell.run("policy", "check", str(tmp_path / "x.star")).err
    (tmp_path / "x.star").write_bytes(b"#" * 300_000)
    assert "more than 262,144 bytes" in shell.run("policy", "check", str(tmp_path / "x.star")).err
    assert "more than 262,144 bytes" in shell.run("policy", "check", "/dev/zero").err


def test_a_file_as_windows_saves_it_is_right(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "my script.star"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    result = shell.run("policy", "check", str(file))
    assert (result.code, result.out) == (0, "my script.star is right: it defines score\n")
    assert f"swarmesh policy test '{file}' --replay" in result.err


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def admit(task):\n    while True:\n        pass\n", "`while`; write `for step in range(100)`"),
        ("import os\n" + GOOD, "`import`; scripts import nothing"),
        ('def admit(task):\n    return f"no {task.key}"\n', "braces of an f-string take a name only"),
        ("def score(task, workers):\n    return [1\n", "x.star:2: a bracket is open where the script ends\n"),
        ("def score(task, workers):\n    return [w.load for w in workers]\n", "; facts are called `load_ratio`"),
        (
            "def admit(task):\n    return 2 ** 3\n",
            "2:14: Parse error: unexpected symbol '**' here; there are no powers",
        ),
        ("def scores(task, workers):\n    return []\n", "is it meant to be `score`?"),
    ],
)
def test_what_is_written_as_in_python_says_what_to_write(shell: Shell, tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "x.star").write_text(source)
    result = shell.run("policy", "check", str(tmp_path / "x.star"))
    assert result.code == 1
    assert said in result.out


def test_a_mistyped_function_beside_a_right_one_is_warned_of(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "x.star").write_text(GOOD + "def Scale(model, stats):\n    return 1\n")
    result = shell.run("policy", "check", str(tmp_path / "x.star"))
    assert result.code == 0
    assert "warning: x.star:4: nothing asks `Scale`: is it meant to be `scale`?" in result.err
    (tmp_path / "x.star").write_text(
        "def scores(task, workers):\n    return [-worker.rank for worker in workers]\n"
        "def score(task, workers):\n    return scores(task, workers)\n"
    )
    assert "warning" not in shell.run("policy", "check", str(tmp_path / "x.star")).err


def test_a_test_shows_samples_and_answers(shell: Shell, good: Path, bad: Path) -> None:
    result = shell.run("policy", "test", str(good))
    rows = [line.split() for line in result.out.splitlines()]
    assert rows[0] == ["function", "sample", "answer", "took"]
    assert rows[1][:7] == ["score", "a", "high", "task", "0,", "-1,", "-2"]
    assert result.err.count("it said: asked") == 3
    result = shell.run("policy", "test", str(bad))
    assert result.code == 1
    assert "failed" in result.out
    assert "bad.star:2:13" in result.out


def test_a_replay_is_asked_of_the_queen(shell: Shell, good: Path) -> None:
    change = {"hook": "score", "at": 1_700_000_000.0, "subject": "t-1", "was": "rustbee-1", "would_be": "rustbee-2"}
    failure = {"hook": "score", "at": 1_700_000_000.0, "subject": "t-2", "why": "x.star:1: no"}
    told = {"decisions": 40, "asked": 30, "changed": 31, "failed": 1, "changes": [change] * 31, "failures": [failure]}
    shell.queen.answers["POST", f"{SCRIPT}/replay"] = (200, told)
    result = shell.run("policy", "test", str(good), "--replay", "--hours", "2")
    assert result.code == 1, "one had no answer"
    assert result.out.startswith(
        "40 decisions of the last 2h00m: asked about 30, 31 would have been others, 1 without an answer\n"
    )
    assert ["t-1", "rustbee-1", "rustbee-2"] in [line.split()[-3:] for line in result.out.splitlines()]
    assert "and 1 more; --json shows 31" in result.err
    assert "no time" not in result.err
    assert "failed: score about t-2: x.star:1: no" in result.err
    assert shell.queen.seen[-1].body == {"name": "good.star", "source": GOOD, "hours": 2.0}
    assert shell.run("policy", "test", str(good), "--replay", "--json").json["changed"] == 31
    assert shell.queen.seen[-1].body["hours"] == 24.0
    shell.queen.answers["POST", f"{SCRIPT}/replay"] = (200, {**told, "complete": False})
    assert "the newest are left out" in shell.run("policy", "test", str(good), "--replay").err
    shell.queen.answers["POST", f"{SCRIPT}/replay"] = (200, {**told, "failed": 0, "failures": []})
    assert shell.run("policy", "test", str(good), "--replay").code == 0


def test_hours_without_a_replay_are_refused(shell: Shell, good: Path) -> None:
    result = shell.run("policy", "test", str(good), "--hours", "2")
    assert result.code == 2
    assert "--hours is for --replay" in result.err
    assert "night.star" not in shell.run("policy", "test", "--help").out


def test_a_script_is_activated_with_its_path(shell: Shell, good: Path) -> None:
    shell.queen.answers["GET", SCRIPT] = (200, {"state": "none"})
    shell.queen.answers["PUT", SCRIPT] = (200, view(watched=True, path=str(good)))
    result = shell.run("policy", "activate", str(good))
    assert result.out == "good.star decides now: score\n"
    assert "what is saved there is taken up" in result.err
    assert shell.queen.seen[-1].body == {"name": "good.star", "source": GOOD, "path": str(good)}
    shell.queen.answers["PUT", SCRIPT] = (200, view())
    err = shell.run("policy", "activate", str(good)).err
    assert "its file is not watched, as it is not on the queennode's machine: activate it again" in err
    assert shell.run("policy", "activate", str(good), "--json").json["state"] == "active"


def test_what_a_script_is_activated_in_place_of(shell: Shell, good: Path) -> None:
    shell.queen.answers["PUT", SCRIPT] = (200, view(watched=True))
    for before, said in (
        (view(name="old.star"), "good.star decides now: score, in place of old.star\n"),
        (view(), "good.star decides now: score\n"),
        ({"state": "none"}, "good.star decides now: score\n"),
    ):
        shell.queen.answers["GET", SCRIPT] = (200, before)
        assert shell.run("policy", "activate", str(good)).out == said
    shell.queen.answers["PUT", SCRIPT] = (400, error("policy_script_invalid", "no such name"))
    result = shell.run("policy", "activate", str(good))
    assert (result.code, result.out) == (1, "")
    assert result.err == "nothing has changed: what decided before goes on deciding\nerror: no such name\n"


def test_a_script_with_mistakes_is_not_sent(shell: Shell, bad: Path) -> None:
    result = shell.run("policy", "activate", str(bad))
    assert result.code == 1
    assert "bad.star:2:13" in result.out
    assert "what decided before goes on deciding" in result.err
    assert '"code":"policy_script_invalid"' in shell.run("policy", "activate", str(bad), "--json").err
    assert shell.queen.seen == []


def test_a_script_is_deactivated(shell: Shell, tmp_path: Path) -> None:
    shell.queen.answers["GET", SCRIPT] = (200, view())
    shell.queen.answers["DELETE", SCRIPT] = (204, b"")
    assert shell.run("policy", "deactivate").out == "good.star decides no more\n"
    assert shell.run("policy", "deactivate", "--json").json == {"deactivated": "good.star"}
    assert shell.run("policy", "deactivate", str(tmp_path / "good.star")).code == 0
    result = shell.run("policy", "deactivate", "other.star")
    assert (result.code, "good.star decides, not other.star" in result.err) == (1, True)
    shell.queen.answers["DELETE", SCRIPT] = (404, error("not_found", "no policy script is active"))
    assert shell.run("policy", "deactivate").code == 1


def test_how_a_script_does(shell: Shell) -> None:
    failure = {"at": 1_700_000_000.0, "message": "good.star:2:13: \x1b[31mno"}
    mistake = {"message": "no such name", "line": 3, "column": 7, "text": "x"}
    shown = view(
        state="off", reason="score: no", errors=[failure], unsaved=[mistake], path="/x/good.star", watched=True
    )
    shell.queen.answers["GET", SCRIPT] = (200, shown)
    result = shell.run("policy", "script")
    out = result.out
    assert result.err == "  next: mend it, then 'swarmesh policy activate FILE'; or 'swarmesh policy deactivate'\n"
    assert "reason     score: no" in out
    assert "file       /x/good.star (watched)" in out
    assert "asked      1,200, failed 2, late 0" in out
    assert "saved with a mistake, line 3, column 7: no such name" in out
    assert "good.star:2:13: [31mno" in out
    shell.queen.answers["GET", SCRIPT] = (200, view(name="r1.txt"))
    result = shell.run("policy", "script")
    assert "file       not watched, as its name does not end in .star\n" in result.out
    assert result.err == ""
    shell.queen.answers["GET", SCRIPT] = (200, {"state": "none"})
    assert shell.run("policy", "script").out == "no policy script: the built-in policies decide\n"
    assert shell.run("policy", "script", "--json").json["state"] == "none"


def test_nothing_that_the_queen_names_commands_the_terminal(shell: Shell, good: Path) -> None:
    bad = view(name="\x1b[2Jgood\x9b2J.star", path="/x/\x1b]0;x\x07.star", watched=True, activated_at=0.0)
    policy = {"name": "swarm", "description": "x", "active": True, "modelcells": []}
    shell.queen.answers["GET", "/v2/swarmesh/policies"] = (200, {"policies": [policy]})
    shell.queen.answers["DELETE", SCRIPT] = (204, {})
    shell.queen.answers["PUT", SCRIPT] = (200, bad)
    change = {"hook": "score", "at": 0.0, "subject": "\x1b[2J", "was": "\x1b[2J", "would_be": "\x9b"}
    failure = {"hook": "score", "at": 0.0, "subject": "\x1b[2J", "why": "\x9b"}
    replayed = {"decisions": 1, "asked": 1, "changed": 1, "failed": 1, "changes": [change], "failures": [failure]}
    shell.queen.answers["POST", f"{SCRIPT}/replay"] = (200, replayed)
    for shown in (bad, {**bad, "state": "off"}):
        shell.queen.answers["GET", SCRIPT] = (200, shown)
        for words in (["script"], ["list"], ["deactivate"], ["activate", str(good)], ["test", str(good), "--replay"]):
            result = shell.run("policy", *words)
            assert result.code == (1 if "--replay" in words else 0), "one decision of the replay had no answer"
            assert not {"\x1b", "\x9b", "\x07"} & set(result.out + result.err), words


def test_the_list_of_policies_names_the_script(shell: Shell) -> None:
    policy = {"name": "swarm", "description": "x", "active": True, "modelcells": []}
    shell.queen.answers["GET", "/v2/swarmesh/policies"] = (200, {"policies": [policy]})
    shell.queen.answers["GET", SCRIPT] = (200, view())
    assert shell.run("policy", "list").out.endswith("before all of them: good.star (score)\n")
    shell.queen.answers["GET", SCRIPT] = (200, view(state="off", reason="score: no"))
    assert shell.run("policy", "list").out.endswith("good.star is off: score: no\n")
    shell.queen.answers["GET", SCRIPT] = (403, error("forbidden", "this key may not do that"))
    assert "good.star" not in shell.run("policy", "list").out


def test_a_file_that_is_gone_is_told(shell: Shell) -> None:
    shell.queen.answers["GET", SCRIPT] = (200, view(path="/x/good.star", watched=True, gone=True))
    out = shell.run("policy", "script").out
    assert "file       /x/good.star (gone: the text taken up last goes on, until another is saved there)\n" in out
    assert "watched" not in out


def test_a_file_that_cannot_be_read_is_the_users_mistake(shell: Shell, tmp_path: Path) -> None:
    said = json.loads(shell.run("policy", "check", str(tmp_path / "none.star"), "--json").err)["error"]
    assert (said["code"], said["type"]) == ("bad_config", "invalid_request_error")
