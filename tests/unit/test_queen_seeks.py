"""Where a worker could be started: the core is answered whatever hosts do, and what she chooses is started."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from swarmesh.config.settings import Settings
from swarmesh.core.commands import ForgetWorker, SeekSites, SpawnWorker
from swarmesh.core.errors import ModelNotFoundError
from swarmesh.core.events import Event, HostProbed, SitesFound, WorkerRegistered
from swarmesh.core.ids import LOCAL_HOST, HostName, ModelName, WorkerId
from swarmesh.core.memory_pool import PoolFree
from swarmesh.core.swarm import Swarm
from swarmesh.hosts.host import HostFacts, HostLayout
from swarmesh.hosts.ssh_errors import HostLostError
from swarmesh.models.modelcell import Modelcell, ModelKind, ModelSource
from swarmesh.queen import seeks
from swarmesh.queen.driver import Driver
from swarmesh.queen.keys import KeyRing
from swarmesh.queen.links import Links
from swarmesh.queen.starts import NoHostFitsError, Starts
from swarmesh.wire.spec import Backend, WorkerSpec
from swarmesh.wire.swarmscale import RustbeeWish
from swarmesh.wire.views import SpawnRequest

LAYOUT = HostLayout(root="/h", workers_dir="/h/w", sockets_dir="/h/s", queen_file="/h/q")
CLASS = ModelName("upper")
CELL = Modelcell(name=CLASS, kind=ModelKind.PYTHON_CLASS, target="m:Upper", source=ModelSource.FILE, added_at=0.0)
HOSTS = {LOCAL_HOST: 1.0, "mac": 0.5, "oak": 0.2}


class Listening(Driver):
    """Keeps the answers to the core, who is deaf to them here."""

    def __init__(self) -> None:
        super().__init__(Swarm(), Links())
        self.answers: asyncio.Queue[SitesFound] = asyncio.Queue()

    def post(self, event: Event) -> None:
        if isinstance(event, SitesFound):
            self.answers.put_nowait(event)
        else:
            super().post(event)


class Rig:
    """`Starts` with three hosts and one class of the user's; it is its own directory of hosts and models."""

    def __init__(self) -> None:
        self.driver = Listening()
        self.free_mib = dict.fromkeys(HOSTS, 9_000)
        self.hanging: set[str] = set()
        self.lost: set[str] = set()
        self.away: dict[str, str] = {}
        self.cell: Modelcell | BaseException = CELL
        self.spawned: list[WorkerSpec] = []
        self.events: list[tuple[str, ...]] = []
        keys = KeyRing([], bytes(32))
        for name in HOSTS:
            keys.add_host(name, 1)
        self.starts = Starts(Settings(), self.driver, self, self, keys)  # type: ignore[arg-type]
        self.starts.watcher = self
        self.driver.effects = self  # type: ignore[assignment]

    async def seek(self, model: ModelName = CLASS, action: int = 1) -> SitesFound:
        self.starts.seek(SeekSites(model, action))
        return await self.driver.answers.get()

    # hosts

    def names(self) -> list[str]:
        return list(HOSTS)

    def reachable(self) -> list[str]:
        return [name for name in HOSTS if self.away.get(name) != "gone"]

    def taking_workers(self) -> list[str]:
        return [name for name in HOSTS if name not in self.away]

    def must_take_workers(self, _name: str) -> None: ...

    def proximity(self, name: str) -> float:
        return HOSTS[name]

    def free(self, name: str) -> tuple[PoolFree, ...]:
        return self.driver.swarm.memory.free(HostName(name))

    async def probe(self, name: str) -> HostFacts:
        if name in self.hanging:
            await asyncio.Event().wait()
        if name in self.lost:
            raise HostLostError("the cable was cut")
        free_mib = self.free_mib[name]
        self.driver.post(HostProbed(HostName(name), 10_000, free_mib))
        return HostFacts(name=name, total_mib=10_000, available_mib=free_mib, cpu_cores=4, layout=LAYOUT)

    def get(self, _name: str) -> Rig:
        return self

    async def spawn(self, spec: WorkerSpec) -> None:
        self.spawned.append(spec)

    # models

    async def known_cell(self, _name: str) -> Modelcell:
        if isinstance(self.cell, BaseException):
            raise self.cell
        return self.cell

    async def holders(self, _model: str, names: list[str]) -> set[str]:
        return set(names)

    # effects and watcher

    def forget_worker(self, command: ForgetWorker) -> None:
        self.starts.forget(command.worker_id)

    def started(self, worker_id: WorkerId) -> None:
        self.events.append(("started", worker_id))

    def start_failed(self, worker_id: WorkerId, code: str, _message: str) -> None:
        self.events.append(("failed", worker_id, code))


@pytest.fixture
async def rig(tmp_path: Path) -> Rig:
    del tmp_path
    return Rig()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_worker_is_planned_on_every_host(rig: Rig) -> None:
    found = await rig.seek(action=7)
    assert (found.model, found.action, found.failures) == (CLASS, 7, ())
    assert [site.host for site in found.sites] == list(HOSTS)
    mac = found.sites[1]
    assert (mac.need_mib, mac.backend, mac.slots, mac.gpus, mac.proximity) == (128, "python", 4, (), 0.5)
    assert mac.pools == (PoolFree("ram", 9_000, 10_000),)
    assert len({site.worker_id for site in found.sites}) == len(HOSTS)
    assert rig.spawned == []


async def test_a_host_without_the_memory_is_a_site_all_the_same(rig: Rig) -> None:
    rig.free_mib["mac"] = 10
    found = await rig.seek()
    assert [site.pools[0].free_mib for site in found.sites if site.host == "mac"] == [10]


async def test_what_the_core_chose_is_started(rig: Rig) -> None:
    found = await rig.seek()
    _, mac, oak = found.sites
    rig.starts.start(SpawnWorker(mac.worker_id, mac.host))
    await settled()
    (spec,) = rig.spawned
    assert (spec.rustbee_id, spec.host, spec.class_path, spec.reserved_mib) == (mac.worker_id, "mac", "m:Upper", 128)
    assert rig.starts.spec(mac.worker_id) == spec
    rig.starts.start(SpawnWorker(oak.worker_id, oak.host))
    await settled()
    assert rig.events == [("started", mac.worker_id), ("started", oak.worker_id)], "two may be started of one search"


async def test_a_new_search_drops_what_an_earlier_one_planned(rig: Rig) -> None:
    old, new = await rig.seek(action=1), await rig.seek(action=2)
    rig.starts.start(SpawnWorker(old.sites[0].worker_id, old.sites[0].host))
    rig.starts.start(SpawnWorker(new.sites[0].worker_id, new.sites[0].host))
    await settled()
    assert [spec.rustbee_id for spec in rig.spawned] == [new.sites[0].worker_id]
    assert ("failed", old.sites[0].worker_id, "spawn_failed") in rig.events


async def test_plans_are_kept_of_so_many_models_only(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeks, "MODELS_MAX", 2)
    found = [await rig.seek(ModelName(f"m{number}")) for number in range(4)]
    held = [rig.starts._seeks.holds(each.sites[0].worker_id) for each in found]
    assert held == [False, False, True, True]


async def test_hosts_that_do_not_help_are_named(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeks, "SITE_WAIT_S", 0.01)
    rig.hanging, rig.lost = {"mac"}, {"oak"}
    found = await rig.seek()
    assert [site.host for site in found.sites] == [LOCAL_HOST]
    assert dict(found.failures) == {"mac": "did not answer within 0.01 s", "oak": "the cable was cut"}
    rig.hanging, rig.lost, rig.away = set(), set(), {"mac": "draining", "oak": "gone"}
    assert dict((await rig.seek()).failures) == {"mac": "draining", "oak": "out of reach"}


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (ModelNotFoundError("no modelcell is called 'upper'"), "no modelcell is called 'upper'"),
        (RuntimeError("a bug"), "could not look for a place: RuntimeError"),
        (Modelcell(name=CLASS, kind=ModelKind.REMOTE, target="http://a:1", source=ModelSource.FILE, added_at=0), "a:1"),
    ],
)
async def test_what_no_host_can_help_is_said_once(rig: Rig, cell: Any, said: str) -> None:
    rig.cell = cell
    found = await rig.seek()
    ((host, message),) = found.failures
    assert (found.sites, host) == ((), "")
    assert said in message


async def test_a_search_ends_in_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeks, "SEEK_LIMIT_S", 0.01)
    rig.hanging = set(HOSTS)
    ((host, message),) = (await rig.seek()).failures
    assert (host, message) == ("", "the modelcell 'upper' could not be looked up within 0.01 s")


async def test_the_core_is_answered_while_the_queen_closes(rig: Rig) -> None:
    rig.hanging = set(HOSTS)
    rig.starts.seek(SeekSites(CLASS, 1))
    await settled()
    await rig.starts.close()
    rig.starts.seek(SeekSites(CLASS, 2))
    answers = [rig.driver.answers.get_nowait() for _ in range(2)]
    assert [(found.action, found.failures) for found in answers] == [
        (action, ((LOCAL_HOST, "the queennode is being stopped"),)) for action in (1, 2)
    ]


async def test_a_worker_gets_what_its_owner_wished_else_what_went_well(rig: Rig) -> None:
    recipes = rig.starts.recipes
    recipes.went_well(CLASS, SpawnRequest(modelcell=CLASS, slots=2, cellalloc=500))
    site = (await rig.seek()).sites[0]
    assert (site.slots, site.need_mib) == (2, 500)
    recipes.wish(ModelName(""), RustbeeWish(slots=3, cellalloc=700))
    site = (await rig.seek()).sites[0]
    assert (site.slots, site.need_mib) == (3, 700)
    recipes.wish(CLASS, RustbeeWish(slots=9))
    site = (await rig.seek()).sites[0]
    assert (site.slots, site.need_mib) == (9, 500)
    recipes.wish(CLASS, None)
    recipes.wish(ModelName(""), None)
    assert (await rig.seek()).sites[0].slots == 2


async def test_what_a_worker_that_got_ready_was_started_with_is_learned(rig: Rig) -> None:
    asked = SpawnRequest(modelcell=CLASS, class_path="m:Own", python_path="/h/own", host="mac", slots=7)
    worker_id = await rig.starts.ask(asked)
    assert rig.starts.learn(CLASS, HostName("mac")) is None, "it has not got ready"
    rig.driver.post(WorkerRegistered(worker_id, CLASS, "python", HostName("mac"), "unix:/w", 7, ready=True))
    assert (await rig.seek()).sites[0].slots == 7, "what serves now is known without being kept"
    learned = rig.starts.learn(CLASS, HostName("mac"))
    assert learned is not None
    assert (learned.class_path, learned.python_path, learned.slots, learned.type) == (
        "m:Own",
        "/h/own",
        7,
        Backend.AUTO,
    )
    assert rig.starts.learn(CLASS, HostName("mac")) is None, "it is no news"
    found = await rig.seek()
    assert [site.host for site in found.sites] == ["mac"], "nobody knows where else its class can be imported"


async def test_a_host_is_chosen_by_votes_when_nobody_names_one(rig: Rig) -> None:
    rig.driver.effects.spawn_worker = rig.starts.start  # type: ignore[union-attr,method-assign]
    rig.free_mib[LOCAL_HOST] = 50
    worker_id = await rig.starts.ask(SpawnRequest(modelcell=CLASS, host="any"))
    spec = rig.starts.spec(worker_id)
    assert spec is not None
    assert spec.host == "mac", "the nearest that has the memory"
    rig.away = dict.fromkeys(HOSTS, "gone")
    with pytest.raises(NoHostFitsError, match="no host is connected"):
        await rig.starts.ask(SpawnRequest(modelcell=CLASS, host="any"))


async def test_a_class_of_the_catalog_can_be_started_anywhere_again(rig: Rig) -> None:
    found = await rig.seek()
    mac = found.sites[1]
    rig.starts.start(SpawnWorker(mac.worker_id, mac.host))
    rig.driver.post(WorkerRegistered(mac.worker_id, CLASS, "python", mac.host, "unix:/w", 4, ready=True))
    learned = rig.starts.learn(CLASS)
    assert learned is not None
    assert learned.host == "mac"
    assert [site.host for site in (await rig.seek()).sites] == list(HOSTS)
    rig.cell = ModelNotFoundError("it was struck from the catalog")
    assert [site.host for site in (await rig.seek()).sites] == ["mac"]


async def test_why_a_host_takes_none_is_told_by_host_and_names_it_once(rig: Rig) -> None:
    rig.starts.recipes.wish(CLASS, RustbeeWish(type=Backend.CUDA))
    found = await rig.seek()
    assert found.sites == ()
    assert dict(found.failures)[HostName("mac")] == "has no cuda GPU; of GPUs it has none"
    with pytest.raises(NoHostFitsError, match="; mac: has no cuda GPU; of GPUs it has none"):
        await rig.starts.ask(SpawnRequest(modelcell=CLASS, host="any", type=Backend.CUDA))
