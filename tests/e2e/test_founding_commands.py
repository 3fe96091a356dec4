"""The founding commands, letter by letter, on a real swarm."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from swarm_rig import SWARMESH, is_alive, run_alone

SLOW_TOKENS = 250
SLOW = f"tokens={SLOW_TOKENS},tokens_per_s=50"


def test_the_six_commands(fresh: Any) -> None:
    assert fresh.run("queennode", "start").returncode == 0  # It runs already: says so and is content.
    fresh.run("spawn", "rustbee", "--type", "cpu", "--modelcell", "demo")
    assert "demo" in fresh.run("rustbees", "list").stdout
    assert "rustbee-" in fresh.run("waggle", "status").stdout
    said = fresh.run("nectarflow", "submit", "--prompt", "Hello")
    assert said.stdout.startswith("Hello!")
    job = fresh.json("nectarflow", "submit", "--prompt", "Hello", "--detach")["job_id"]
    fresh.until(lambda: fresh.json("nectarflow", "show", job)["status"] == "done", what="the job ends")
    assert fresh.run("honeytokens", "collect", "--job-id", job).stdout.strip() == said.stdout.strip()


def test_rustbees_list_has_the_promised_fields(pair: Any) -> None:
    rows = pair.json("rustbees", "list")
    promised = {
        "rustbee_id", "modelcell", "backend", "host", "location", "status", "load", "slots", "slots_busy",
        "vram_used", "quality", "uptime_s", "pid", "engine_pid", "next_waggle",
    }  # fmt: skip
    assert len(rows) == 2
    for row in rows:
        assert promised <= set(row)
        assert row["status"] == "healthy"
        assert row["backend"] == "cpu"
        assert row["pid"] > 0
        assert row["engine_pid"] > 0


def test_spawn_and_stop(fresh: Any) -> None:
    born = fresh.json("spawn", "rustbee", "--type", "cpu", "--modelcell", "demo")
    row = fresh.rustbees()[0]
    assert row["rustbee_id"] == born["rustbee_id"]
    fresh.run("rustbees", "stop", born["rustbee_id"])
    fresh.until(lambda: not fresh.rustbees(), what="the rustbee is gone")
    fresh.until(lambda: not is_alive(row["pid"]) and not is_alive(row["engine_pid"]), what="its processes end")


def test_down_leaves_workers_and_up_finds_them(fresh: Any) -> None:
    fresh.run("spawn", "rustbee", "--type", "cpu", "--modelcell", "demo")
    before = fresh.rustbees()[0]
    fresh.run("down")
    assert is_alive(before["engine_pid"])
    fresh.run("queennode", "start", "--port", "0")
    rows = fresh.until(lambda: [r for r in fresh.rustbees() if r["status"] == "healthy"], what="it is adopted")
    assert rows[0]["rustbee_id"] == before["rustbee_id"]
    assert rows[0]["engine_pid"] == before["engine_pid"]
    assert fresh.run("nectarflow", "submit", "--prompt", "Hello").stdout.startswith("Hello!")
    fresh.run("down", "--all")
    fresh.until(lambda: not is_alive(before["pid"]) and not is_alive(before["engine_pid"]), what="nothing is left")


def test_honeytokens_outlive_the_queen(fresh: Any) -> None:
    fresh.run("spawn", "rustbee", "--type", "cpu", "--modelcell", "demo")
    job = fresh.json("nectarflow", "submit", "--prompt", "What is a rustbee?", "--detach")["job_id"]
    text = fresh.run("honeytokens", "collect", "--job-id", job, "--follow").stdout
    fresh.run("down")
    fresh.run("queennode", "start", "--port", "0")
    assert fresh.run("honeytokens", "collect", "--job-id", job).stdout == text


def test_submit_streams_token_by_token(fresh: Any) -> None:
    # Slow enough that its answer is under way for long after its first word has come.
    fresh.run("spawn", "rustbee", "--type", "python", "--modelcell", "slow", "--class", f"fake:{SLOW}")
    process = subprocess.Popen(
        [SWARMESH, "nectarflow", "submit", "--modelcell", "slow", "--prompt", "Recite."],
        env=fresh.env, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 1)
    still_running = process.poll() is None
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=30) == 0
    assert first
    assert still_running
    assert len((first + rest).split()) == SLOW_TOKENS


def test_env_is_what_a_shell_takes(pair: Any) -> None:
    out = pair.run("env").stdout
    assert re.search(r"^export OPENAI_BASE_URL=http://127\.0\.0\.1:\d+/v1$", out, re.MULTILINE)
    assert f"export OPENAI_API_KEY={pair.key}" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["rustbees", "list"], 3, "queen"),
        (["nectarflow", "submit", "--prompt", "x"], 3, "queen"),
        (["nonsense"], 2, ""),
    ],
)
def test_exit_codes_without_a_queen(tmp_path: Any, arguments: list[str], code: int, words: str) -> None:
    done = run_alone(tmp_path, *arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_queen_on_one_home_says_why_not(pair: Any) -> None:
    # Started by hand in the foreground, past the command line's own check for a running queen.
    done = subprocess.run(
        [sys.executable, "-m", "swarmesh.queen", "--port", "0"],
        env=pair.env, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error["code"] == "hivecomb_locked"
