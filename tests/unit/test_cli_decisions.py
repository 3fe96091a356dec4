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
        "would_change": ["rustbee-2 had been chosen with 0.8 s less backlog"],
        "attempts": list(attempts),
        **more,
    }


def test_policies_are_listed(shell: Shell) -> None:
    listed = [policy("swarm", active=True), policy("foraging", "demo", "qwen"), policy("nest-site")]
    shell.queen.answers["GET", POLICIES] = (200, {"policies": listed})
    lines = shell.run("policy", "list").out.splitlines()
    assert lines[0].split() == ["policy", "holds", "for", "what", "it", "does"]
    assert lines[1].split() == ["swarm", "all", "what", "swarm", "does"]
    assert "demo, qwen" in lines[2]
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
    assert out.endswith("what would have changed it\n  rustbee-2 had been chosen with 0.8 s less backlog\n")
    whole = shell.run("explain", "task", "flow-1", "--json").json
    assert (whole["chosen"], whole["attempts"][1]["report"]) == ("rustbee-1", report)


def test_a_task_that_waits_or_failed(shell: Shell) -> None:
    waiting = attempt(1, None, "waiting", candidates=[], vetoes={})
    shell.queen.answers["GET", f"{TASK}/flow-1"] = (200, explained(waiting))
    out = shell.run("explain", "task", "flow-1").out
    assert "flow-1 (demo) waits, policy swarm" in out
    assert "left out: none" in out
    failed = explained(attempt(1, "rustbee-1", "broke", why="x: y"), error="rustbee_lost: it is gone")
    shell.queen.answers["GET", f"{TASK}/flow-1"] = (200, failed)
    assert "failed: rustbee_lost: it is gone\n" in shell.run("explain", "task", "flow-1").out


def test_a_task_that_nobody_knows(shell: Shell) -> None:
    result = shell.run("explain", "task", "a/b", "--json")
    assert result.code == 1
    assert '"code":"not_found"' in result.err
    assert shell.queen.seen[-1].path == f"{TASK}/a%2Fb"
