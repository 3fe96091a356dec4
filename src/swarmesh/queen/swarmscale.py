"""How many workers each model may have: kept in the hivecomb, told to the core, and shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import msgspec
import structlog

from swarmesh.core.commands import RecordLoadTime
from swarmesh.core.errors import ConflictError, SwarmeshError
from swarmesh.core.events import LoadTimeKnown, ModelScaled, ScalingPaused
from swarmesh.core.ids import HostName, ModelName
from swarmesh.core.placement import Placement
from swarmesh.core.scale_bounds import Bounds, checked
from swarmesh.core.scale_view import ScaleState, ScaleStats
from swarmesh.core.script import Hook
from swarmesh.queen.driver import Driver, now_ms
from swarmesh.queen.known_models import KnownModels
from swarmesh.queen.recipes import wish_after
from swarmesh.queen.scale_views import (
    ScriptWish,
    bounds_view,
    decision_view,
    placement_view,
    scale_view,
    scale_words,
)
from swarmesh.queen.starts import Starts
from swarmesh.queen.surveys import Surveys
from swarmesh.store.records import LaunchRecord, LoadTimeRecord, ScaleRecord
from swarmesh.store.store import Store
from swarmesh.wire.swarmscale import (
    BoundsChange,
    LoadTimeView,
    PlacementExplained,
    RustbeeWish,
    ScaleExplained,
    ScaleStatus,
    ScaleView,
)
from swarmesh.wire.views import SpawnRequest

EVERY: Final = ModelName("")
"""Stands for every model that has no record of its own."""

SURVEY_LIMIT_S: Final = 30.0
"""How long anybody waits to hear where a worker would go now."""

T = TypeVar("T")

log = structlog.get_logger("swarmscale")


class Swarmscale:
    """Keeps the hivecomb and the core in step; the core decides, `swarmesh.queen.starts.Starts` acts."""

    def __init__(self, driver: Driver, store: Store, models: KnownModels, starts: Starts) -> None:
        self._driver = driver
        self._scaler = driver.swarm.scaler
        self._store = store
        self._models = models
        self._starts = starts
        self._records: dict[ModelName, ScaleRecord] = {}
        self._load_times: dict[ModelName, dict[HostName, int]] = {}
        self._writes: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._surveys = Surveys(self._placement_now)

    async def open(self) -> None:
        """Tell the core what earlier queens were told and have learned; before any worker or task is taken up."""
        for launch in await self._store.launches():
            request = _decoded(launch.request, SpawnRequest)
            if request is not None:
                self._starts.recipes.went_well(launch.model, request)
        for known in await self._store.load_times():
            self._load_times.setdefault(known.model, {})[known.host] = known.load_ms
            self._driver.post(LoadTimeKnown(known.model, known.host, known.load_ms))
        self._records = {record.model: record for record in await self._store.scales()}
        if self.paused:
            self._driver.post(ScalingPaused(paused=True))
        for model in self._records:  # By name: that for all of them comes first.
            self._tell(model)

    async def close(self) -> None:
        """Finish what is being written."""
        await asyncio.gather(*self._writes, return_exceptions=True)

    @property
    def paused(self) -> bool:
        """Nothing is started or stopped by itself, of no model."""
        return EVERY in self._records and self._records[EVERY].paused

    # what people see

    def status(self) -> ScaleStatus:
        """All models that have bounds, workers, or something under way."""
        bounds = self._bounds(EVERY)
        names = sorted({*self._scaler.models(), *filter(None, self._records)})
        return ScaleStatus(
            paused=self.paused,
            all=bounds_view(bounds, own=True, wish=self._wish(EVERY)) if bounds is not None else None,
            modelcells=[self._view(name) for name in names],
        )

    def view(self, name: str) -> ScaleView:
        """One model.

        Raises:
            ModelNotFoundError: No modelcell is called that.
        """
        return self._view(self._named(name))

    def explain_scale(self, name: str) -> ScaleExplained:
        """How many workers a model has, and why not more or fewer.

        Raises:
            ModelNotFoundError: No modelcell is called that.
        """
        model, now = self._named(name), now_ms()
        state = self._state(model, now)
        placement = state.placement
        return ScaleExplained(
            state=self._shown(state, now),
            words=scale_words(state, paused=self.paused, script=self._script_wish(model)),
            history=tuple(decision_view(decision, now) for decision in state.history),
            placement=placement_view(model, placement, live=False) if placement is not None else None,
            load_times=tuple(LoadTimeView(host, ms / 1000) for host, ms in self._load_times.get(model, {}).items()),
            would_change=state.would_change,
        )

    async def explain_placement(self, name: str, *, live: bool) -> PlacementExplained:
        """Where a worker of the model would go now (``live``), or where the last one went.

        Raises:
            ModelNotFoundError: No modelcell is called that.
            ConflictError: None was placed since the queen was started.
            TooManySurveysError: The hosts are being asked about too many other models now.
        """
        model = self._named(name)
        if not live:
            placed = self._state(model, now_ms()).placement
            if placed is None:
                raise ConflictError(
                    f"no rustbee of {model!r} was placed by swarmscale since the queennode was started",
                    hint="Those of 'up' and 'spawn rustbee' were started where you said; "
                    f"'swarmesh explain placement {model}' says where one would go now.",
                )
            return placement_view(model, placed, live=False)
        return await self._surveys.of(model)

    # what its owner says

    async def set(self, name: str, change: BoundsChange) -> ScaleStatus:
        """Let a model have so many workers, or (no name) every one that has no bounds of its own.

        Raises:
            ModelNotFoundError: No modelcell is called that.
            InvalidValueError: The bounds exclude each other, or no rustbee can be as it is wanted.
            StoreError: They could not be kept; nothing has changed then.
        """
        model = self._named(name) if name else EVERY
        async with self._changing:
            known = self._records.get(model) or ScaleRecord(model, None, None)
            low = (known.min_workers or 0) if change.min is None else change.min
            high = (known.max_workers or max(1, low)) if change.max is None else change.max
            checked(Bounds(low, high))
            wish = known.wish
            if change.rustbee is not None:
                wish = msgspec.json.encode(wish_after(self._wish(model), change.rustbee))
            await self._keep(ScaleRecord(model, low, high, known.paused, wish))
            self._learn(model, self._starts.learn(model))
            self._tell(model)
        return self.status()

    async def unset(self, name: str) -> ScaleStatus:
        """Leave a model alone again; its workers stay as they are.

        Raises:
            ModelNotFoundError: No modelcell is called that.
            ConflictError: It has no bounds of its own.
            StoreError: The hivecomb could not forget them; nothing has changed then.
        """
        model = EVERY if not name else ModelName(name) if ModelName(name) in self._records else self._named(name)
        async with self._changing:
            known = self._records.get(model)
            if known is None or (model == EVERY and known.min_workers is None):
                whose = f"{model!r} has no bounds of its own" if model else "there are no bounds for all modelcells"
                raise ConflictError(whose, hint="'swarmesh swarmscale status' shows who has some.", param="modelcell")
            # What is paused for all of them stays paused; a model that is let go has nothing left to pause.
            await self._keep(ScaleRecord(model, None, None, paused=model == EVERY and known.paused))
            self._tell(model)
        return self.status()

    async def pause(self, name: str, *, paused: bool) -> ScaleStatus:
        """Start and stop nothing by itself, of one model or (no name) of any, or do so again.

        What is under way is finished.

        Raises:
            ModelNotFoundError: No modelcell is called that.
            ConflictError: It is not scaled by itself.
            StoreError: It could not be kept; nothing has changed then.
        """
        model = self._named(name) if name else EVERY
        async with self._changing:
            if model and self._bounds(model) is None:
                raise ConflictError(
                    f"{model!r} is not scaled by itself: there is nothing to pause",
                    hint=f"'swarmesh swarmscale set {model} --max 1' lets it be scaled.",
                    param="modelcell",
                )
            known = self._records.get(model) or ScaleRecord(model, None, None)
            await self._keep(msgspec.structs.replace(known, paused=paused))
            if model:
                self._tell(model)
            else:
                self._driver.post(ScalingPaused(paused=paused))
        return self.status()

    # Effects

    def record_load_time(self, command: RecordLoadTime) -> None:
        """See `swarmesh.queen.driver.Effects`; what that worker was started with is worth knowing as well."""
        self._load_times.setdefault(command.model, {})[command.host] = command.load_ms
        at_ms = time.time_ns() // 1_000_000
        self._write(self._store.put_load_time(LoadTimeRecord(command.model, command.host, command.load_ms, at_ms)))
        self._learn(command.model, self._starts.learn(command.model, command.host))

    # inside

    async def _keep(self, record: ScaleRecord) -> None:
        if record.min_workers is None and not record.paused:
            await self._store.delete_scale(record.model)
            self._records.pop(record.model, None)
        else:
            await self._store.put_scale(record)
            self._records[record.model] = record

    async def _placement_now(self, model: ModelName) -> PlacementExplained:
        try:
            async with asyncio.timeout(SURVEY_LIMIT_S):
                survey = await self._starts.survey(model)
        except SwarmeshError as error:
            return _placed_nowhere(model, error.message)
        except TimeoutError:
            return _placed_nowhere(model, f"the hosts could not be asked within {SURVEY_LIMIT_S:g} s")
        state = self._state(model, now_ms())
        sites = self._scaler.sites.filled(model, [site.candidate for site in survey.sites])
        last = state.placement.choice if state.placement is not None else None
        judged = self._scaler.sites.choose(model, sites, bounds=state.bounds, last=last)
        return placement_view(model, judged, live=True, candidates=sites, failures=survey.failures)

    def _learn(self, model: ModelName, launch: SpawnRequest | None) -> None:
        if launch is not None:
            self._write(self._store.put_launch(LaunchRecord(model, msgspec.json.encode(launch))))

    def _tell(self, model: ModelName) -> None:
        """Say it to whoever acts by it; bounds for all are also those of models that only say that they pause."""
        self._starts.recipes.wish(model, self._wish(model))
        self._driver.post(ModelScaled(model, self._bounds(model) if model in self._records else None))
        if model == EVERY:
            for other, record in self._records.items():
                if other and record.min_workers is None:
                    self._driver.post(ModelScaled(other, self._bounds(other)))
        self._models.scaled(self._own(), all_of_them=self._bounds(EVERY) is not None)

    def _own(self) -> list[ModelName]:
        return [model for model, record in self._records.items() if model and record.min_workers is not None]

    def _bounds(self, model: ModelName) -> Bounds | None:
        """Those that hold for it; those for all where it has none of its own."""
        record = self._records.get(model)
        paused = record is not None and record.paused and model != EVERY
        if record is None or record.min_workers is None or record.max_workers is None:
            others = self._bounds(EVERY) if model else None
            return msgspec.structs.replace(others, paused=paused) if others is not None else None
        return Bounds(record.min_workers, record.max_workers, paused)

    def _wish(self, model: ModelName) -> RustbeeWish | None:
        record = self._records.get(model)
        wish = _decoded(record.wish, RustbeeWish) if record is not None else None
        return wish if wish != RustbeeWish() else None

    def _view(self, model: ModelName) -> ScaleView:
        now = now_ms()
        return self._shown(self._state(model, now), now)

    def _state(self, model: ModelName, now: int) -> ScaleState:
        try:
            return self._scaler.state_of(model, now)
        except KeyError:  # The catalog has it, and the core has never heard of it.
            return ScaleState(model, self._bounds(model), False, ScaleStats(), 0, None, None)

    def _shown(self, state: ScaleState, now: int) -> ScaleView:
        is_own = state.model in self._own()  # The core knows a pause of one model as bounds of its own.
        workers = self._driver.swarm.fleet.of_model(state.model).values()
        adopted = sum(worker.direct and worker.may_serve for worker in workers)
        return scale_view(state, now, own=is_own, wish=self._wish(state.model), adopted=adopted)

    def _script_wish(self, model: ModelName) -> ScriptWish | None:
        scripted = self._driver.swarm.scripted
        count = scripted.turns.last(model) if scripted.has(Hook.SCALE) else None
        return ScriptWish(scripted.name, count) if count is not None else None

    def _named(self, name: str) -> ModelName:
        model, known = self._models.resolve(name)
        if not known:
            raise self._models.not_found(name, param="modelcell")
        return model

    def _write(self, write: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(_logged(write))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)


def _placed_nowhere(model: ModelName, why: str) -> PlacementExplained:
    return placement_view(model, Placement(None, ()), live=True, failures={"": why})


async def _logged(write: Coroutine[Any, Any, None]) -> None:
    try:
        await write
    except SwarmeshError as error:
        log.warning("hivecomb_write_failed", error=error.message)


def _decoded(data: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:  # By another version: it was only kept to be helpful.
        log.warning("hivecomb_row_unreadable", kind=kind.__name__, error=str(error))
        return None
