"""`swarmesh sim scale` as it is typed."""

from __future__ import annotations

import json

import pytest

from swarmesh.cli.program import run
from swarmesh.sim.scaling.traces import TRACES


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(["swarmesh", "sim", "scale", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_trace_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "--trace", "bursts", "--seed", "3", "--json")
    said = json.loads(out)
    assert code == 0
    assert (said["trace"], said["seed"], said["failed"]) == ("bursts", 3, {})
    assert said["replicas_mean"] > said["replicas_least"] > 0
    assert typed(capsys, "--trace", "bursts", "--seed", "3", "--json")[1] == out, "the same seed, the same run"


def test_a_trace_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = typed(capsys, "--trace", "step")
    assert code == 0
    assert "changes of direction" in out
    assert "would have done" in out
    assert "virtual time" in err


def test_an_unknown_trace_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = typed(capsys, "--trace", "storm")
    assert (code, out) == (2, "")
    assert "no trace is called 'storm'" in err
    assert all(name in err for name in TRACES)
