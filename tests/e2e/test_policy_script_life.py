"""A policy script as a user has one: checked, tried on what was decided, activated, edited, given up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swarm_rig import Swarm

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "policies"
CLOSED = "def admit(task):\n    return 'closed for today'\n"


@pytest.fixture
def served(fresh: Swarm) -> Swarm:
    fresh.run("spawn", "rustbee", "--type", "cpu", "--modelcell", "demo")
    return fresh


def submit(swarm: Swarm) -> Any:
    return swarm.run("nectarflow", "submit", "--prompt", "Hello", check=False)


def test_the_life_of_a_script(served: Swarm, tmp_path: Path) -> None:
    file = tmp_path / "night.star"
    file.write_text((EXAMPLES / "own_machines_at_night.star").read_text())
    assert served.run("policy", "check", str(file)).stdout == "night.star is right: it defines score\n"
    assert "would have been others" in served.run("policy", "test", str(file), "--replay").stdout
    assert served.run("policy", "activate", str(file)).stdout == "night.star decides now: score\n"

    def asked_thrice() -> Any:
        assert submit(served).stdout.startswith("Hello!")
        return (view := served.json("policy", "script"))["asked"] >= 3 and view

    # It is not asked while it is late, which it may be on a machine with much to do.
    view = served.until(asked_thrice, timeout_s=60, what="three questions")
    assert (view["state"], view["watched"]) == ("active", True)
    assert all("gave no answer within" in error["message"] for error in view["errors"]), view["errors"]

    file.write_text(CLOSED)
    refused = served.until(lambda: (done := submit(served)).returncode and done, what="the save is taken up")
    assert "policy script 'night.star': closed for today" in refused.stderr

    file.write_text("def admit(task):\n    return nothing\n")
    served.until(lambda: served.json("policy", "script")["unsaved"], what="the bad save is noticed")
    assert "saved with a mistake, line 2, column 12" in served.run("policy", "script").stdout
    served.until(lambda: submit(served).returncode == 1, what="the last good one decides")

    served.run("queennode", "stop")
    served.run("queennode", "start", "--port", "0")
    served.until(lambda: served.json("policy", "script")["state"] == "active", what="the script is remembered")
    assert served.run("policy", "deactivate", str(file)).stdout == "night.star decides no more\n"
    assert submit(served).stdout.startswith("Hello!")


def test_a_replay_says_what_would_have_changed(served: Swarm, tmp_path: Path) -> None:
    for _ in range(5):
        submit(served)
    file = tmp_path / "closed.star"
    file.write_text(CLOSED)
    view = served.until(
        lambda: (found := served.json("policy", "test", str(file), "--replay"))["asked"] and found,
        what="decisions are written down",
    )
    assert view["changed"] == view["asked"] <= view["decisions"]
    assert {(change["was"], change["would_be"]) for change in view["changes"]} == {("let in", "refused")}
    assert submit(served).returncode == 0, "a replay changes nothing"
