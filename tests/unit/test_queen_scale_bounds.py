"""Bounds as their owner says them: kept, told to the core, told again after a restart, and refused if they are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from swarmesh.core.commands import RecordLoadTime
from swarmesh.core.errors import ConflictError, InvalidValueError, ModelNotFoundError
from swarmesh.core.events import Event, LoadTimeKnown, ModelScaled, ScalingPaused
from swarmesh.core.ids import HostName, ModelName
from swarmesh.core.memory_pool import PoolFree
from swarmesh.core.placement import HostCandidate, Placement, choose_host
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scale_view import ActionView, ScaleDecision, ScaleKind, ScaleState, ScaleStats
from swarmesh.core.script import Facts, Hook
from swarmesh.core.swarm import Swarm
from swarmesh.models.catalog import Catalog
from swarmesh.queen.driver import Driver, now_ms
from swarmesh.queen.known_models import KnownModels
from swarmesh.queen.links import Links
from swarmesh.queen.recipes import Recipes
from swarmesh.queen.sites import Site, Survey
from swarmesh.queen.swarmscale import Swarmscale
from swarmesh.store.memory import MemoryStore
from swarmesh.wire.spec import Backend
from swarmesh.wire.swarmscale import BoundsChange, RustbeeChange, RustbeeWish
from swarmesh.wire.views import SpawnRequest

UPPER, LOWER = ModelName("upper"), ModelName("lower")
MAC = HostName("mac")


class Scaler:
    """Says what the test says."""

    def __init__(self) -> None:
        self.states: dict[ModelName, ScaleState] = {}

    def models(self) -> list[ModelName]:
        return list(self.states)

    def state_of(self, model: ModelName, _now_ms: int) -> ScaleState:
        return self.states[model]

    @property
    def sites(self) -> Scaler:
        return self

    def filled(self, _model: ModelName, sites: list[HostCandidate]) -> list[HostCandidate]:
        return sites

    def choose(self, _model: ModelName, sites: list[HostCandidate], **told: Any) -> Placement:
        return choose_host(sites, last=told["last"])


class Listening(Driver):
    """Keeps what the core is told."""

    def __init__(self) -> None:
        super().__init__(Swarm(), Links())
        self.told: list[Event] = []
        self.swarm.scaler = Scaler()  # type: ignore[assignment]

    def post(self, event: Event) -> None:
        self.told.append(event)

    def take(self) -> list[Event]:
        told, self.told = self.told, []
        return told


class Starting:
    """What the service needs of `Starts`."""

    def __init__(self) -> None:
        self.recipes = Recipes()
        self.learned: SpawnRequest | None = None
        self.sites: tuple[Site, ...] | Exception = ()
        self.failures: dict[str, str] = {}

    def learn(self, _model: ModelName, _host: HostName | None = None) -> SpawnRequest | None:
        return self.learned

    async def survey(self, _model: ModelName) -> Survey:
        if isinstance(self.sites, Exception):
            raise self.sites
        return Survey(self.sites, self.failures)


class Rig:
    """One queen after the other on one hivecomb."""

    def __init__(self, home: Path) -> None:
        self.store = MemoryStore()
        catalog = Catalog(home)
        for name in (UPPER, LOWER):
            catalog.add_python_class(name, "m:Class", added_at=0.0)
        self.home = home
        self.restart()

    def restart(self) -> None:
        self.driver, self.starts = Listening(), Starting()
        self.models = KnownModels(self.driver.swarm.fleet, self.home)
        self.scale = Swarmscale(self.driver, self.store, self.models, self.starts)  # type: ignore[arg-type]

    @property
    def scaler(self) -> Any:
        return self.driver.swarm.scaler

    async def set(self, name: str, low: int | None = None, high: int | None = None, **wish: Any) -> None:
        rustbee = RustbeeChange(**wish) if wish else None
        await self.scale.set(name, BoundsChange(min=low, max=high, rustbee=rustbee))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_bounds_are_told_and_told_again_by_the_next_queen(rig: Rig) -> None:
    await rig.set("upper", 0, 3, slots=2)
    await rig.set("", 1, 2)
    await rig.scale.pause("", paused=True)
    upper, every = ModelScaled(UPPER, Bounds(0, 3)), ModelScaled(ModelName(""), Bounds(1, 2))
    assert rig.driver.take() == [upper, every, ScalingPaused(paused=True)]
    rig.scale.record_load_time(RecordLoadTime(UPPER, MAC, 1_500))
    await rig.scale.close()
    rig.restart()
    await rig.scale.open()
    load_time = LoadTimeKnown(UPPER, MAC, 1_500)
    assert rig.driver.take() == [load_time, ScalingPaused(paused=True), every, upper]
    assert rig.starts.recipes.request(UPPER).slots == 2
    assert rig.scale.status().paused
    rig.scaler.states[UPPER] = ScaleState(UPPER, Bounds(0, 3), True, ScaleStats(), 0, None, None)
    shown = rig.scale.view("upper").bounds
    assert shown is not None
    assert (shown.min, shown.max, shown.own, shown.rustbee) == (0, 3, True, RustbeeWish(slots=2))


async def test_what_is_not_said_stays_as_it_was(rig: Rig) -> None:
    await rig.set("upper")
    await rig.set("upper", None, 4, type=Backend.CPU)
    await rig.set("upper", 2)
    await rig.set("lower", 3)
    assert [event.bounds for event in rig.driver.take() if isinstance(event, ModelScaled)] == [
        Bounds(0, 1),
        Bounds(0, 4),
        Bounds(2, 4),
        Bounds(3, 3),
    ]
    assert rig.starts.recipes.request(UPPER).type is Backend.CPU


async def test_options_are_said_one_by_one_and_taken_back_one_by_one(rig: Rig) -> None:
    await rig.set("upper", slots=8, type=Backend.CPU)
    await rig.set("upper", type=Backend.CUDA)
    await rig.set("upper", context=512)
    request = rig.starts.recipes.request(UPPER)
    assert (request.type, request.slots, request.context) == (Backend.CUDA, 8, 512)
    await rig.set("upper", 1, 2)
    assert rig.starts.recipes.request(UPPER) == request
    await rig.set("upper", slots=0)
    request = rig.starts.recipes.request(UPPER)
    assert (request.type, request.slots, request.context) == (Backend.CUDA, None, 512)
    with pytest.raises(InvalidValueError, match="type is openai, and such a server is adopted"):
        await rig.set("upper", type=Backend.OPENAI)
    with pytest.raises(InvalidValueError, match="context is 7, and the least is 256"):
        await rig.set("upper", context=7, slots=4)
    assert rig.starts.recipes.request(UPPER) == request
    await rig.set("upper", type=Backend.AUTO, context=0)
    assert rig.starts.recipes.request(UPPER) == SpawnRequest(modelcell=UPPER)


async def test_bounds_that_exclude_each_other_change_nothing(rig: Rig) -> None:
    await rig.set("upper", 0, 2)
    rig.driver.take()
    for low, high in ((3, None), (2, 1), (0, 0)):
        with pytest.raises(InvalidValueError, match="no model can have at least"):
            await rig.set("upper", low, high)
    assert rig.driver.take() == []
    assert [(record.min_workers, record.max_workers) for record in await rig.store.scales()] == [(0, 2)]


async def test_a_name_that_is_none_has_the_nearest_in_its_hint(rig: Rig) -> None:
    for refused in (rig.set("uper", 0, 2), rig.scale.pause("uper", paused=True), rig.scale.unset("uper")):
        with pytest.raises(ModelNotFoundError) as raised:
            await refused
        assert raised.value.hint == "Did you mean 'upper'?"
    with pytest.raises(ModelNotFoundError):
        rig.scale.view("zzz")
    assert await rig.store.scales() == []


async def test_a_model_is_left_alone_again(rig: Rig) -> None:
    await rig.set("upper", 0, 2, slots=9)
    rig.driver.take()
    await rig.scale.unset("upper")
    assert rig.driver.take() == [ModelScaled(UPPER, None)]
    assert (await rig.store.scales(), rig.starts.recipes.request(UPPER).slots) == ([], None)
    for name in ("upper", ""):
        with pytest.raises(ConflictError, match="bounds"):
            await rig.scale.unset(name)


async def test_one_model_is_paused(rig: Rig) -> None:
    with pytest.raises(ConflictError, match="nothing to pause"):
        await rig.scale.pause("upper", paused=True)
    await rig.set("upper", 0, 2)
    await rig.scale.pause("upper", paused=True)
    await rig.set("upper", 1)
    await rig.scale.pause("upper", paused=False)
    assert rig.driver.take()[1:] == [
        ModelScaled(UPPER, Bounds(0, 2, paused=True)),
        ModelScaled(UPPER, Bounds(1, 2, paused=True)),
        ModelScaled(UPPER, Bounds(1, 2)),
    ]


async def test_a_pause_of_a_model_without_bounds_of_its_own_follows_those_for_all(rig: Rig) -> None:
    await rig.set("", 0, 2)
    await rig.scale.pause("upper", paused=True)
    await rig.set("", 0, 5)
    assert rig.driver.take()[1:] == [
        ModelScaled(UPPER, Bounds(0, 2, paused=True)),
        ModelScaled(ModelName(""), Bounds(0, 5)),
        ModelScaled(UPPER, Bounds(0, 5, paused=True)),
    ]
    rig.scaler.states[UPPER] = ScaleState(UPPER, Bounds(0, 5, paused=True), True, ScaleStats(), 0, None, None)
    shown = rig.scale.view("upper").bounds
    assert shown is not None
    assert not shown.own, "the core knows them as its own"
    await rig.scale.pause("upper", paused=False)
    assert rig.driver.take() == [ModelScaled(UPPER, None)]
    assert [record.model for record in await rig.store.scales()] == [""]


async def test_a_pause_of_all_outlives_the_bounds_for_all(rig: Rig) -> None:
    await rig.set("", 0, 2)
    await rig.scale.pause("", paused=True)
    rig.driver.take()
    await rig.scale.unset("")
    assert rig.driver.take() == [ModelScaled(ModelName(""), None)]
    assert rig.scale.status().paused
    await rig.scale.pause("", paused=False)
    assert rig.driver.take() == [ScalingPaused(paused=False)]
    assert await rig.store.scales() == []


async def test_what_may_be_asked_for(rig: Rig) -> None:
    assert rig.models.on_offer() == []
    assert rig.models.resolve("") == ("", False)
    await rig.set("upper", 0, 2)
    assert rig.models.on_offer() == [UPPER]
    assert rig.models.resolve("") == (UPPER, True), "it is all there is"
    await rig.set("", 0, 1)
    assert rig.models.on_offer()[-1] == UPPER
    assert LOWER in rig.models.on_offer(), "one would be started for it"
    await rig.set("lower", 0, 1)
    assert rig.models.resolve("")[0] == "", "nobody can choose between two"


async def test_what_went_well_is_kept(rig: Rig) -> None:
    rig.starts.learned = SpawnRequest(modelcell=UPPER, slots=7, class_path="m:Own", host="mac")
    rig.scale.record_load_time(RecordLoadTime(UPPER, MAC, 10))
    await rig.scale.close()
    rig.restart()
    await rig.scale.open()
    request = rig.starts.recipes.request(UPPER)
    assert (request.slots, request.class_path, request.host) == (7, "m:Own", "mac")
    (launch,) = await rig.store.launches()
    assert msgspec.json.decode(launch.request, type=SpawnRequest) == request


async def test_why_a_model_has_so_many(rig: Rig) -> None:
    decision = ScaleDecision(now_ms() - 5_000, ScaleKind.UP, 1, 1, "first_request", "1 task waits", ScaleStats())
    stats = ScaleStats(serving=1, slots=4, busy=2, load=0.5, waiting=3, wait_ms=1_500, latency_ms=250)
    placement = choose_host([candidate("mac", 5_000)])
    state = ScaleState(
        UPPER, Bounds(0, 2), True, stats, 2, None, decision, "cooling down", placement=placement, history=(decision,)
    )
    rig.scaler.states[UPPER] = state
    rig.scale.record_load_time(RecordLoadTime(UPPER, MAC, 1_250))
    await rig.set("upper", 0, 2)
    shown = rig.scale.explain_scale("upper")
    assert shown.words == "up 1 is held back: cooling down; wanted because 1 task waits"
    await rig.scale.pause("", paused=True)
    assert rig.scale.explain_scale("upper").words.startswith(
        "up 1 is held back: scaling of every modelcell is paused; "
    )
    assert (shown.state.load, shown.state.waiting, shown.state.wait_s, shown.state.latency_s) == (0.5, 3, 1.5, 0.25)
    (one,) = shown.history
    assert (one.rule, one.reason) == ("first_request", "1 task waits")
    assert 5.0 <= one.ago_s < 60
    assert shown.placement is not None
    assert (shown.placement.choice, shown.placement.live) == ("mac", False)
    assert [(each.host, each.load_s) for each in shown.load_times] == [("mac", 1.25)]
    action = ActionView(ScaleKind.UP, "loading", 2_000, MAC, 1_250, "a rustbee of upper is loading on mac")
    rig.scaler.states[UPPER] = msgspec.structs.replace(state, action=action)
    assert rig.scale.explain_scale("upper").words == "a rustbee of upper is loading on mac"
    assert [view.modelcell for view in rig.scale.status().modelcells] == ["upper"]


class WantsFour:
    """A script that wants four of everything."""

    name = "sc.star"
    hooks = frozenset({Hook.SCALE})

    def admit(self, _task: Facts) -> str | None:
        return None

    def score(self, _task: Facts, _workers: Sequence[Facts]) -> Sequence[float | None]:
        return []

    def place(self, _model: Facts, _hosts: Sequence[Facts]) -> Sequence[float | None]:
        return []

    def scale(self, _model: Facts, _stats: Facts) -> int | None:
        return 4


def test_a_script_that_wants_more_than_may_be_is_the_reason(rig: Rig) -> None:
    decision = ScaleDecision(0, ScaleKind.HOLD, 0, 1, "hold", "the mean load is 0.10", ScaleStats(serving=1))
    rig.scaler.states[UPPER] = ScaleState(UPPER, Bounds(0, 1), True, ScaleStats(serving=1), 1, None, decision)
    assert rig.scale.explain_scale("upper").words == "the mean load is 0.10"
    rig.driver.swarm.set_script(WantsFour())
    assert rig.scale.explain_scale("upper").words == "the mean load is 0.10", "it was never asked"
    rig.driver.swarm.scripted.scale({"name": "upper"}, {})
    assert rig.scale.explain_scale("upper").words == "policy script 'sc.star' wants 4, at most 1 is allowed"


def candidate(name: str, free_mib: int) -> HostCandidate:
    return HostCandidate(host=HostName(name), need_mib=1_000, pools=(PoolFree("ram", free_mib, 10_000),))


async def test_where_the_next_one_goes(rig: Rig) -> None:
    rig.starts.sites = tuple(Site(None, candidate(name, mib)) for name, mib in (("mac", 500), ("oak", 5_000)))  # type: ignore[arg-type]
    rig.starts.failures = {"elm": "out of reach"}
    shown = await rig.scale.explain_placement("upper", live=True)
    assert (shown.choice, shown.live) == ("oak", True)
    assert [(site.host, bool(site.veto)) for site in shown.hosts] == [("oak", False), ("mac", True), ("elm", True)]
    rig.starts.sites = ModelNotFoundError("its file is gone")
    shown = await rig.scale.explain_placement("upper", live=True)
    assert (shown.choice, shown.words) == (None, "no host takes a rustbee of 'upper' now: everywhere: its file is gone")
    with pytest.raises(ConflictError, match="was placed by swarmscale since"):
        await rig.scale.explain_placement("upper", live=False)


async def test_rows_of_another_version_are_left_alone(rig: Rig) -> None:
    await rig.set("upper", 0, 2, slots=3)
    (record,) = await rig.store.scales()
    await rig.store.put_scale(msgspec.structs.replace(record, wish=b'{"slots":"many"}'))
    rig.restart()
    await rig.scale.open()
    assert rig.driver.take() == [ModelScaled(UPPER, Bounds(0, 2))]
    assert rig.starts.recipes.request(UPPER).slots is None
