"""`swarmesh nectarflow` and `swarmesh honeytokens`."""

from __future__ import annotations

import base64
import io
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_shell import Shell, shell_at
from fake_queen import DROP, accepted, done, flow, progress, token
from swarmesh.cli.start_line import StartLine


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with shell_at(tmp_path, monkeypatch, capsys) as shell:
        yield shell


def test_submit_prints_the_text_and_nothing_else(shell: Shell) -> None:
    shell.queen.streams = [[accepted(), token(1, "Hello "), token(2, "there."), done()]]
    result = shell.run("nectarflow", "submit", "--prompt", "Hello")
    assert (result.code, result.out, result.err) == (0, "Hello there.\n", "")
    assert shell.queen.seen[0].body == {"prompt": "Hello", "modelcell": "", "priority": "medium", "stream": True}


def test_submit_passes_its_options_on(shell: Shell) -> None:
    shell.queen.streams = [[accepted(), done()]]
    options = [
        "--modelcell",
        "demo",
        "--priority",
        "high",
        "--max-tokens",
        "5",
        "--temperature",
        "0",
        "--seed",
        "7",
        "--stop",
        "A",
        "--stop",
        "B",
    ]
    result = shell.run("nectarflow", "submit", "--prompt", "Hello", *options, "--json")
    assert (result.code, result.out) == (0, "")
    assert shell.queen.seen[0].body == {
        "prompt": "Hello",
        "modelcell": "demo",
        "priority": "high",
        "max_tokens": 5,
        "temperature": 0.0,
        "seed": 7,
        "stop": ["A", "B"],
        "stream": True,
    }


def test_text_arrives_while_the_answer_is_being_made(shell: Shell) -> None:
    gates = [threading.Event(), threading.Event()]
    shell.queen.streams = [[accepted(), token(1, "one "), gates[0], token(2, "two "), gates[1], token(3, "3"), done()]]
    with shell.start("nectarflow", "submit", "--prompt", "Count.") as process:
        assert process.stdout is not None
        # Each piece can only come before the gate behind it is opened, or never.
        assert process.stdout.read(4) == b"one "
        gates[0].set()
        assert process.stdout.read(4) == b"two "
        gates[1].set()
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, b"3\n", b"")


def test_a_dropped_connection_is_not_seen(shell: Shell) -> None:
    shell.queen.streams = [[accepted(), token(1, "one "), DROP], [token(2, "two"), done()]]
    result = shell.run("nectarflow", "submit", "--prompt", "Count.")
    assert (result.code, result.out, result.err) == (0, "one two\n", "")
    assert shell.queen.seen[1].headers["last-event-id"] == "1"


def test_prompt_from_standard_input(shell: Shell) -> None:
    shell.queen.streams = [[accepted(), token(1, "ok\n"), done()]]
    with shell.start("nectarflow", "submit", "--prompt", "-", stdin=subprocess.PIPE) as process:
        out, err = process.communicate("a long prompt\nof two lines: ü".encode(), timeout=20)
    assert (process.returncode, out, err) == (0, b"ok\n", b"")
    assert shell.queen.seen[0].body["prompt"] == "a long prompt\nof two lines: ü"


def test_input_is_any_json_and_values_are_printed_as_json(shell: Shell) -> None:
    shell.queen.streams = [[accepted(), token(1, "", value={"words": 2}), token(2, "", value=[1]), done()]]
    result = shell.run("nectarflow", "submit", "--input", '{"text": "two words"}', "--modelcell", "stats")
    assert (result.code, result.out) == (0, '{"words":2}\n[1]\n')
    assert shell.queen.seen[0].body["input"] == {"text": "two words"}
    assert "prompt" not in shell.queen.seen[0].body


def test_images_are_saved(shell: Shell, tmp_path: Path) -> None:
    pieces = [
        token(number, "", media_type="image/png", base64=base64.b64encode(b"\x89PNG%d" % number).decode())
        for number in (1, 2)
    ]
    shell.queen.streams = [[accepted(), *pieces, done()]]
    path = tmp_path / "out.png"
    result = shell.run("nectarflow", "submit", "--input", "{}", "--output", str(path))
    assert (result.code, result.out) == (0, "")
    assert path.read_bytes() == b"\x89PNG1"
    assert (tmp_path / "out-2.png").read_bytes() == b"\x89PNG2"


def test_an_image_without_an_output_file_is_mentioned(shell: Shell) -> None:
    shell.queen.streams = [[accepted(), token(1, "", media_type="image/png", base64="iVBORw=="), done()]]
    result = shell.run("nectarflow", "submit", "--input", "{}")
    assert (result.code, result.out) == (0, "")
    assert "image/png" in result.err
    assert "--output FILE" in result.err


def test_an_output_file_that_cannot_be_written(shell: Shell, tmp_path: Path) -> None:
    shell.queen.streams = [[accepted(), token(1, "", media_type="image/png", base64="iVBORw=="), done()]]
    result = shell.run("nectarflow", "submit", "--input", "{}", "--output", str(tmp_path / "no" / "out.png"))
    assert result.code == 1
    assert "cannot be written" in result.err


def test_a_models_text_cannot_command_the_terminal(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.queen.streams = [[accepted(), token(1, "a\x1b[2Jb\tc\x9b3m"), done()]] * 2
    assert shell.run("nectarflow", "submit", "--prompt", "x").out == "a\x1b[2Jb\tc\x9b3m\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert shell.run("nectarflow", "submit", "--prompt", "x").out == "a[2Jb\tc3m\n"


WAITS = [
    accepted(),
    progress("seeking"),
    progress("loading", since_s=2.0, expected_s=9.0),
    progress("loading", since_s=4.0, expected_s=9.0),
    token(1, "Hello."),
    done(),
]


@pytest.mark.parametrize(
    "command",
    [("nectarflow", "submit", "--prompt", "Hello"), ("honeytokens", "collect", "--job-id", "job-1", "--follow")],
)
def test_what_an_answer_waits_for_is_a_line_for_each_phase(shell: Shell, command: tuple[str, ...]) -> None:
    shell.queen.streams = [WAITS]
    result = shell.run(*command)
    assert (result.code, result.out) == (0, "Hello.\n")
    said = "waiting: demo is seeking (0.5 s)\nwaiting: demo is loading (2.0 s of about 9.0 s)\n"
    assert result.err == said


def test_on_a_terminal_the_line_is_gone_before_the_answer(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmesh.cli.start_line.sys.stderr.isatty", lambda: True, raising=False)
    shell.queen.streams = [WAITS]
    result = shell.run("nectarflow", "submit", "--prompt", "Hello")
    assert result.out == "Hello.\n"
    lines = result.err.split("\r\x1b[K")
    assert lines[1:] == [
        "waiting: demo is seeking (0.5 s)",
        "waiting: demo is loading (2.0 s of about 9.0 s)",
        "waiting: demo is loading (4.0 s of about 9.0 s)",
        "",
    ]


WAITS_FOR_ITS_TURN = [
    accepted(),
    progress("waiting"),
    progress("waiting", since_s=2.0),
    progress("waiting", since_s=4.0),
    progress("waiting", since_s=6.0),
    token(1, "Hello."),
    done(),
]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which 2 s pass from one look to the next."""
    seconds = itertools.count(step=2.0)

    class Hasty(StartLine):
        def __init__(self) -> None:
            super().__init__(lambda: next(seconds))

    monkeypatch.setattr("swarmesh.cli.nectarflow.StartLine", Hasty)


@pytest.mark.usefixtures("hasty")
def test_who_waits_long_is_told_the_job_and_why_once(shell: Shell) -> None:
    shell.queen.streams = [WAITS_FOR_ITS_TURN]
    result = shell.run("nectarflow", "submit", "--prompt", "Hello")
    assert (result.code, result.out) == (0, "Hello.\n")
    assert result.err == "job-1 waits: demo is waiting (2.0 s)\n  next: swarmesh explain task job-1\n"


@pytest.mark.usefixtures("hasty")
def test_who_waits_long_is_told_when_a_start_came_to_nothing(shell: Shell) -> None:
    waits = [
        progress("seeking"),
        progress("loading"),
        progress("waiting", since_s=4.0),
        progress("waiting", since_s=6.0),
    ]
    shell.queen.streams = [[accepted(), *waits, token(1, "Hello."), done()]]
    lines = shell.run("nectarflow", "submit", "--prompt", "Hello").err.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        "waiting: demo is seeking",
        "job-1 waits: demo is loading",
        "  next: swarmesh explain task job-1",
        "waiting: demo is waiting",
    ]


@pytest.mark.usefixtures("hasty")
def test_on_a_terminal_the_job_stays_and_the_line_moves_on(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmesh.cli.start_line.sys.stderr.isatty", lambda: True, raising=False)
    shell.queen.streams = [WAITS_FOR_ITS_TURN]
    result = shell.run("nectarflow", "submit", "--prompt", "Hello")
    assert result.out == "Hello.\n"
    named = "job-1 waits: demo is waiting (2.0 s)\n  next: swarmesh explain task job-1\n"
    lines = [f"waiting: demo is waiting ({since})" for since in ("0.5 s", "2.0 s", "4.0 s", "6.0 s")]
    assert result.err.split("\r\x1b[K") == ["", lines[0], named, *lines[1:], ""]


def test_a_short_wait_says_nothing(shell: Shell) -> None:
    shell.queen.streams = [WAITS_FOR_ITS_TURN]
    result = shell.run("nectarflow", "submit", "--prompt", "Hello")
    assert (result.out, result.err) == ("Hello.\n", "")


def test_detach(shell: Shell) -> None:
    result = shell.run("nectarflow", "submit", "--prompt", "Hello", "--detach")
    assert (result.code, result.out) == (0, "job-1\n")
    result = shell.run("nectarflow", "submit", "--prompt", "Hello", "--detach", "--json")
    assert (result.code, result.json, result.err) == (0, {"job_id": "job-1"}, "")
    assert shell.queen.seen[0].body["stream"] is False


def test_show(shell: Shell) -> None:
    result = shell.run("nectarflow", "show", "job-1")
    assert result.code == 0
    assert "status     done" in result.out
    assert "took       2.5 s" in result.out
    assert "why there  least-work chose rustbee-1 of 1 (none vetoed)" in result.out
    assert shell.run("nectarflow", "show", "job-1", "--json").json == flow()


def test_show_a_task_that_waits(shell: Shell) -> None:
    never = {"attempts": 0, "rustbee_id": None, "finished_at": None, "usage": None, "decision": None}
    shell.queen.flows["job-1"] = flow(status="queued", waiting_because="2 tasks wait before it", **never)
    result = shell.run("nectarflow", "show", "job-1")
    assert "waits      2 tasks wait before it\n" in result.out
    assert "took" not in result.out
    assert result.err == "  next: swarmesh explain task job-1\n"
    shell.queen.flows["job-1"] = flow(**never)
    assert "took" not in shell.run("nectarflow", "show", "job-1").out, "nor when it was cancelled before it ran"


def test_show_a_failed_task(shell: Shell) -> None:
    error = {"code": "rustbee_lost", "message": "it is gone", "hint": "", "type": "server_error", "param": None}
    shell.queen.flows["job-1"] = flow(status="failed", error=error, usage=None, rustbee_id=None)
    assert "error      rustbee_lost: it is gone" in shell.run("nectarflow", "show", "job-1").out


def test_list(shell: Shell) -> None:
    shell.queen.flows["job-2"] = flow("job-2", status="running", finished_at=None, usage=None)
    result = shell.run("nectarflow", "list")
    assert result.code == 0
    header, first, second = result.out.splitlines()
    assert header.split()[:3] == ["job", "status", "modelcell"]
    assert first.split()[:2] == ["job-1", "done"]
    assert second.split()[:2] == ["job-2", "running"]
    only = shell.run("nectarflow", "list", "--status", "running", "--limit", "3", "--json")
    assert [view["job_id"] for view in only.json] == ["job-2"]
    assert shell.queen.seen[-1].query == {"status": "running", "limit": "3"}


def test_an_empty_list_says_what_to_do(shell: Shell) -> None:
    shell.queen.flows.clear()
    result = shell.run("nectarflow", "list")
    assert (result.code, result.out) == (0, "")
    assert "next: swarmesh nectarflow submit" in result.err
    assert shell.run("nectarflow", "list", "--json").json == []
    assert shell.run("nectarflow", "list", "--status", "queued").err == "no nectarflow is queued\n"


def test_cancel(shell: Shell) -> None:
    result = shell.run("nectarflow", "cancel", "job-1")
    assert (result.code, result.out) == (0, "job-1 is cancelled\n")
    assert shell.run("nectarflow", "cancel", "job-1", "--json").json["status"] == "cancelled"


def test_collect(shell: Shell) -> None:
    result = shell.run("honeytokens", "collect", "--job-id", "job-1")
    assert (result.code, result.out, result.err) == (0, "Hello.\n", "")
    result = shell.run("honeytokens", "collect", "--job-id", "job-1", "--json")
    assert result.json["text"] == "Hello."
    assert result.json["last_seq"] == 2


def test_collect_of_a_running_task_says_so(shell: Shell) -> None:
    shell.queen.tokens |= {"status": "running", "text": "Hel"}
    result = shell.run("honeytokens", "collect", "--job-id", "job-1")
    assert (result.code, result.out) == (0, "Hel\n")
    assert "--follow" in result.err


def test_collect_saves_images(shell: Shell, tmp_path: Path) -> None:
    shell.queen.tokens["outputs"] = [{"text": "", "media_type": "image/png", "base64": "iVBORw=="}]
    path = tmp_path / "out.png"
    result = shell.run("honeytokens", "collect", "--job-id", "job-1", "--output", str(path))
    assert (result.code, result.out) == (0, "Hello.\n")
    assert path.read_bytes() == b"\x89PNG"


def test_follow(shell: Shell) -> None:
    shell.queen.streams = [[token(1, "Hel"), token(2, "lo."), done()], [token(1, "Hello."), done()]]
    result = shell.run("honeytokens", "collect", "--job-id", "job-1", "--follow")
    assert (result.code, result.out) == (0, "Hello.\n")
    result = shell.run("honeytokens", "collect", "--job-id", "job-1", "--follow", "--json")
    assert result.json["text"] == "Hello."


def test_collect_after_a_token(shell: Shell) -> None:
    shell.queen.tokens |= {"status": "running", "text": "one two three", "last_seq": 3}
    rest = [token(2, "two "), token(3, "three"), threading.Event()]  # The task goes on, the command does not wait.
    shell.queen.streams = [rest, rest]
    result = shell.run("honeytokens", "collect", "--job-id", "job-1", "--after", "1")
    assert (result.code, result.out) == (0, "two three\n")
    assert shell.queen.seen[-1].query == {"after": "1"}
    as_json = shell.run("honeytokens", "collect", "--job-id", "job-1", "--after", "1", "--json").json
    assert (as_json["text"], as_json["last_seq"]) == ("two three", 3)


def test_collect_after_the_last_token_is_empty(shell: Shell) -> None:
    result = shell.run("honeytokens", "collect", "--job-id", "job-1", "--after", "2", "--json")
    assert (result.code, result.json["text"]) == (0, "")
    assert shell.queen.requests("GET", "/v2/swarmesh/honeytokens/job-1")[-1].query == {}


def test_follow_after_a_token(shell: Shell) -> None:
    shell.queen.streams = [[token(2, "lo.", value=[1]), done()]] * 3
    result = shell.run("honeytokens", "collect", "--job-id", "job-1", "--follow", "--after", "1")
    assert (result.code, result.out) == (0, "lo.\n[1]\n")
    assert shell.queen.seen[0].query == {"after": "1"}
    result = shell.run("honeytokens", "collect", "--job-id", "job-1", "--follow", "--after", "1", "--json")
    assert result.json["text"] == "lo."
    assert result.json["outputs"] == [{"text": "lo.", "value": [1]}]


def test_standard_input_that_is_no_json(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("not json"))
    result = shell.run("nectarflow", "submit", "--input", "-")
    assert result.code == 2
    assert "--input is no JSON" in result.err
