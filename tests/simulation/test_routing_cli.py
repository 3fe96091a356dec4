"""`swarmesh sim run` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarmesh.cli.program import run
from swarmesh.sim.routing.request import CONTEXT_TOKENS
from swarmesh.sim.routing.run import ROUTERS
from swarmesh.sim.routing.workloads import WORKLOADS


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(["swarmesh", "sim", "run", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_run_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--workload", "agent", "--policy", "swarm", "--speeds", "2,1,.5", "--seed", "3", "--requests", "100")
    code, out, _ = typed(capsys, *options, "--json")
    said = json.loads(out)
    assert code == 0
    assert (said["workload"], said["policy"], said["seed"], said["requests"]) == ("agent", "swarm", 3, 100)
    assert [worker["speed"] for worker in said["workers"]] == [2, 1, 0.5]
    assert said["waits"]["ttft_ms_mean"] > 0
    assert typed(capsys, *options, "--json")[1] == out, "the same seed, the same run"


@pytest.mark.parametrize("policy", ROUTERS)
def test_every_policy_for_people(capsys: pytest.CaptureFixture[str], policy: str) -> None:
    code, out, err = typed(capsys, "--workload", "shared-prefix", "--policy", policy, "--requests", "50")
    assert code == 0
    assert policy in out
    assert "rustbee-7" in out
    assert "virtual time" in err


def test_a_trace_at_a_load_and_at_its_own_pace(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    lines = [
        {"timestamp": 60_000 * each, "input_length": 600, "output_length": 5, "hash_ids": [0, each]}
        for each in range(9)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, _ = typed(capsys, "--trace", str(path), "--json")
    assert code == 0
    assert json.loads(out)["virtual_s"] < 60, "nearer together, for a load of 0.7"
    _, slow, _ = typed(capsys, "--trace", str(path), "--load", "0", "--json")
    assert json.loads(slow)["virtual_s"] >= 480
    assert json.loads(slow)["cached_share"] > 0


def test_a_trace_in_azures_columns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = [f"2023-11-16 18:{minute}:46.6805900,{400 + minute},20" for minute in range(15, 24)]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")
    code, out, _ = typed(capsys, "--trace", str(path), "--load", "0", "--policy", "peer:least-in-flight", "--json")
    said = json.loads(out)
    assert code == 0
    assert (said["requests"], said["failed"], said["policy"]) == (9, {}, "peer:least-in-flight")
    assert 480 <= said["virtual_s"] < 500, "at its own pace"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "either --workload or --trace"),
        (("--workload", "agent", "--trace", "x.csv"), "give one of them, not both"),
        (("--trace", "nowhere.jsonl"), "nowhere.jsonl does not exist"),
        (("--workload", "nothing"), "no workload is called 'nothing'"),
        (("--workload", "agent", "--policy", "best"), "no policy is called 'best'"),
        (("--workload", "agent", "--load", "0"), "no pace of its own"),
        (("--workload", "agent", "--load", "1e-9"), "--load 1e-09 is less than 0.001"),
        (("--workload", "agent", "--speeds", "1,fast"), "--speeds '1,fast'"),
        (("--workload", "agent", "--speeds", "1,0"), "--speeds '1,0'"),
        (("--workload", "agent", "--speeds", "nan"), "--speeds 'nan'"),
    ],
)
def test_what_makes_no_sense_is_said(capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str) -> None:
    code, out, err = typed(capsys, *options)
    assert (code, out) == (2, "")
    assert said in err


def test_what_lasts_for_ages_is_not_simulated(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    lines = [{"timestamp": at, "input_length": 600, "output_length": 5} for at in (0, 5e15)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, err = typed(capsys, "--trace", str(path), "--load", "0")
    assert (code, out) == (2, "")
    assert "57,870,370 days" in err


def test_lengths_that_were_cut_are_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"timestamp": 1, "input_length": 5, "output_length": 1000000}\n')
    _, out, err = typed(capsys, "--trace", str(path), "--load", "0", "--speeds", "1,1")
    assert "trace.jsonl, 1 request, seed 1" in out
    assert f"1 request cut to {CONTEXT_TOKENS:,} tokens, prompt and answer" in err
    assert out.splitlines()[-1].split() == ["rustbee-1", "1", "0", "0.0%", "0.0%"], (
        "no wait of 0 ms where nobody waited"
    )


def test_a_wrong_line_of_a_trace_is_an_error_with_its_number(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"timestamp": 1, "input_length": 5, "output_length": 1}\n[]\n')
    code, out, err = typed(capsys, "--trace", str(path), "--json")
    assert (code, out) == (1, "")
    error = json.loads(err)["error"]
    assert error["code"] == "bad_trace"
    assert "line 2" in error["message"]


def test_the_help_names_every_workload_and_policy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    _, out, _ = typed(capsys, "--help")
    assert all(name in out for name in (*WORKLOADS, *ROUTERS))
