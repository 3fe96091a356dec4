"""The policy script's service where something is wrong: with its file, the disk, the machine, or a look."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest

from script_bed import REFUSE, Bed, bed_at
from swarmesh.config.home import Home
from swarmesh.core.script import Hook
from swarmesh.policy import script as policy_script
from swarmesh.queen import scripts as queen_scripts
from swarmesh.wire.scripts import ScriptChange


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queen_scripts, "LOOK_S", 3600.0)  # Tests look when they mean to,
    monkeypatch.setattr(policy_script, "ANSWER_S_MAX", 10.0)  # and the machine may have much to do.


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    async with bed_at(tmp_path / "home") as made:
        yield made


@pytest.mark.parametrize("lies", ["pipe", "device", "nul"])
async def test_what_is_no_file_is_not_watched_and_holds_nobody_up(bed: Bed, tmp_path: Path, lies: str) -> None:
    file = tmp_path / ("n\0.star" if lies == "nul" else "night.star")
    if lies == "pipe":
        os.mkfifo(file)
    elif lies == "device":
        file.symlink_to("/dev/zero")
    status, view = await asyncio.wait_for(bed.put(REFUSE, file), 30)
    assert (status, view["path"], view["watched"]) == (200, "", False)
    assert bed.verdict() == "closed"


async def test_a_file_that_becomes_a_pipe_changes_nothing(bed: Bed, tmp_path: Path) -> None:
    file = tmp_path / "night.star"
    file.write_text(REFUSE)
    await bed.put(REFUSE, file)
    file.unlink()
    os.mkfifo(file)
    await asyncio.wait_for(bed.scripts.look(), 30)
    assert bed.verdict() == "closed"


def sandboxes() -> list[int]:
    """Processes of scripts that this one has; other tests may have left children of other kinds."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # A zombie is one of these, too.
            found += [child.pid] if "swarmesh.policy.sandbox" in child.cmdline() else []
    return found


async def test_the_end_waits_for_no_change_under_way(bed: Bed) -> None:
    await bed.put(REFUSE)
    pid = bed.pid
    async with bed.scripts._changing:
        await asyncio.wait_for(bed.scripts.close(), 30)
    assert not psutil.pid_exists(pid)
    await bed.put(REFUSE)
    assert not bed.swarm.scripted.has(Hook.ADMIT), "the queen ends"
    assert sandboxes() == []


async def test_a_script_that_cannot_be_remembered_leaves_no_process(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise failure

    monkeypatch.setattr(queen_scripts, "write_private", full)
    failure: Exception = OSError(errno.ENOSPC, "No space left on device")
    status, answer = await bed.put(REFUSE)
    assert (status, answer["error"]["message"]) == (500, "night.star cannot be remembered: No space left on device")
    failure = ValueError("nobody thought of this")
    with pytest.raises(ValueError, match="nobody"):
        await bed.scripts.activate(ScriptChange("night.star", REFUSE))
    assert sandboxes() == []


async def test_a_look_that_goes_wrong_is_not_the_last(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks, seen = iter((True, False)), asyncio.Event()

    async def look() -> None:
        if next(looks, False):
            raise RuntimeError("nobody thought of this")
        seen.set()

    monkeypatch.setattr(queen_scripts, "LOOK_S", 0.0)
    monkeypatch.setattr(bed.scripts, "look", look)
    watch = asyncio.create_task(bed.scripts._look_again())
    await asyncio.wait_for(seen.wait(), 30)
    watch.cancel()
    assert "look_failed" in capsys.readouterr().out


async def test_a_script_that_was_unlucky_at_the_start_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    home.make()
    home.script_file.write_bytes(
        msgspec.json.encode({"name": "x.star", "source": REFUSE, "path": "", "activated_at": 1.0})
    )
    monkeypatch.setattr(queen_scripts, "RETRY_S", 0.0)
    with monkeypatch.context() as slow:
        slow.setattr(policy_script, "START_S_MAX", 0.001)
        async with bed_at(home.root) as bed:
            await bed.scripts.look()
            assert (await bed.view())["state"] == "off"
            assert len(bed.alarms) == 1, "said once"
            slow.undo()
            await bed.scripts.look()
            view = await bed.view()
            assert (view["state"], view["reason"], view["activated_at"]) == ("active", "", 1.0)
            assert bed.verdict() == "closed"
