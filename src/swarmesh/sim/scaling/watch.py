"""A second opinion on scaling: what the core was told and what it ordered, held against what was promised."""

from __future__ import annotations

from collections import Counter
from typing import Final

from swarmesh.core.commands import BreakStream, Command, FailTask, SeekSites, SpawnWorker, StartStream, StopWorker
from swarmesh.core.events import (
    Event,
    ModelScaled,
    ScalingPaused,
    SitesFound,
    SpawnFailed,
    StreamEnded,
    TaskSubmitted,
    Ticked,
    WorkerGone,
    WorkerRegistered,
    WorkerWaggled,
)
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import HostName, ModelName, TaskId, WorkerId
from swarmesh.core.swarm import Swarm
from swarmesh.sim.scaling.host import Host
from swarmesh.sim.scaling.model_watch import ModelWatch
from swarmesh.sim.scaling.moves import Move, MoveKind, most_within, reversals
from swarmesh.sim.scaling.plan import Plan
from swarmesh.sim.scaling.verdicts import Check, Verdicts

REVERSALS_MAX: Final = 1
"""In ten minutes of even load."""
SETTLED_AFTER_MS: Final = 900_000
"""Even load has been answered to by then."""
SETTLED_REVERSALS_MAX: Final = 2
"""For as long as it stays even."""
ASLEEP_MS: Final = 240_000
"""A worker that is stopped when nobody has asked for so long is stopped because nobody asks."""
IDLE_MS_MAX: Final = 720_000
"""Five minutes of idleness, and ten in which nothing may go because something went too early before."""
ABOVE_MS_MAX: Final = 900_000
"""Until workers have ended that the owner does not allow any more: they may be busy."""
STUCK_MS: Final = 120_000
"""A worker that does nothing is gone so long after it was told to, unless it was not told."""
SEARCHES_MAX: Final = 15
"""In ten minutes, for a model that fits nowhere."""


class ScaleWatch:
    """Follows one run event by event; what does not hold is in ``verdicts``."""

    def __init__(self, plan: Plan, swarm: Swarm) -> None:
        self.verdicts = Verdicts()
        self.models = {model.name: ModelWatch(model) for model in plan.models}
        self._plan = plan
        self._swarm = swarm
        self._model_of: dict[WorkerId, ModelWatch] = {}
        self._offered: dict[WorkerId, ModelWatch] = {}
        self._task_of: dict[TaskId, ModelWatch] = {}
        self._runs_on: dict[TaskId, WorkerId] = {}
        self._told_ms: dict[WorkerId, int] = {}
        self._own_bounds: set[ModelName] = set()
        self._paused_ms: int | None = None
        self._ticked_ms = 0

    def step(self, event: Event, commands: list[Command], now_ms: int) -> None:
        """Look at one decision of the core."""
        self.verdicts.now_ms = now_ms
        self._follow(event, now_ms)
        for worker in self._swarm.fleet:
            model = self._model_of.get(worker.worker_id)  # None for one that is ordered just now.
            if worker.stop_at_ms and model is not None and worker.worker_id not in model.draining:
                self._drains(worker, now_ms)
        spawned = [command for command in commands if isinstance(command, SpawnWorker)]
        self._spawned(event, spawned, now_ms)
        for command in commands:
            self._obey(command, now_ms)
        if isinstance(event, Ticked):
            self._look(now_ms)

    def taken(self, host: Host) -> None:
        """A process was started."""
        held = sum(host.held.values())
        room = held <= host.plan.usable_mib
        self.verdicts.demand(Check.MEMORY, room, "{} holds {} of {} MiB", host.plan.name, held, host.plan.usable_mib)

    def rest(self, now_ms: int) -> None:
        """Look back at the whole run."""
        self.verdicts.now_ms = now_ms
        for model in self.models.values():
            name = model.plan.name
            ended = not model.open or not self._plan.fits_somewhere(
                model.plan
            )  # Durable tasks wait for as long as it takes.
            self.verdicts.demand(Check.PATIENCE, ended, "{} requests for {} never end", len(model.open), name)
            if not self._plan.fits_somewhere(model.plan):
                most = most_within(model.searches)
                self.verdicts.demand(Check.BREAKER, most <= SEARCHES_MAX, "{} searches for {} in 10 min", most, name)
        for phase in self._plan.steady:
            moves = self.models[phase.model].moves
            most = most_within(reversals(moves, phase.from_ms, phase.until_ms))
            words = "{} changes of direction in 10 min at even load: {}"
            self.verdicts.demand(Check.REVERSALS, most <= REVERSALS_MAX, words, most, _told(moves))
            settled_ms = phase.from_ms + SETTLED_AFTER_MS
            late = len(reversals(moves, settled_ms, phase.until_ms))
            words = "{} changes of direction more than 15 min after the load became even: {}"
            self.verdicts.demand(Check.SETTLES, late <= SETTLED_REVERSALS_MAX, words, late, _told(moves))

    def _follow(self, event: Event, now_ms: int) -> None:
        match event:
            case TaskSubmitted():
                model = self._task_of[event.task_id] = self.models[event.model]
                model.open[event.task_id] = model.asked_ms = now_ms
            case StreamEnded():
                self._task_of[event.task_id].proved(self._runs_on[event.task_id])
                self._ended(event.task_id, now_ms)
            case WorkerWaggled() | WorkerRegistered():
                if event.ready and event.worker_id in self._model_of:
                    self._is_ready(self._model_of[event.worker_id], event.worker_id, now_ms)
            case SpawnFailed() | WorkerGone():
                self._gone(event.worker_id, now_ms)
            case SitesFound():
                self._answered(event)
            case ModelScaled():
                self._scaled(event, now_ms)
            case ScalingPaused():
                self._paused_ms = now_ms if event.paused else None
                for model in self.models.values():
                    model.begin_anew(now_ms)
            case _:
                pass

    def _obey(self, command: Command, now_ms: int) -> None:
        match command:
            case SeekSites():
                self._seeks(self.models[command.model], command, now_ms)
            case StartStream():
                self._starts(command, now_ms)
            case StopWorker():
                worker = self._swarm.fleet.get(command.worker_id)
                idle = worker is None or not worker.running
                self.verdicts.demand(Check.BUSY, idle, "{} although it runs {}", command, worker and worker.running)
            case BreakStream():
                kept = command.code != "rustbee_stopped"
                self.verdicts.demand(Check.BUSY, kept, "{} for the sake of scaling", command)
            case FailTask():
                model = self._task_of[command.task_id]
                words = "{} failed: {}: {}"
                excused = self._cannot_be_placed(model, now_ms)
                error = command.error
                self.verdicts.demand(Check.NO_FAILURE, excused, words, command.task_id, error.code, error.message)
                self._ended(command.task_id, now_ms)
            case _:
                pass

    def _seeks(self, model: ModelWatch, command: SeekSites, now_ms: int) -> None:
        # One action may start several workers, one search after another; and whoever stops does so without the scaler.
        model.goes_on = model.spawned_ms == now_ms and bool(model.starting)
        starts = any(worker_id not in model.draining for worker_id in model.starting) and not model.goes_on
        stops = model.goes_down and model.live > 0 and not model.goes_on
        busy = model.seeking is not None or starts or stops
        words = "{} while {} starting, {} draining, search {} open"
        facts = command, len(model.starting), len(model.draining), model.seeking
        self.verdicts.demand(Check.ONE_ACTION, not busy, words, *facts)
        goes_on = self._goes_on(model) or model.goes_on
        self.verdicts.demand(Check.PAUSE, not self._is_paused(model) or goes_on, "{} while it is paused", command)
        model.seeking, model.sought_ms = command.action, now_ms
        model.searches.append(now_ms)

    def _spawned(self, event: Event, spawned: list[SpawnWorker], now_ms: int) -> None:
        model = self._offered.get(spawned[0].worker_id) if spawned else None
        if model is None:
            return
        asked = isinstance(event, SitesFound) and event.model == model.plan.name
        in_turn = asked and (model.goes_on or all(worker_id in model.draining for worker_id in model.starting))
        self.verdicts.demand(Check.ONE_ACTION, in_turn, "{} out of turn", spawned)
        model.spawned_ms = now_ms
        from_zero = not model.live and bool(model.open)
        for command in spawned:
            model.starting[command.worker_id] = now_ms
            self._model_of[command.worker_id] = model
            model.moves.append(Move(now_ms, MoveKind.WAKE if from_zero else MoveKind.UP))
        if from_zero:
            model.first = spawned[0].worker_id, next(iter(model.open))
        model.lacks_room = False
        within = model.live <= model.most
        self.verdicts.demand(Check.BOUNDS, within, "{} of {} live, {} may", model.live, model.plan.name, model.most)

    def _drains(self, worker: Worker, now_ms: int) -> None:
        self._told_ms[worker.worker_id] = now_ms
        model = self._model_of[worker.worker_id]
        newcomers = [other for other in self.models.values() if other is not model and other.wants_room(now_ms)]
        if worker.worker_id in model.starting and model.live <= model.most:
            model.draining[worker.worker_id] = MoveKind.GIVE_UP
            model.moves.append(Move(now_ms, MoveKind.GIVE_UP))
            return  # No excuse for anything: it would have been ready in time.
        above = model.live > model.most
        asleep = not model.open and not model.least and now_ms - model.asked_ms >= ASLEEP_MS
        kind = MoveKind.EVICT if newcomers else MoveKind.SLEEP if asleep else MoveKind.DOWN
        model.draining[worker.worker_id] = kind
        model.proved(worker.worker_id)
        model.moves.append(Move(now_ms, kind))
        starved = any(not newcomer.serving and newcomer.open for newcomer in newcomers)
        may = not worker.running or above or starved
        self.verdicts.demand(Check.BUSY, may, "{} is drained with {} tasks", worker.worker_id, len(worker.running))
        goes_on = any(map(self._goes_on, newcomers)) and not (model.bounds and model.bounds.paused)
        quiet = not self._is_paused(model) or goes_on
        self.verdicts.demand(Check.PAUSE, quiet, "{} is drained while it is paused", worker.worker_id)
        kept = kind is MoveKind.EVICT or model.live >= model.least
        words = "{} of {} are left, {} ought to be"
        self.verdicts.demand(Check.BOUNDS, kept, words, model.live, model.plan.name, model.least)

    def _answered(self, event: SitesFound) -> None:
        model = self.models[event.model]
        if model.seeking == event.action:
            model.seeking = None
        model.lacks_room = True
        self._offered.update({site.worker_id: model for site in event.sites})

    def _is_ready(self, model: ModelWatch, worker_id: WorkerId, now_ms: int) -> None:
        ordered_ms = model.starting.pop(worker_id, None)
        if ordered_ms is None:
            return
        model.ready[worker_id] = now_ms
        model.unproved.add(worker_id)
        if model.first is not None and model.first[0] == worker_id:
            came_ms = model.open.get(model.first[1])
            if came_ms is not None:
                model.wakes.append((now_ms - came_ms, now_ms - ordered_ms))
            model.first = None

    def _gone(self, worker_id: WorkerId, now_ms: int) -> None:
        model = self._model_of.get(worker_id)
        if model is not None:
            model.gone(worker_id, now_ms)

    def _scaled(self, event: ModelScaled, now_ms: int) -> None:
        if event.model:
            self._own_bounds.add(event.model)
        for model in self.models.values():
            if model.plan.name == event.model or (not event.model and model.plan.name not in self._own_bounds):
                model.bounds, model.bounded_ms = event.bounds, now_ms
                model.begin_anew(now_ms)

    def _starts(self, command: StartStream, now_ms: int) -> None:
        model = self._task_of[command.task_id]
        self._runs_on[command.task_id] = command.worker_id
        waited_ms = now_ms - model.open[command.task_id]
        # Where starts fail and workers die, each costs the time of a load.
        may_ms = self._plan.wait_ms_max * (2 if self._plan.is_troubled else 1)
        in_time = waited_ms <= may_ms or self._cannot_be_placed(model, now_ms)
        self.verdicts.demand(Check.PATIENCE, in_time, "{} has waited {} s", command.task_id, waited_ms // 1_000)

    def _ended(self, task_id: TaskId, now_ms: int) -> None:
        model = self._task_of.pop(task_id)
        self._runs_on.pop(task_id, None)
        del model.open[task_id]
        model.asked_ms = now_ms

    def _look(self, now_ms: int) -> None:
        passed_ms, self._ticked_ms = now_ms - self._ticked_ms, now_ms
        for model in self.models.values():
            if now_ms <= self._plan.until_ms:
                model.replica_ms += passed_ms * (len(model.starting) + len(model.ready))
            model.look_at_starts(now_ms)
            if model.open:
                model.asked_ms = now_ms
            if model.serving >= model.least or self._is_paused(model):
                model.short_since_ms = now_ms
            if model.live <= model.most:
                model.above_since_ms = None
            elif model.above_since_ms is None:
                model.above_since_ms = now_ms
            self._judge(model, now_ms)

    def _judge(self, model: ModelWatch, now_ms: int) -> None:
        name = model.plan.name
        short_ms, may_ms = now_ms - model.short_since_ms, model.short_ms_max(now_ms)
        words = "{} of {} serve for {} s, {} ought to"
        self.verdicts.demand(Check.MIN, short_ms <= may_ms, words, model.serving, name, short_ms // 1_000, model.least)
        above_ms = now_ms - model.above_since_ms if model.above_since_ms is not None else 0
        words = "{} of {} live for {} s, {} may"
        self.verdicts.demand(
            Check.BOUNDS, above_ms <= ABOVE_MS_MAX, words, model.live, name, above_ms // 1_000, model.most
        )
        idle_ms = now_ms - model.asked_ms
        kept = model.live <= model.least or self._is_paused(model) or idle_ms <= IDLE_MS_MAX
        self.verdicts.demand(Check.IDLE, kept, "{} of {} live after {} s of rest", model.live, name, idle_ms // 1_000)

    def _is_paused(self, model: ModelWatch) -> bool:
        return self._paused_ms is not None or (model.bounds is not None and model.bounds.paused)

    def _goes_on(self, model: ModelWatch) -> bool:
        """Something was begun for it before the pause, and is brought to its end."""
        since_ms = self._paused_ms if self._paused_ms is not None else model.bounded_ms
        return model.lacks_room and 0 <= model.sought_ms <= since_ms

    def _cannot_be_placed(self, model: ModelWatch, now_ms: int) -> bool:
        hopeless = now_ms < model.hopeless_until_ms or not self._plan.fits_somewhere(model.plan)
        return hopeless or model.bounds is None or self._is_paused(model) or self._is_kept_out(model, now_ms)

    def _is_kept_out(self, model: ModelWatch, now_ms: int) -> bool:
        """Whether workers that cannot move hold memory without which no host has enough for it.

        Those of paused models, of models of which none can be started just now, and those that have not gone although
        they do nothing and were told to two minutes ago: the order was lost each time.
        """
        kept: Counter[HostName] = Counter()
        for worker in self._swarm.fleet:
            other = self._model_of[worker.worker_id]
            is_stuck = now_ms - self._told_ms.get(worker.worker_id, now_ms) >= STUCK_MS and not worker.running
            stays = self._is_paused(other) or now_ms < other.hopeless_until_ms or is_stuck
            kept[worker.host] += other.plan.need_mib if other is not model and stays else 0
        hosts = [host for host in self._plan.hosts if model.plan.need_mib <= host.usable_mib]
        return all(kept[host.name] and kept[host.name] + model.plan.need_mib > host.usable_mib for host in hosts)


def _told(moves: list[Move]) -> str:
    return ", ".join(f"{move.kind} at {move.at_ms // 1_000} s" for move in moves)
