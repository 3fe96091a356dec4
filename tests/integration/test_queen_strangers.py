"""Agents that live on a host and cannot be taken over: everybody sees them, and they can be stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from queen_rig import RUSTBEES, running_queen
from swarmesh.hosts.agent_file import AgentFile
from swarmesh.queen import hosts

BEE = AgentFile(
    rustbee_id="rustbee-9",
    modelcell="qwen",
    pid=42,
    started_at=1.0,
    boot_id="b",
    socket_path="/nowhere/rustbee-9.sock",
    engine_socket_path="",
    engine_pid=43,
)


class LentHome:
    """A host on which an agent of another queen lives, until it is told to stop."""

    name = "localhost"

    def __init__(self) -> None:
        self.living = [BEE]
        self.stopped: list[str] = []

    async def workers(self) -> list[AgentFile]:
        return self.living

    async def reach(self, _worker_id: str, location: str) -> str:
        return location

    async def wait_exit(self, _worker_id: str) -> None:
        return

    async def tail(self, _worker_id: str, _lines_max: int) -> str:
        return ""

    async def stop(self, worker_id: str, _grace_s: float) -> None:
        self.stopped.append(worker_id)
        self.living = []


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> LentHome:
    made = LentHome()
    monkeypatch.setattr(hosts, "LocalHost", lambda _home, _name: made)
    return made


async def test_it_is_shown_with_the_reason_and_stopped_like_any_other(
    tmp_path: Path, home: LentHome, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LentHome, "wait_exit", lambda _self, _worker_id: until(lambda: home.stopped))
    async with running_queen(tmp_path / "home") as rig:
        (shown,) = (await rig.json("GET", RUSTBEES))["rustbees"]
        assert (shown["rustbee_id"], shown["status"], shown["engine_pid"]) == ("rustbee-9", "suspect", 43)
        assert shown["error"]["code"] == "not_adopted"
        assert (await rig.json("GET", f"{RUSTBEES}/rustbee-9"))["pid"] == 42
        answer = await rig.ask("DELETE", f"{RUSTBEES}/rustbee-9")
        assert answer.status == 202
        await until(lambda: home.stopped == ["rustbee-9"])
        listed = await rig.json("GET", RUSTBEES)
        assert listed["rustbees"] == []
