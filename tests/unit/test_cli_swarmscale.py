"""`swarmesh swarmscale`: what people read, what scripts read, and what the queen is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_shell import Shell, shell_at
from fake_queen import error

PATH = "/v2/swarmesh/swarmscale"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with shell_at(tmp_path, monkeypatch, capsys) as shell:
        yield shell


def bounds(low: int, high: int, **more: Any) -> dict[str, Any]:
    return {"min": low, "max": high, "own": True, "paused": False, "rustbee": None, **more}


def cell(name: str, **more: Any) -> dict[str, Any]:
    return {
        "modelcell": name,
        "bounds": bounds(0, 2),
        "target": 1,
        "rustbees": 1,
        "starting": 0,
        "slots": 4,
        "slots_busy": 1,
        "load": 0.25,
        "waiting": 0,
        "wait_s": 0.0,
        "latency_s": 0.4,
        "idle_s": 0.0,
        "blocked": "",
        "breaker_s": 0.0,
        "breaker_reason": "",
        "up_in_s": 0.0,
        "down_in_s": 0.0,
        "action": None,
        "last": None,
        **more,
    }


def status(*cells: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"paused": False, "all": None, "modelcells": list(cells), **more}


ACTION = {
    "kind": "up",
    "phase": "loading",
    "since_s": 1.0,
    "host": "mac",
    "load_s": 3.0,
    "words": "a rustbee of demo is loading on mac, about 2 s more",
}
LAST = {
    "ago_s": 61.0,
    "kind": "up",
    "count": 1,
    "target": 1,
    "rule": "first_request",
    "reason": "1 waits",
    "rustbees": [],
}


def test_nothing_is_scaled_at_first(shell: Shell) -> None:
    shell.queen.answers["GET", PATH] = (200, status())
    result = shell.run("swarmscale", "status")
    assert result.out == ""
    assert "no modelcell is scaled by itself" in result.err
    assert "swarmesh swarmscale set MODEL" in result.err


def test_every_modelcell_has_a_line(shell: Shell) -> None:
    answer = status(
        cell("demo", action=ACTION, starting=1, waiting=3),
        cell("qwen", bounds=None),
        cell("yi", bounds=bounds(1, 3, paused=True)),
        cell("zed", breaker_s=30.0, breaker_reason="the file is\x1b[31m gone"),
        paused=True,
        all=bounds(0, 5, rustbee={"type": "cpu", "slots": 2, "context": None, "cellalloc": None}),
    )
    shell.queen.answers["GET", PATH] = (200, answer)
    lines = shell.run("swarmscale", "status").out.splitlines()
    assert lines[0] == "paused: nothing is started or stopped by itself"
    assert lines[1] == "every modelcell without bounds of its own: 0 to 5 rustbees, type cpu, slots 2"
    assert lines[2].split() == ["modelcell", "min", "max", "rustbees", "wanted", "load", "waiting", "now"]
    assert lines[3].split()[:7] == ["demo", "0", "2", "1", "+1", "1", "0.25"]
    assert lines[3].endswith(ACTION["words"])
    assert lines[4].split() == ["qwen", "1", "0.25"]
    assert lines[5].split()[-1] == "paused"
    assert lines[6].endswith("not started again for 30.0 s: the file is[31m gone")
    assert shell.run("swarmscale", "status", "--json").json["modelcells"][3]["breaker_s"] == 30.0


def test_one_modelcell_is_shown_in_full(shell: Shell) -> None:
    shell.queen.answers["GET", f"{PATH}/demo"] = (200, cell("demo", last=LAST, waiting=2, wait_s=1.5))
    out = shell.run("swarmscale", "status", "demo").out
    for said in ("0 to 2 rustbees, its own", "1 serving, 0 starting, 1 wanted", "1 of 4 in use, load 0.25"):
        assert said in out
    assert "2, the first for 1.5 s" in out
    assert "up 1, 1m01s ago: 1 waits" in out
    shell.queen.answers["GET", f"{PATH}/demo"] = (200, cell("demo", last={**LAST, "kind": "hold"}, breaker_s=2.0))
    out = shell.run("swarmscale", "status", "demo").out
    assert "nothing to do: 1 waits" in out
    assert "not started again for 2.0 s" in out
    wish = {"type": "auto", "slots": 2, "context": 512, "cellalloc": 100}
    broken = cell("demo", bounds=bounds(0, 2, rustbee=wish), breaker_s=2.0, breaker_reason="it ended:\nno such device")
    shell.queen.answers["GET", f"{PATH}/demo"] = (200, broken)
    out = shell.run("swarmscale", "status", "demo").out
    assert "its own, slots 2, context 512 tokens, cellalloc 100 MiB" in out
    assert "not started again for 2.0 s: it ended: ... no such device" in out
    assert shell.run("swarmscale", "status", "demo", "--json").json["modelcell"] == "demo"


def test_bounds_are_set(shell: Shell) -> None:
    shell.queen.answers["GET", PATH] = (200, status())
    shell.queen.answers["PUT", f"{PATH}/demo"] = (200, status(cell("demo")))
    shell.queen.answers["PUT", PATH] = (200, status(all=bounds(0, 1)))
    result = shell.run("swarmscale", "set", "demo", "--min", "0", "--max", "2", "--slots", "8", "--type", "cpu")
    assert result.out == "demo may have 0 to 2 rustbees\n"
    assert "swarmscale status" in result.err
    result = shell.run("swarmscale", "set", "--all", "--max", "1")
    assert result.out == "every other modelcell may have 0 to 1 rustbees\n"
    assert shell.run("swarmscale", "set", "--all", "--max", "1", "--json").json["all"]["max"] == 1
    (one,) = shell.queen.requests("PUT", f"{PATH}/demo")
    assert one.body == {"min": 0, "max": 2, "rustbee": {"type": "cpu", "slots": 8}}
    assert shell.queen.requests("PUT", PATH)[0].body == {"max": 1}


def test_options_are_taken_back(shell: Shell) -> None:
    shell.queen.answers["GET", PATH] = (200, status())
    shell.queen.answers["PUT", f"{PATH}/demo"] = (200, status(cell("demo")))
    assert shell.run("swarmscale", "set", "demo", "--slots", "0", "--type", "auto").code == 0
    (seen,) = shell.queen.requests("PUT", f"{PATH}/demo")
    assert seen.body == {"rustbee": {"type": "auto", "slots": 0}}


def test_what_is_above_the_maximum_is_said(shell: Shell) -> None:
    of_all, own = bounds(0, 1, own=False), cell("own", bounds=bounds(0, 1), rustbees=2)
    paused = bounds(0, 1, own=False, paused=True)
    ran = [cell(name, bounds=None, rustbees=count) for name, count in (("demo", 2), ("qwen", 4), ("zed", 3))]
    shell.queen.answers["GET", PATH] = (200, status(*ran, own))
    # An idle one is stopped before the answer comes.
    cells = [cell("demo", bounds=of_all, rustbees=1), cell("qwen", bounds=of_all, rustbees=4), own]
    shell.queen.answers["PUT", PATH] = (200, status(*cells, cell("zed", bounds=paused, rustbees=3), all=bounds(0, 1)))
    err = shell.run("swarmscale", "set", "--all", "--max", "1").err
    assert "2 rustbees of demo run; 1 will be stopped when it has nothing to do\n" in err
    assert "4 rustbees of qwen run; 3 will be stopped when they have nothing to do\n" in err
    assert "own run" not in err
    assert "zed" not in err
    shell.queen.answers["PUT", f"{PATH}/own"] = (200, status(*cells, all=bounds(0, 1)))
    err = shell.run("swarmscale", "set", "own", "--max", "1").err
    assert "2 rustbees of own run; 1 will be stopped when it has nothing to do\n" in err
    assert "demo" not in err
    shell.queen.answers["PUT", PATH] = (200, status(*cells, all=bounds(0, 1), paused=True))
    assert "will be stopped" not in shell.run("swarmscale", "set", "--all", "--max", "1").err


@pytest.mark.parametrize(
    ("runs", "adopted", "said"),
    [
        (
            3,
            1,
            "3 rustbees of demo run, 1 of them an adopted server, which is never stopped; 2 will be stopped when they ",
        ),
        (
            3,
            2,
            "3 rustbees of demo run, 2 of them adopted servers, which are never stopped; 1 will be stopped when it ",
        ),
        (2, 2, "2 rustbees of demo run, all of them adopted servers, which are never stopped\n"),
        (1, 1, ""),
    ],
)
def test_adopted_servers_are_counted_and_stay(shell: Shell, runs: int, adopted: int, said: str) -> None:
    runs_now = cell("demo", bounds=bounds(0, 1), rustbees=runs, adopted=adopted)
    shell.queen.answers["GET", PATH] = (200, status(runs_now))
    shell.queen.answers["PUT", f"{PATH}/demo"] = (200, status(runs_now))
    err = shell.run("swarmscale", "set", "demo", "--max", "1").err
    assert said in err
    assert ("of demo run" in err) is bool(said)


def test_a_name_with_a_slash_stays_one_name(shell: Shell) -> None:
    shell.queen.answers["GET", f"{PATH}/org%2Fmodel"] = (200, cell("org/model"))
    assert "org/model" in shell.run("swarmscale", "status", "org/model").out


@pytest.mark.parametrize(
    "arguments", [("set",), ("set", "demo"), ("set", "demo", "--all", "--max", "1"), ("set", "--all"), ("unset",)]
)
def test_what_is_not_said_is_asked_for(shell: Shell, arguments: tuple[str, ...]) -> None:
    assert shell.run("swarmscale", *arguments).code == 2
    assert not shell.queen.seen


def test_a_modelcell_is_left_alone_again(shell: Shell) -> None:
    shell.queen.answers["DELETE", f"{PATH}/demo"] = (200, status(all=bounds(0, 5)))
    shell.queen.answers["DELETE", PATH] = (200, status())
    out = shell.run("swarmscale", "unset", "demo").out
    assert out == "demo has no bounds of its own any more; those for all hold for it: 0 to 5\n"
    assert shell.run("swarmscale", "unset", "--all").out == "modelcells without bounds of their own are left alone\n"
    assert shell.run("swarmscale", "unset", "--all", "--json").json["all"] is None


def test_it_is_paused_and_goes_on(shell: Shell) -> None:
    shell.queen.answers["POST", f"{PATH}/pause"] = (200, status(paused=True))
    shell.queen.answers["POST", f"{PATH}/resume"] = (200, status(paused=True))
    result = shell.run("swarmscale", "pause")
    assert result.out == "swarmscale is paused\n"
    assert "swarmscale resume'" in result.err
    assert shell.run("swarmscale", "resume", "demo").code == 0
    assert shell.run("swarmscale", "pause", "--json").json["paused"] is True
    assert shell.run("swarmscale", "resume", "--json").json["paused"] is True
    assert [seen.body for seen in shell.queen.requests("POST", f"{PATH}/resume")] == [
        {"modelcell": "demo"},
        {"modelcell": ""},
    ]


def test_what_the_queen_refuses_is_said(shell: Shell) -> None:
    shell.queen.answers["GET", PATH] = (200, status())
    answer = error("model_not_found", "no modelcell is called 'demmo'", "Did you mean 'demo'?")
    shell.queen.answers["PUT", f"{PATH}/demmo"] = (404, answer)
    result = shell.run("swarmscale", "set", "demmo", "--max", "1")
    assert result.code == 1
    assert "Did you mean 'demo'?" in result.err


def test_one_goes_on_only_when_everything_does(shell: Shell) -> None:
    shell.queen.answers["POST", f"{PATH}/resume"] = (200, status(cell("demo"), paused=True))
    result = shell.run("swarmscale", "resume", "demo")
    assert result.out == "demo is not paused by itself any more, and everything still is\n"
    assert "'swarmesh swarmscale resume' goes on with everything" in result.err
    shell.queen.answers["POST", f"{PATH}/resume"] = (200, status(cell("demo")))
    assert shell.run("swarmscale", "resume", "demo").out == "demo goes on\n"
