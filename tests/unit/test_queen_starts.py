"""Workers that are being started: files that are copied, hosts that are lost, and people who change their mind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from swarmesh.config.settings import Settings
from swarmesh.core.commands import ForgetWorker, RefuseSpawn, SpawnWorker
from swarmesh.core.errors import NotEnoughMemoryError
from swarmesh.core.events import HostProbed
from swarmesh.core.ids import LOCAL_HOST, HostName, WorkerId
from swarmesh.core.swarm import Swarm
from swarmesh.hosts.host import HostFacts, HostLayout
from swarmesh.hosts.ssh_errors import HostLostError
from swarmesh.queen.driver import Driver
from swarmesh.queen.keys import KeyRing
from swarmesh.queen.links import Links
from swarmesh.queen.starts import Starts
from swarmesh.wire.hosts import Step
from swarmesh.wire.spec import EngineKind, WorkerSpec
from swarmesh.wire.views import SpawnRequest

LAYOUT = HostLayout(root="/h", workers_dir="/h/w", sockets_dir="/h/s", queen_file="/h/q")
FACTS = HostFacts(name="mac", total_mib=10_000, available_mib=9_000, cpu_cores=4, layout=LAYOUT)


class FarHost:
    """A host that spawns, is slow, or is lost, as the test says."""

    name = "mac"

    def __init__(self) -> None:
        self.spawned: list[WorkerSpec] = []
        self.lost = False

    async def spawn(self, spec: WorkerSpec) -> None:
        self.spawned.append(spec)
        if self.lost:
            raise HostLostError("the cable was cut")


class Rig:
    """`Starts` with a core, and hosts and models of the test's making; it is its own effects and watcher."""

    def __init__(self, tmp_path: Path) -> None:
        self.driver = Driver(Swarm(), Links())
        self.host = FarHost()
        self.events: list[tuple[str, ...]] = []
        self.file_there = asyncio.Event()
        keys = KeyRing([], bytes(32))
        keys.add_host("mac", 1)
        self.starts = Starts(Settings(), self.driver, self, self, keys)  # type: ignore[arg-type]
        self.starts.watcher = self
        self.driver.effects = self  # type: ignore[assignment]
        self.free_mib = 9_000

    # hosts and models

    def must_take_workers(self, _name: str) -> None: ...

    async def probe(self, name: str) -> HostFacts:
        self.driver.post(HostProbed(HostName(name), 10_000, self.free_mib))
        return FACTS

    def get(self, _name: str) -> FarHost:
        return self.host

    async def ensure(self, _model: str, _host: str, _on_step: Callable[[Step], None]) -> str:
        await self.file_there.wait()
        return "/h/models/m.gguf"

    # effects and watcher

    def spawn_worker(self, command: SpawnWorker) -> None:
        self.starts.start(command)

    def refuse_spawn(self, command: RefuseSpawn) -> None:
        self.starts.refuse(command)

    def forget_worker(self, command: ForgetWorker) -> None:
        self.starts.forget(command.worker_id)

    def raise_alarm(self, _command: Any) -> None: ...

    def started(self, worker_id: WorkerId) -> None:
        self.events.append(("started", worker_id))

    def start_failed(self, worker_id: WorkerId, code: str, _message: str) -> None:
        self.events.append(("failed", worker_id, code))

    async def ask(self) -> WorkerId:
        return await self.starts.ask(SpawnRequest(modelcell="m", class_path="fake", host="mac", cellalloc=1_000))


@pytest.fixture
async def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_worker_is_started_where_it_was_asked_for(rig: Rig) -> None:
    worker_id = await rig.ask()
    await settled()
    assert rig.events == [("started", worker_id)]
    (spec,) = rig.host.spawned
    assert (spec.rustbee_id, spec.host, spec.reserved_mib) == (worker_id, "mac", 1_000)
    assert rig.starts.spec(worker_id) == spec


async def test_a_refusal_leaves_nothing(rig: Rig) -> None:
    rig.free_mib = 10
    with pytest.raises(NotEnoughMemoryError):
        await rig.ask()
    assert rig.host.spawned == []
    assert not rig.starts._specs


async def test_a_start_nobody_knows_the_end_of_keeps_its_memory_until_the_host_is_back(rig: Rig) -> None:
    rig.host.lost = True
    lives, died = await rig.ask(), await rig.ask()
    await settled()
    assert rig.events == []
    assert rig.starts.spec(lives) is not None
    rig.starts.settle(LOCAL_HOST, set())
    assert rig.events == [], "another host says nothing about it"
    rig.starts.settle("mac", {lives})
    assert rig.events == [("failed", died, "host_lost")]
    rig.starts.settle("mac", set())
    assert len(rig.events) == 1


async def test_a_worker_that_is_stopped_while_its_file_comes_is_never_started(rig: Rig) -> None:
    worker_id = await rig.ask()
    spec = rig.starts.spec(worker_id)
    assert spec is not None
    await settled()
    rig.events.clear()
    rig.host.spawned.clear()
    rig.starts._specs[worker_id] = msgspec.structs.replace(spec, engine=EngineKind.LLAMA_CPP)
    rig.starts.start(SpawnWorker(worker_id, LOCAL_HOST))
    await settled()
    assert rig.host.spawned == [], "its file is not there"
    rig.starts.forget(worker_id)
    rig.file_there.set()
    await settled()
    assert rig.host.spawned == []
    assert rig.starts.spec(worker_id) is None
    assert rig.starts.is_unwanted(worker_id)
    await rig.starts.close()
