"""Software of a host behind a real sshd: installed where it is missing, replaced when nobody is busy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import structlog

from ssh_host_bed import HIVE, Seen, make_host
from sshd_rig import DIGEST, SshdRig, missing, no_software
from swarmesh.config.home import Home
from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts import ssh_host as ssh_host_module
from swarmesh.hosts.software import Software

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no host over SSH: {missing()}")
OLDER = "fedcba9876543210"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    # A path that ssh would read otherwise than it is written, were it not told.
    home = Home(tmp_path / "a home, 100%d")
    home.make()
    return home


async def test_what_is_missing_there_is_installed(
    sshd: SshdRig, home: Home, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sshd.login_home / ".swarmesh" / "envs" / "0123456789abcdef" / ".ready").unlink()
    asked: list[Any] = []

    async def install(*args: Any, **named: Any) -> None:
        asked.append((args[1].digest, named))
        (sshd.login_home / ".swarmesh" / "envs" / "0123456789abcdef" / "bin" / "python").unlink()
        (sshd.login_home / ".swarmesh" / "envs" / "0123456789abcdef" / "bin").rmdir()
        (sshd.login_home / ".swarmesh" / "envs" / "0123456789abcdef").rmdir()
        sshd.install_this()

    monkeypatch.setattr(ssh_host_module, "install", install)
    host = make_host(sshd, home, seen)
    host.open()
    await host.connected(within_s=30.0)
    assert asked == [("0123456789abcdef", {"hive": HIVE})]
    await host.close()


async def test_an_older_version_serves_until_this_one_is_installed_and_nobody_is_busy(
    sshd: SshdRig, home: Home, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    envs = sshd.login_home / ".swarmesh" / "envs"
    (envs / DIGEST).rename(envs / OLDER)
    (envs / OLDER / ".ready").write_text(str((envs / OLDER / "bin" / "python").resolve()))
    monkeypatch.setattr(ssh_host_module, "UPGRADE_LOOK_S", 0.05)
    asked = asyncio.Event()

    async def install(*_args: Any, **_named: Any) -> None:
        sshd.install_this()
        asked.set()

    monkeypatch.setattr(ssh_host_module, "install", install)
    seen.busy = True
    host = make_host(sshd, home, seen)
    host.open()
    await host.connected(within_s=30.0)
    assert await host.workers() == [], "the older version answers"
    await asyncio.wait_for(asked.wait(), 10)
    await asyncio.sleep(0.2)
    assert seen.words == ["up"], "somebody's stream would break"
    seen.busy = False
    await seen.wait("up", "host_lost", "up")
    await asyncio.sleep(0.2)
    assert seen.words == ["up", "host_lost", "up"], "and then it is what it should be"
    await host.close()


@pytest.mark.parametrize("wrong", [OSError("the disk is gone"), SwarmeshError("no package")])
async def test_an_upgrade_that_cannot_begin_is_logged_and_the_connection_stays(
    wrong: Exception, sshd: SshdRig, home: Home, seen: Seen
) -> None:
    connecting, failed = [True], asyncio.Event()

    async def software() -> Software:
        if connecting:
            connecting.clear()
            return await no_software()
        failed.set()
        raise wrong

    host = make_host(sshd, home, seen)
    host._software = software
    with structlog.testing.capture_logs() as logs:
        host.open()
        await host.connected(within_s=30.0)
        await failed.wait()
        await host.probe()
    assert [(line["event"], line["error"]) for line in logs] == [("not_upgraded", str(wrong))]
    assert seen.words == ["up"]
    await host.close()


async def test_an_upgrade_is_over_when_the_host_is_closed(
    sshd: SshdRig, home: Home, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    envs = sshd.login_home / ".swarmesh" / "envs"
    (envs / DIGEST).rename(envs / OLDER)
    (envs / OLDER / ".ready").write_text(str((envs / OLDER / "bin" / "python").resolve()))
    words: list[str] = []
    began = asyncio.Event()

    async def install(*_args: Any, **_named: Any) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            words.append("ended")

    monkeypatch.setattr(ssh_host_module, "install", install)
    host = make_host(sshd, home, seen)
    host.open()
    await began.wait()
    await host.close()
    assert words == ["ended"]
