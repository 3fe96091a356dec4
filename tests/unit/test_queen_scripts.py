"""The policy script while the queen runs, by its routes: activated, saved again, given up, remembered, replayed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from script_bed import LET_IN, REFUSE, TASK, WORKERS, Bed, bed_at
from swarmesh.config.home import Home
from swarmesh.core.script import Hook, ScriptAwayError
from swarmesh.core.script_guard import Scripted
from swarmesh.policy import script as policy_script
from swarmesh.policy.process import ScriptsUnavailableError
from swarmesh.policy.python_script import PythonScript
from swarmesh.policy.script import SandboxedScript
from swarmesh.queen import script_replay
from swarmesh.queen import scripts as queen_scripts
from swarmesh.queen.api.openapi import document
from swarmesh.queen.api.scripts import PATH, REPLAY, script_routes
from swarmesh.queen.keys import Role
from swarmesh.queen.said_log import LINES_PER_MINUTE, SaidLog
from swarmesh.queen.script_replay import recorded
from swarmesh.queen.scripts import BAD_SAVE
from swarmesh.store.records import DecisionRecord

BROKEN = "def admit(task):\n    return task.nope\n"


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queen_scripts, "LOOK_S", 3600.0)  # Tests look when they mean to,
    monkeypatch.setattr(policy_script, "ANSWER_S_MAX", 10.0)  # and the machine may have much to do.


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    async with bed_at(tmp_path / "home") as made:
        yield made


async def test_there_is_none_at_first(bed: Bed) -> None:
    assert (await bed.view())["state"] == "none"
    status, answer = await bed.api.ask("DELETE", PATH)
    assert (status, answer["error"]["code"]) == (404, "not_found")


async def test_a_script_decides_until_it_is_deactivated(bed: Bed) -> None:
    status, view = await bed.put(REFUSE)
    assert (status, view["state"], view["name"], view["hooks"]) == (200, "active", "night.star", ["admit"])
    assert (view["path"], view["watched"]) == ("", False)
    began_s = time.perf_counter()
    assert bed.verdict() == "closed"
    took_ms = 1_000 * (time.perf_counter() - began_s)
    view = await bed.view()
    assert (view["asked"], view["failed"]) == (1, 0)
    assert 0 < view["mean_ms"] <= view["max_ms"] <= took_ms
    assert await bed.api.ask("DELETE", PATH) == (204, None)
    assert not bed.swarm.scripted.has(Hook.ADMIT)
    assert not bed.home.script_file.exists()


async def test_a_script_with_mistakes_changes_nothing(bed: Bed) -> None:
    await bed.put(REFUSE)
    status, answer = await bed.put(BROKEN)
    error = answer["error"]
    assert (status, error["code"], error["param"]) == (400, "policy_script_invalid", "source")
    assert error["message"] == "night.star:2:12: Object of type `struct` has no attribute `nope`"
    assert bed.verdict() == "closed"


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x"},
        {"source": LET_IN},
        *({"name": name, "source": LET_IN} for name in ("", "a\nb", "a\x7fb", "a\x9b2Jb")),
    ],
)
async def test_a_request_that_is_none(bed: Bed, body: dict[str, Any]) -> None:
    status, _ = await bed.api.ask("PUT", PATH, body)
    assert status == 400


async def test_only_the_admin_may(bed: Bed) -> None:
    routes = script_routes(bed.scripts)
    assert {route.roles for route in routes} == {(Role.ADMIN,)}
    assert {PATH, REPLAY} <= set(document(routes)["paths"])


async def test_what_is_saved_is_taken_up(bed: Bed, tmp_path: Path) -> None:
    file = tmp_path / "night.star"
    file.write_text(LET_IN)
    _, view = await bed.put(LET_IN, file)
    assert (view["path"], view["watched"]) == (str(file), True)
    assert bed.verdict() is None
    await bed.scripts.look()
    assert (await bed.view())["asked"] == 1
    file.write_text(REFUSE)
    await bed.scripts.look()
    assert bed.verdict() == "closed"
    assert bed.alarms == []


async def test_a_bad_save_keeps_the_last_good_one_and_says_where_once(bed: Bed, tmp_path: Path) -> None:
    file = tmp_path / "night.star"
    file.write_text(REFUSE)
    await bed.put(REFUSE, file)
    file.write_text(BROKEN)
    for _ in range(3):
        await bed.scripts.look()
    assert bed.verdict() == "closed"
    (alarm,) = bed.alarms
    assert (alarm.worker_id, alarm.code) == ("", BAD_SAVE)
    assert "night.star:2:12: Object of type `struct` has no attribute `nope`" in alarm.message
    (unsaved,) = (await bed.view())["unsaved"]
    assert (unsaved["line"], unsaved["column"], unsaved["text"]) == (2, 12, "    return task.nope")
    file.write_text(LET_IN)
    await bed.scripts.look()
    assert bed.verdict() is None
    assert (await bed.view())["unsaved"] == []


async def test_a_file_that_vanishes_changes_nothing(bed: Bed, tmp_path: Path) -> None:
    file = tmp_path / "night.star"
    file.write_text(REFUSE)
    await bed.put(REFUSE, file)
    file.unlink()
    await bed.scripts.look()
    assert bed.verdict() == "closed"


@pytest.mark.parametrize("lies", ["other text", "other name"])
async def test_a_file_that_is_not_what_was_sent_is_not_watched(bed: Bed, tmp_path: Path, lies: str) -> None:
    file = tmp_path / ("night.star" if lies == "other text" else "night.txt")
    file.write_text(LET_IN if lies == "other text" else REFUSE)
    _, view = await bed.put(REFUSE, file)
    assert (view["path"], view["watched"]) == ("", False)


async def test_three_failures_turn_it_off_and_a_good_save_on_again(bed: Bed, tmp_path: Path) -> None:
    once = "def admit(task):\n    return 1 if task.id == 'bad' else None\n"
    file = tmp_path / "night.star"
    file.write_text(once)
    await bed.put(once, file)
    bad = {**TASK, "id": "bad"}  # type: ignore[dict-item]
    for _ in range(3):
        assert bed.swarm.scripted.admit(bad) is None
    view = await bed.view()
    assert (view["state"], view["failed"], len(view["errors"])) == ("off", 3, 3)
    assert "night.star:1: admit returned an int" in view["reason"]
    assert "was turned off" in (bed.swarm.scripted.take_alarm() or "")
    await bed.scripts.look()
    assert (await bed.view())["state"] == "off"
    file.write_text(REFUSE)
    await bed.scripts.look()
    assert (await bed.view())["state"] == "active"
    assert bed.verdict() == "closed"


async def test_a_script_is_remembered(tmp_path: Path) -> None:
    file = tmp_path / "night.star"
    file.write_text(LET_IN)
    async with bed_at(tmp_path / "home") as bed:
        await bed.put(LET_IN, file)
        assert bed.home.script_file.stat().st_mode & 0o777 == 0o600
    file.write_text(REFUSE)
    async with bed_at(tmp_path / "home") as bed:
        assert (await bed.view())["path"] == str(file)
        await bed.scripts.look()
        assert bed.verdict() == "closed"
        await bed.api.ask("DELETE", PATH)
    async with bed_at(tmp_path / "home") as bed:
        assert (await bed.view())["state"] == "none"


async def test_what_is_remembered_may_be_unusable(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.make()
    home.script_file.write_bytes(b"{")
    async with bed_at(home.root) as bed:
        assert (await bed.view())["state"] == "none"
    kept = {"name": "x.star", "source": "def admit(", "path": "", "activated_at": 1.0}
    home.script_file.write_bytes(msgspec.json.encode(kept))
    async with bed_at(home.root) as bed:
        view = await bed.view()
        (alarm,) = bed.alarms
        assert view["state"] == "off"
        assert view["reason"].startswith("x.star:1")
        assert view["reason"] in alarm.message
        assert bed.scripts._retry_s is None, "its text will not get better"


def record(kind: str, **facts: Any) -> DecisionRecord:
    return DecisionRecord(round(time.time() * 1_000), kind, msgspec.json.encode(facts))


DECISIONS = [
    record("admit", task=TASK, refused=None, words=""),
    record("admit", task={**TASK, "priority": "low"}, refused="policy_refused", words="closed"),  # type: ignore[dict-item]
    *(record("admit", task=TASK, refused=code, words="") for code in ("key_tokens", "key_concurrency", "quarantined")),
    record("score", task=TASK, workers=WORKERS, chosen="rustbee-3", policy="swarm"),
    record("score", task=TASK, workers=WORKERS, chosen="rustbee-1", policy="swarm"),
    record("score", task=TASK, workers=[], chosen=None, policy="swarm"),
    record(
        "place", model={"name": "m"}, hosts=[{"name": "oak", "score": 1}, {"name": "elm", "score": 2}], chosen="oak"
    ),
    record("place", model={"name": "m"}, hosts=[], chosen=None),
    record("scale", model={"name": "m"}, stats={"target": 2}, chosen=2),
]


async def test_a_replay_says_what_would_have_changed(bed: Bed) -> None:
    await bed.store.append_decisions(DECISIONS)
    await bed.put(LET_IN)
    source = (
        "def admit(task):\n    return None if task.priority == 'high' else 'closed'\n"
        "def score(task, workers):\n    return [1 if worker.id == 'rustbee-1' else 0 for worker in workers]\n"
        "def place(model, hosts):\n    return [None for _ in hosts]\n"
        "def scale(model, stats):\n    return stats.target + 1\n"
    )
    status, view = await bed.api.ask("POST", REPLAY, {"name": "x.star", "source": source})
    assert status == 200
    assert (view["decisions"], view["asked"], view["changed"], view["failed"]) == (6, 6, 3, 0)
    assert [(change["hook"], change["was"], change["would_be"]) for change in view["changes"]] == [
        ("score", "rustbee-3", "rustbee-1"),
        ("place", "oak", "waits"),
        ("scale", "2", "3"),
    ]
    assert (await bed.view())["asked"] == 0, "the active script was not disturbed"


async def test_a_replay_takes_no_longer_than_it_may(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_replay, "REPLAY_S_MAX", 0.0)
    await bed.store.append_decisions(DECISIONS)
    _, view = await bed.api.ask("POST", REPLAY, {"name": "x.star", "source": LET_IN})
    assert (view["decisions"], view["complete"]) == (0, False)


async def test_a_replay_counts_what_has_no_answer(bed: Bed) -> None:
    await bed.store.append_decisions(DECISIONS)
    source = "def score(task, workers):\n    return [0] * 1000000000 if workers[0].id == 'rustbee-3' else 1\n"
    status, view = await bed.api.ask("POST", REPLAY, {"name": "x.star", "source": source, "hours": 1})
    assert (status, view["asked"], view["changed"], view["failed"]) == (200, 2, 0, 2)
    assert "memory" in view["failures"][0]["why"] or "answer" in view["failures"][0]["why"]
    status, answer = await bed.api.ask("POST", REPLAY, {"name": "x.star", "source": "def score("})
    assert (status, answer["error"]["code"]) == (400, "policy_script_invalid")


def test_records_become_questions() -> None:
    questions = [recorded(each) for each in DECISIONS]
    assert [question and (question.hook, question.chosen) for question in questions] == [
        (Hook.ADMIT, "let in"),
        (Hook.ADMIT, "refused"),
        None,
        None,
        None,
        (Hook.SCORE, "rustbee-3"),
        (Hook.SCORE, "rustbee-1"),
        None,
        (Hook.PLACE, "oak"),
        None,
        (Hook.SCALE, "2"),
    ]


def test_that_a_script_is_away_is_no_failure_of_it() -> None:
    def away(_task: Any) -> None:
        raise ScriptAwayError

    guard = Scripted(PythonScript("x.star", {Hook.ADMIT: away}))
    for _ in range(10):
        assert guard.admit(TASK) is None  # type: ignore[arg-type]
    assert (guard.failures, guard.is_off) == (0, False)


def test_of_a_script_that_prints_much_a_little_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    said = SaidLog("x.star")
    for _ in range(10):
        said(("y" * 1_000,) * 20)
    lines = [line for line in capsys.readouterr().out.splitlines() if "said" in line]
    assert len(lines) == LINES_PER_MINUTE
    assert max(map(len, lines)) < 400


def test_an_installation_without_the_language_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ScriptsUnavailableError) as caught:
        SandboxedScript.open("mine.star", "def admit(task):\n    return None\n")
    assert "rustbee[scripts]" in caught.value.hint


async def test_a_file_that_is_gone_is_told_and_its_text_goes_on(bed: Bed, tmp_path: Path) -> None:
    file = tmp_path / "night.star"
    file.write_text(REFUSE)
    _, view = await bed.put(REFUSE, file)
    assert not view["gone"]
    file.unlink()
    await bed.scripts.look()
    view = await bed.view()
    assert (view["state"], view["gone"]) == ("active", True)
    assert bed.verdict() == "closed"
    file.write_text(LET_IN)
    await bed.scripts.look()
    view = await bed.view()
    assert (view["watched"], view["gone"]) == (True, False)
    assert bed.verdict() is None


async def test_a_script_that_never_had_a_file_here_is_not_told_to_be_gone(bed: Bed, tmp_path: Path) -> None:
    _, view = await bed.put(REFUSE, tmp_path / "elsewhere.star")
    assert (view["path"], view["watched"], view["gone"]) == ("", False, False)
