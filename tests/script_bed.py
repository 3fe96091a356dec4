"""The service around the policy script, by its routes, without a queen around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from served_api import ServedApi, serving_api
from swarmesh.config.home import Home
from swarmesh.core.commands import RaiseAlarm
from swarmesh.core.script import Hook
from swarmesh.core.swarm import Swarm
from swarmesh.policy.samples import samples
from swarmesh.queen.api.scripts import PATH, script_routes
from swarmesh.queen.scripts import Scripts
from swarmesh.store.memory import MemoryStore

LET_IN = "def admit(task):\n    return None\n"
REFUSE = "def admit(task):\n    return 'closed'\n"
TASK, WORKERS = samples(Hook.SCORE)[0].arguments


@dataclass
class Bed:
    """A service without a queen around it."""

    api: ServedApi
    home: Home
    swarm: Swarm
    store: MemoryStore
    scripts: Scripts
    alarms: list[RaiseAlarm] = field(default_factory=list)

    async def put(self, source: str, path: Path | str = "", name: str = "night.star") -> tuple[int, Any]:
        return await self.api.ask("PUT", PATH, {"name": name, "source": source, "path": str(path)})

    async def view(self) -> dict[str, Any]:
        status, view = await self.api.ask("GET", PATH)
        assert status == 200
        return dict(view)

    @property
    def pid(self) -> int:
        script = self.scripts._script
        assert script is not None
        return script.pid

    def verdict(self) -> str | None:
        return self.swarm.scripted.admit(TASK)  # type: ignore[arg-type]


@asynccontextmanager
async def bed_at(root: Path, store: MemoryStore | None = None) -> AsyncIterator[Bed]:
    home, swarm, alarms = Home(root), Swarm(), list[RaiseAlarm]()
    home.make()
    store = store or MemoryStore()
    scripts = Scripts(home, swarm, store, alarms.append)
    await scripts.open()
    try:
        async with serving_api(script_routes(scripts)) as api:
            yield Bed(api, home, swarm, store, scripts, alarms)
            assert api.errors == []
    finally:
        await scripts.close()
