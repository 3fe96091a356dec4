"""`swarmesh policy` and `swarmesh explain`: what people read of decisions, and what scripts do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_shell import Shell, shell_at
from fake_queen import error

POLICIES = "/v2/swarmesh/policies"
TASK = "/v2/swarmesh/explain/task"
REFUSAL = "/v2/swarmesh/explain/refusal"
PLACEMENT = "/v2/swarmesh/explain/placement"
SCALE = "/v2/swarmesh/explain/scale"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with shell_at(tmp_path, monkeypatch, capsys) as shell:
        yield shell


def policy(name: str, *modelcells: str, active: bool = False) -> dict[str, Any]:
    return {"name": name, "description": f"what {name} does", "active": active, "modelcells": list(modelcells)}


def attempt(number: int, chosen: str | None, outcome: str, **more: Any) -> dict[str, Any]:
    candidates = [
        {"rustbee_id": "rustbee-1", "score": 1.0, "parts": {"backlog_s": 0.5, "speed": 40.0}},
        {"rustbee_id": "rustbee-2", "score": 1.8, "parts": {"backlog_s": 1.25, "cached_tokens": 512}},
    ]
    return {
        "attempt": number,
        "at": 1_700_000_000.0,
        "queue_ms": 12,
        "policy": "swarm",
        "chosen": chosen,
        "reason": "best",
        "words": "swarm chose rustbee-1",
        "better": "lower",
        "considered": 3,
        "vetoes": {"busy": 1},
        "candidates": candidates,
        "outcome": outcome,
        **more,
    }


def explained(*attempts: dict[str, Any], **more: Any) -> dict[str, Any]:
    names = ("policy", "chosen", "reason", "words", "better", "considered", "vetoes", "candidates")
    return {
        "task": "flow-1",
        "modelcell": "demo",
        **{name: attempts[-1][name] for name in names},
        "would_change": ["rustbee-2 would have been chosen with 0.8 s less backlog"],
        "attempts": list(attempts),
        **more,
    }


def test_policies_are_listed(shell: Shell) -> None:
    listed = [policy("swarm", active=True), policy("foraging", "demo", "qwen"), policy("nest-site")]
    listed[2] |= {"modelcells": ["nosuch"], "unknown": ["nosuch"]}
    for each in listed:
        each.setdefault("unknown", [])
    shell.queen.answers["GET", POLICIES] = (200, {"policies": listed})
    lines = shell.run("policy", "list").out.splitlines()
    assert lines[0].split() == ["policy", "holds", "for", "what", "it", "does"]
    assert lines[1].split() == ["swarm", "all", "what", "swarm", "does"]
    assert "demo, qwen" in lines[2]
    assert "nosuch (no such modelcell)" in lines[3]
    assert shell.run("policy", "list", "--json").json == listed
    listed[1]["active"] = True
    assert "all others, demo, qwen" in shell.run("policy", "list").out


def test_a_policy_is_chosen(shell: Shell) -> None:
    shell.queen.answers["PUT", POLICIES] = (200, {"policies": [policy("foraging", active=True)]})
    result = shell.run("policy", "use", "foraging")
    assert result.out == "every modelcell without a policy of its own goes by foraging now\n"
    assert '[routing] policy = "foraging" in swarmesh.toml' in result.err
    assert shell.run("policy", "use", "foraging", "--modelcell", "demo", "--json").json[0]["name"] == "foraging"
    result = shell.run("policy", "use", "foraging", "--modelcell", "demo")
    assert result.out == "demo goes by foraging now\n"
    assert '[routing.modelcells] demo = "foraging"' in result.err
    assert [seen.body for seen in shell.queen.requests("PUT", POLICIES)] == [
        {"policy": "foraging", "modelcell": ""},
        {"policy": "foraging", "modelcell": "demo"},
        {"policy": "foraging", "modelcell": "demo"},
    ]


def test_a_policy_is_taken_away(shell: Shell) -> None:
    shell.queen.answers["PUT", POLICIES] = (200, {"policies": [policy("foraging"), policy("swarm", active=True)]})
    result = shell.run("policy", "unset", "--modelcell", "demo")
    assert result.out == "demo goes by swarm now, as every modelcell without a policy of its own\n"
    assert "[routing.modelcells] in swarmesh.toml" in result.err
    assert shell.run("policy", "unset", "--modelcell", "demo", "--json").json[1]["active"] is True
    assert shell.queen.seen[0].body == {"policy": None, "modelcell": "demo"}
    assert shell.run("policy", "unset").code == 2


def test_a_policy_that_is_none(shell: Shell) -> None:
    refusal = error("invalid_value", "no policy is called 'swam'", "Did you mean 'swarm'?")
    shell.queen.answers["PUT", POLICIES] = (400, refusal)
    result = shell.run("policy", "use", "swam")
    assert (result.code, result.err) == (1, "error: no policy is called 'swam'\n  next: Did you mean 'swarm'?\n")


def test_a_task_is_explained(shell: Shell) -> None:
    report = {"prompt_tokens": 812, "cached_tokens": 768, "completion_tokens": 96, "first_token_ms": 80}
    first = attempt(1, "rustbee-2", "broke", why="engine_crashed: it \x1b[31maborted")
    told = explained(first, attempt(2, "rustbee-1", "ended", report=report))
    shell.queen.answers["GET", f"{TASK}/flow-1"] = (200, told)
    out = shell.run("explain", "task", "flow-1").out
    assert "flow-1 (demo) went to rustbee-1, policy swarm\nswarm chose rustbee-1\n" in out
    assert "rustbees with demo: 3; left out: 1 busy\n" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["rustbee", "score", "backlog_s", "speed", "cached_tokens"] in rows
    assert ["rustbee-2", "1.8", "1.25", "512"] in rows
    assert "broke: engine_crashed: it [31maborted" in out
    said = "ended: first token after 80 ms, 812 tokens read, 768 of them from its cache, 96 written"
    assert said in out
    assert out.endswith("what would have changed it\n  rustbee-2 would have been chosen with 0.8 s less backlog\n")
    whole = shell.run("explain", "task", "flow-1", "--json").json
    assert (whole["chosen"], whole["attempts"][1]["report"]) == ("rustbee-1", report)


def test_what_a_policy_script_had_no_say_in_is_said(shell: Shell) -> None:
    late, failed = "'x.star' gave no answer in time; the rule decided", "'x.star' failed: \x1b[31mno; the rule decided"
    told = explained(
        attempt(1, "rustbee-2", "broke", without_script=late),
        attempt(2, "rustbee-2", "broke"),
        attempt(3, "rustbee-1", "ended", without_script=failed),
        without_script=failed,
    )
    shell.queen.answers["GET", f"{TASK}/flow-1"] = (200, told)
    lines = shell.run("explain", "task", "flow-1").out.splitlines()
    assert lines[2] == "'x.star' failed: [31mno; the rule decided"
    assert [line for line in lines if line.startswith("attempt ") and "star" in line] == [f"attempt 1: {late}"]
    whole = shell.run("explain", "task", "flow-1", "--json").json
    assert (whole["without_script"], whole["attempts"][0]["without_script"]) == (failed, late)
    assert whole["attempts"][1]["without_script"] == ""


def test_a_task_that_waits_or_failed(shell: Shell) -> None:
    waiting = attempt(1, None, "waiting", candidates=[], vetoes={})
    shell.queen.answers["GET", f"{TASK}/flow-1"] = (200, explained(waiting))
    out = shell.run("explain", "task", "flow-1").out
    assert "flow-1 (demo) waits, policy swarm" in out
    assert "left out: none" in out
    assert "\nwhat would let it run\n" in out
    failed = explained(attempt(1, "rustbee-1", "broke", why="x: y"), error="rustbee_lost: it is gone")
    shell.queen.answers["GET", f"{TASK}/flow-1"] = (200, failed)
    assert "failed: rustbee_lost: it is gone\n" in shell.run("explain", "task", "flow-1").out


def test_a_task_that_nobody_knows(shell: Shell) -> None:
    result = shell.run("explain", "task", "a/b", "--json")
    assert result.code == 1
    assert '"code":"not_found"' in result.err
    assert shell.queen.seen[-1].path == f"{TASK}/a%2Fb"


def test_a_refusal_is_explained(shell: Shell) -> None:
    told = {
        "task": "ab-7",
        "at": 1_700_000_000.0,
        "modelcell": "demo",
        "priority": "low",
        "prompt_chars": 1200,
        "max_tokens": 50,
        "attempts": 0,
        "status": 429,
        "code": "queue_full",
        "words": "1000 tasks \x1b[31mwait",
        "hint": "Try again.",
        "retry_after_s": 5,
        "would_change": ["to come again after 5 s", "fewer tasks"],
    }
    shell.queen.answers["GET", f"{REFUSAL}/ab-7"] = (200, told)
    out = shell.run("explain", "refusal", "ab-7").out
    assert out.startswith("ab-7 (demo, priority low) was refused at ")
    assert ": 429 queue_full\n1000 tasks [31mwait\n" in out
    assert "request size: 1,200 characters, at most 50 tokens wanted\nhint: Try again.\n" in out
    assert out.endswith("what would have let it in\n  to come again after 5 s\n  fewer tasks\n")
    assert shell.run("explain", "refusal", "ab-7", "--json").json == told
    unread = {**told, "modelcell": "", "priority": "", "prompt_chars": None, "max_tokens": None, "hint": ""}
    shell.queen.answers["GET", f"{REFUSAL}/ab-7"] = (200, unread)
    assert shell.run("explain", "refusal", "ab-7").out.startswith("ab-7 was refused at ")
    shell.queen.answers["GET", f"{REFUSAL}/ab-7"] = (200, {**told, "attempts": 2})
    assert "was given up at " in shell.run("explain", "refusal", "ab-7").out


PLACED = {
    "modelcell": "demo",
    "live": True,
    "choice": "mac",
    "by": "votes",
    "words": "mac has the best votes",
    "weights": {"memory left": 0.3, "proximity": 0.3},
    "hosts": [
        {
            "host": "mac",
            "votes": {"memory left": 0.5, "proximity": 1.0},
            "score": 0.45,
            "need_mib": 2048,
            "free_mib": 9000,
        },
        {"host": "oak", "veto": "draining"},
    ],
    "would_change": ["oak if it were not drained"],
}


def test_a_placement_is_explained(shell: Shell) -> None:
    shell.queen.answers["GET", f"{PLACEMENT}/demo"] = (200, PLACED)
    out = shell.run("explain", "placement", "demo").out
    assert out.startswith("demo: mac, as of now\nmac has the best votes\n")
    rows = [line.split() for line in out.splitlines()]
    assert ["mac", "0.45", "0.5", "1", "2,048", "9,000"] in rows
    assert ["oak", "draining"] in rows
    assert "memory left x0.3" in out
    assert out.endswith("what would change it\n  oak if it were not drained\n")
    assert shell.run("explain", "placement", "demo", "--json").json["choice"] == "mac"
    nowhere = {**PLACED, "live": False, "choice": None, "hosts": [], "would_change": []}
    shell.queen.answers["GET", f"{PLACEMENT}/demo"] = (200, nowhere)
    out = shell.run("explain", "placement", "demo", "--last").out
    assert out == "demo: no host, as of when a host was last looked for\nmac has the best votes\n"
    assert [seen.query for seen in shell.queen.seen if seen.path == f"{PLACEMENT}/demo"][-2:] == [{}, {"now": "false"}]
    past = [{"host": "mac", "votes": {"proximity": 1.0}, "score": 0.45}]
    shell.queen.answers["GET", f"{PLACEMENT}/demo"] = (200, {**PLACED, "live": False, "hosts": past})
    out = shell.run("explain", "placement", "demo", "--last").out
    assert out.startswith("demo: mac, as of when the last rustbee was placed\n")
    assert "\nwhat would have changed it\n" in out
    assert "MiB" not in out, "nobody keeps how much was free then"


def test_a_scale_is_explained(shell: Shell) -> None:
    state = {
        "modelcell": "demo",
        "bounds": {"min": 0, "max": 3, "own": True, "paused": False},
        "target": 2,
        "rustbees": 1,
        "starting": 1,
        "slots": 4,
        "slots_busy": 3,
        "load": 0.85,
        "waiting": 2,
        "wait_s": 1.5,
        "latency_s": 0.4,
        "idle_s": 0.0,
        "action": {"kind": "up", "phase": "loading", "since_s": 2.0, "host": "mac", "load_s": 9.0, "words": "it loads"},
    }
    decided = {"ago_s": 12.0, "kind": "up", "count": 1, "target": 2, "rule": "load", "reason": "load is 0.85"}
    told = {
        "state": state,
        "words": "one more, for the load",
        "history": [decided],
        "placement": PLACED,
        "load_times": [{"host": "mac", "load_s": 9.0}],
        "would_change": ["a load below 0.8"],
    }
    shell.queen.answers["GET", f"{SCALE}/demo"] = (200, told)
    out = shell.run("explain", "scale", "demo").out
    assert out.startswith("demo: 1 rustbee, 1 starting, target 2\none more, for the load\n")
    rows = [line.split() for line in out.splitlines()]
    assert ["bounds", "0", "to", "3"] in rows
    assert ["under", "way", "it", "loads"] in rows
    assert ["12.0", "s", "up", "1", "2", "load", "load", "is", "0.85"] in rows
    assert "loading took: mac 9.0 s" in out
    assert not [row for row in rows if row[:1] == ["failed"]]
    assert "demo: mac, as of now" in out
    assert out.endswith("what would change it\n  a load below 0.8\n")
    assert shell.run("explain", "scale", "demo", "--json").json["state"]["target"] == 2
    held = {**state, "bounds": {**state["bounds"], "paused": True}, "breaker_reason": "mac: it crashed"}  # type: ignore[dict-item]
    for words, told_apart in (("held back, because mac: it crashed", False), ("it is paused", True)):
        shell.queen.answers["GET", f"{SCALE}/demo"] = (200, {"state": held, "words": words})
        out = shell.run("explain", "scale", "demo").out
        assert "0 to 3, paused\n" in out
        assert ("failed     mac: it crashed" in out) is told_apart, out
    shell.queen.answers["GET", f"{SCALE}/demo"] = (200, {"state": {**state, "bounds": None}, "words": "left alone"})
    assert ["idle", "for", "0.0", "s"] in rows
    rows = [line.split() for line in shell.run("explain", "scale", "demo").out.splitlines()]
    assert ["bounds", "not", "scaled", "by", "itself"] in rows
    assert not [row for row in rows if row[:1] == ["idle"]], "nobody counts it there"


@pytest.mark.parametrize("what", ["task", "refusal", "placement", "scale"])
@pytest.mark.parametrize("name", ["", " "])
def test_a_name_that_is_empty_is_not_asked_for(shell: Shell, what: str, name: str) -> None:
    result = shell.run("explain", what, name)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: the name is empty\n  next: ")
    assert shell.queen.seen == []


@pytest.mark.parametrize(("name", "path"), [("a/b", "a%2Fb"), ("x\ny", "x%0Ay"), ("..", "%2E%2E"), ("a\udcff", "a%3F")])
@pytest.mark.parametrize("what", ["task", "refusal", "placement", "scale"])
def test_an_odd_name_is_one_step_of_the_path(shell: Shell, what: str, name: str, path: str) -> None:
    assert shell.run("explain", what, name).code == 1
    assert shell.queen.seen[-1].path == f"/v2/swarmesh/explain/{what}/{path}"


def test_scores_are_shown_as_the_sentences_say_them(shell: Shell) -> None:
    candidates = [{"rustbee_id": "rustbee-2", "score": 24_350.0, "parts": {"speed": 1_020.0, "cached_tokens": 123_456}}]
    told = explained(attempt(1, "rustbee-1", "ended", candidates=candidates))
    shell.queen.answers["GET", f"{TASK}/flow-1"] = (200, told)
    rows = [line.split() for line in shell.run("explain", "task", "flow-1").out.splitlines()]
    assert ["rustbee-2", "24350", "1020", "123456"] in rows
