"""Sockets that are asked for all at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarmesh.hosts import ssh_forwards
from swarmesh.hosts.ssh_errors import HostForwardError
from swarmesh.hosts.ssh_forwards import ASKED_AT_ONCE_MAX, SshForwards
from swarmesh.hosts.ssh_tool import ToolRun


async def test_fifty_workers_are_not_fifty_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now, most, asked = 0, 0, []

    async def run_tool(argv: list[str], _wait_s: float) -> ToolRun:
        nonlocal now, most
        now += 1
        most = max(most, now)
        asked.append(argv)
        for _ in range(5):
            await asyncio.sleep(0)
        now -= 1
        return ToolRun(0, "", "")

    monkeypatch.setattr(ssh_forwards, "run_tool", run_tool)
    forwards = SshForwards(tmp_path / "control")
    await asyncio.gather(*(forwards.add(tmp_path / f"{number}.sock", "/far.sock") for number in range(50)))
    assert len(asked) == 50
    assert most == ASKED_AT_ONCE_MAX


async def test_what_ssh_says_is_quoted_plainly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def run_tool(_argv: list[str], _wait_s: float) -> ToolRun:
        return ToolRun(255, "", "no \x1b[31m" + "x" * 10_000)

    monkeypatch.setattr(ssh_forwards, "run_tool", run_tool)
    with pytest.raises(HostForwardError) as caught:
        await SshForwards(tmp_path / "control").add(tmp_path / "s", "/far")
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 400
