"""The queen's clock: nothing that goes wrong at one tick is the end of time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from queen_rig import running_queen
from swarmesh.core.commands import Command
from swarmesh.core.events import Event, Ticked
from swarmesh.queen import process


async def test_a_tick_that_goes_wrong_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "TICK_INTERVAL_S", 0.01)
    async with running_queen(tmp_path / "home") as rig:
        handle, ticks, ticked_again = rig.swarm.handle, 0, asyncio.Event()

        def wrong_at_first(event: Event, now_ms: int) -> list[Command]:
            nonlocal ticks
            ticks += isinstance(event, Ticked)
            if ticks == 1:
                raise OSError("nobody thought of this")
            ticked_again.set()
            return handle(event, now_ms)

        monkeypatch.setattr(rig.swarm, "handle", wrong_at_first)
        await asyncio.wait_for(ticked_again.wait(), 30)
    assert "tick_failed" in capsys.readouterr().out
