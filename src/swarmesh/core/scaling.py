"""Swarmscale: how many workers each model has, decided from what is asked of it (R-17, R-18).

The rule (`swarmesh.core.scale_rule`) says how many there ought to be; this holds it back by pauses, cool-downs and the
breaker, and begins what is left of it; `swarmesh.core.scale_moves` carries it out.
"""

from __future__ import annotations

from collections import Counter
from copy import copy
from itertools import islice
from typing import Final

from swarmesh.core.commands import Command
from swarmesh.core.dispatch import Dispatcher
from swarmesh.core.errors import NoRustbeesAvailableError, SwarmeshError
from swarmesh.core.events import LoadTimeKnown, ModelScaled, ScalingPaused, SitesFound
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import ModelName, WorkerId
from swarmesh.core.memory import MemoryBooks
from swarmesh.core.roster import Roster
from swarmesh.core.scale_action import Phase
from swarmesh.core.scale_book import ON_CALM, ON_COMFORT, ON_LOAD, REGRET_MS, Scaled
from swarmesh.core.scale_books import ScaleBooks
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scale_census import census_of, is_idle
from swarmesh.core.scale_failures import cannot_be_placed
from swarmesh.core.scale_moves import Moves
from swarmesh.core.scale_rule import IDLE_KEPT_MS, Signals, Wish, reason, wish
from swarmesh.core.scale_sites import Sites
from swarmesh.core.scale_view import ActionView, ScaleDecision, ScaleKind, ScaleState
from swarmesh.core.scale_words import action_view, goes_on, would_change
from swarmesh.core.script import Hook
from swarmesh.core.script_facts import model_facts, stats_facts
from swarmesh.core.script_guard import Scripted

SETTLE_MS: Final = 10_000
"""After the start nothing is begun for so long: workers that outlived the last queen still introduce themselves."""
WAITING_COUNTED_MAX: Final = 128
"""Tasks of one model of which it is looked up whether they may run at all; more are simply counted."""


class Scaler:
    """One controller for all models; at most one action of each is under way.

    Args:
        settle_ms: See `SETTLE_MS`.
    """

    def __init__(
        self,
        fleet: Fleet,
        memory: MemoryBooks,
        dispatcher: Dispatcher,
        roster: Roster,
        scripted: Scripted,
        *,
        settle_ms: int = SETTLE_MS,
    ) -> None:
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._scripted = scripted
        self._books = ScaleBooks(fleet)
        self.sites = Sites(fleet, memory, scripted)
        self._moves = Moves(fleet, dispatcher, roster, self._books, self.sites)
        self.settle_ms = settle_ms
        self._began_ms: int | None = None
        self._now_ms = 0

    # what the owner says

    def scaled(self, event: ModelScaled, now_ms: int, out: list[Command]) -> None:
        """Take new bounds in, and forget what kept the model from being placed."""
        self._mark(now_ms)
        self._books.bound(event.model, event.bounds)
        self._books.room_changed()
        for state in self._open_books():
            if not event.model or state.model == event.model:
                self._see(state, now_ms)
                self._step(state, now_ms, out)
        self._books.close_unbound()
        self._dispatcher.delays.keep_only(self._books.of_model)

    def paused(self, event: ScalingPaused) -> None:
        """Stop or go on starting and stopping workers."""
        self._books.paused = event.paused
        if not event.paused:
            self._books.room_changed()

    def load_time_known(self, event: LoadTimeKnown) -> None:
        """Take in what an earlier queen has learned."""
        self._books.loads.known(event.model, event.host, event.load_ms)

    # what happens

    def sites_found(self, event: SitesFound, now_ms: int, out: list[Command]) -> None:
        """Start a worker at the best site, make room for it, or count a failure."""
        state = self._books.of_model.get(event.model)
        if state is not None:
            self._mark(now_ms)
            self._moves.sites_found(state, event, now_ms, out)

    def look(self, now_ms: int, out: list[Command]) -> None:
        """Decide for every model; called with every tick."""
        self._mark(now_ms)
        if not self._books.any_bounds:
            return
        self._dispatcher.delays.fade(now_ms)
        states = self._open_books()
        depths: Counter[ModelName] = Counter()
        for (model, _), depth in self._dispatcher.queue.depths().items():
            depths[model] += depth
        for state in states:
            self._dispatcher.delays.watch(state.model)
            self._see(state, now_ms, depths[state.model])
            state.count(now_ms)
        self._scripted.turns.begin(state.model for state in states if state.bounds is not None)
        # Who has waited longest goes first, where two want the same memory.
        for state in sorted(states, key=_waiting_longest):
            self._moves.newcomers.look(state, now_ms, out)
            self._step(state, now_ms, out)
        self._scripted.turns.end()
        self._books.close_unbound()

    def asked(self, model: ModelName, now_ms: int, out: list[Command]) -> None:
        """A task waits for a slot: if nobody serves its model, a worker is sought at once."""
        if not self._books.any_bounds or self._books.is_present(model):
            return
        state = self._books.find(model)
        if state is None or (state.action is not None and state.action.phase is not Phase.STOPPING):
            return
        self._mark(now_ms)
        self._see(state, now_ms)
        self._step(state, now_ms, out)

    def is_loading(self, worker_id: WorkerId) -> bool:
        """Whether the scaler waits for that worker to be ready; cheap, for the path of every report."""
        return worker_id in self._moves.starts.loading

    def reported(self, worker_id: WorkerId, now_ms: int, out: list[Command]) -> None:
        """A worker that `is_loading` has said that it is there, and whether it is ready."""
        self._moves.reported(worker_id, now_ms, out)

    def progressed(self, worker_id: WorkerId, now_ms: int) -> None:
        """A start takes long and goes on."""
        self._moves.starts.progressed(worker_id, now_ms)

    def troubled(self, worker_id: WorkerId, words: str) -> None:
        """A worker cried for help."""
        self._moves.starts.troubled(worker_id, words)

    def gone(self, worker: Worker | None, words: str, now_ms: int, out: list[Command]) -> None:
        """A worker is not there any more; harmless for one that the fleet did not know."""
        if worker is not None:
            self._mark(now_ms)
            self._moves.gone(worker, words, now_ms, out)

    # what others want to know

    def expects(self, model: ModelName) -> bool:
        """Whether tasks of a model without workers may wait: one is being started, or will be."""
        state = self._books.of_model.get(model)
        if state is None:
            return bool(model) and self._books.everyone is not None and self._may_begin(self._books.everyone)
        if state.action is not None and state.action.phase is not Phase.STOPPING:
            return True
        if self._books.is_paused(state) or state.unwanted or state.breaker.left_ms(self._now_ms):
            return False
        return not self._books.is_present(model)

    def shortfall(self, model: ModelName) -> SwarmeshError | None:
        """Why no worker of a model can be had now although one was wanted; None when none was, or one can."""
        state = self._books.of_model.get(model)
        if state is None or self._books.is_present(model):
            return None
        if state.breaker.left_ms(self._now_ms):
            return cannot_be_placed(state, self._now_ms)
        if state.bounds is not None and self._books.is_paused(state):
            return NoRustbeesAvailableError(
                f"no rustbee serves {model!r}, and scaling is paused",
                hint=f"{goes_on(model, every=self._books.paused, own=state.bounds.paused)}; "
                f"'swarmesh spawn rustbee --modelcell {model}' starts one.",
            )
        if state.unwanted:
            return NoRustbeesAvailableError(f"no rustbee serves {model!r}, and the policy script wants none now")
        return None

    def default_model(self) -> ModelName | None:
        """The model with bounds that was used last; None when there is none."""
        bound = [state for state in self._books.of_model.values() if state.bounds is not None]
        return max(bound, key=lambda state: state.used_at_ms).model if bound else None

    def under_way(self, model: ModelName, now_ms: int) -> ActionView | None:
        """What is being done for a model right now."""
        state = self._books.of_model.get(model)
        return action_view(state, self._books.loads, now_ms) if state is not None else None

    def models(self) -> list[ModelName]:
        """Those that have bounds of their own, workers, or something under way."""
        bound = [state.model for state in self._books.of_model.values() if state.own_bounds or state.action is not None]
        return list(dict.fromkeys([*bound, *self._fleet.models()]))

    def state_of(self, model: ModelName, now_ms: int) -> ScaleState:
        """Everything about one model, now; changes nothing.

        Raises:
            KeyError: It has no bounds, no worker, and never had any that anybody remembers.
        """
        known = self._books.of_model.get(model)
        if known is None and not self._fleet.of_model(model):
            raise KeyError(model)
        state = copy(known) if known is not None else Scaled(model, self._books.everyone)
        self._see(state, now_ms)
        signals = self._signals(state, now_ms)
        found = self._wish(state, signals, ask=False) if state.bounds is not None else Wish(signals.present, "hold")
        held = self._held_back(state, found, signals, now_ms) if state.bounds is not None else ""
        return ScaleState(
            model=model,
            bounds=state.bounds,
            own_bounds=state.own_bounds,
            stats=signals.stats,
            target=found.target,
            action=action_view(state, self._books.loads, now_ms),
            last=self._decision(state, found, signals, now_ms),
            blocked=held or state.blocked,
            breaker_ms=state.breaker.left_ms(now_ms),
            breaker_reason=state.breaker.in_words(),
            up_in_ms=state.up_in_ms(now_ms),
            down_in_ms=state.down_in_ms(now_ms),
            placement=state.placement,
            history=tuple(state.history),
            would_change=would_change(state, found, signals, paused=self._books.paused, script=self._script_for(model)),
        )

    # inside

    def _open_books(self) -> list[Scaled]:
        if self._books.everyone is not None:
            for model in self._fleet.models():
                self._books.find(model)
            for model, _ in self._dispatcher.queue.depths():
                self._books.find(model)
        return list(self._books.of_model.values())

    def _see(self, state: Scaled, now_ms: int, depth: int | None = None) -> None:
        queue = self._dispatcher.queue
        if depth is None:
            depth = sum(count for (model, _), count in queue.depths().items() if model == state.model)
        waiting, wait_ms = 0, 0
        if depth:
            ready = list(islice(queue.ready(state.model), WAITING_COUNTED_MAX))
            waiting = len(ready) if len(ready) < WAITING_COUNTED_MAX else depth
            wait_ms = now_ms - ready[0].queued_at_ms if ready else 0
        census = census_of(self._fleet.of_model(state.model).values(), now_ms, waiting=bool(waiting))
        state.see(census, waiting, wait_ms, now_ms)

    def _signals(self, state: Scaled, now_ms: int) -> Signals:
        return state.signals(self._dispatcher.delays.mean_ms(state.model), now_ms)

    def _step(self, state: Scaled, now_ms: int, out: list[Command]) -> None:
        if state.action is not None:
            self._moves.go_on(state, state.action, now_ms, out)
        stopping = state.action is not None and state.action.phase is Phase.STOPPING
        if stopping and state.waiting and not state.census.present:
            state.action = None  # Whoever stops, stops without it; a task must not wait for that.
        if state.action is None and state.bounds is not None:
            self._decide(state, now_ms, out)
        if state.waiting:
            self._moves.failures.tell(state, now_ms, out)

    def _decide(self, state: Scaled, now_ms: int, out: list[Command]) -> None:
        signals = self._signals(state, now_ms)
        found = self._wish(state, signals)
        state.unwanted = bool(state.waiting) and not found.target
        if found.target == signals.present:
            state.blocked = ""
            return
        state.blocked = self._held_back(state, found, signals, now_ms)
        if state.blocked:
            return
        decision = self._decision(state, found, signals, now_ms)
        if decision.kind is ScaleKind.UP:
            if found.rule in ON_LOAD and state.stopped_ms is not None and now_ms - state.stopped_ms < REGRET_MS:
                state.calm_until_ms = now_ms + REGRET_MS
            self._tell(state, signals, decision)
            self._moves.begin_up(state, decision, now_ms, out)
        else:
            leavers = self._idle_workers(state.model)[: decision.count]
            if leavers:
                self._tell(state, signals, decision)
                self._moves.begin_down(state, decision, leavers, now_ms, out)
            else:
                state.blocked = "every rustbee of it is in use"

    def _wish(self, state: Scaled, signals: Signals, *, ask: bool = True) -> Wish:
        bounds = state.bounds
        assert bounds is not None, "only a model with bounds is decided for"
        found = wish(signals, bounds)
        if not self._scripted.has(Hook.SCALE):
            return found
        if ask:
            facts = model_facts(state.model, bounds, signals.present)
            count = self._scripted.scale(facts, stats_facts(signals.stats, found.target))
        else:
            count = self._scripted.turns.last(state.model)  # Who only looks is no reason to ask.
        if count is None:
            return found
        target = min(bounds.max_workers, max(bounds.min_workers, count))
        return found if target == found.target else Wish(target, "script")

    def _script_for(self, model: ModelName) -> str:
        """The script that says how many; empty where it has no opinion, or there is none."""
        says = self._scripted.has(Hook.SCALE) and self._scripted.turns.last(model) is not None
        return self._scripted.name if says else ""

    def _held_back(self, state: Scaled, found: Wish, signals: Signals, now_ms: int) -> str:
        if found.target == signals.present:
            return ""
        if self._books.is_paused(state):
            return "paused"
        if self._began_ms is not None and now_ms - self._began_ms < self.settle_ms:
            left_ms = self._began_ms + self.settle_ms - now_ms
            return (
                f"the queennode has just started: rustbees that are there already get {left_ms / 1000:.0f} s to report"
            )
        if found.target > signals.present:
            return self._up_held_back(state, found, signals, now_ms)
        calm = found.rule in ON_CALM and signals.stats.idle_ms < IDLE_KEPT_MS
        wait_ms = state.down_in_ms(now_ms) if calm or found.rule == "script" else 0
        return f"cool-down: no rustbee is stopped for another {wait_ms / 1000:.0f} s" if wait_ms else ""

    def _up_held_back(self, state: Scaled, found: Wish, signals: Signals, now_ms: int) -> str:
        if state.breaker.left_ms(now_ms):
            left_ms = state.breaker.left_ms(now_ms)
            return f"breaker: not tried for another {left_ms / 1000:.0f} s, because {state.breaker.in_words()}"
        if now_ms < state.breaker.retry_ms:
            return (
                f"tried again in {(state.breaker.retry_ms - now_ms) / 1000:.0f} s, because {state.breaker.in_words()}"
            )
        if found.rule != "first_request" and now_ms < state.not_before_ms:
            return f"no host had room, asked again in {(state.not_before_ms - now_ms) / 1000:.0f} s"
        for_load = found.rule in ON_LOAD or (found.rule == "script" and signals.present)
        wait_ms = state.up_in_ms(now_ms) if for_load else 0
        if found.rule in ON_COMFORT and not state.waiting:
            wait_ms = max(wait_ms, state.comfort_in_ms(now_ms))
        return f"cool-down: no rustbee is started for another {wait_ms / 1000:.0f} s" if wait_ms else ""

    def _decision(self, state: Scaled, found: Wish, signals: Signals, now_ms: int) -> ScaleDecision:
        change = found.target - signals.present
        kind = ScaleKind.UP if change > 0 else ScaleKind.DOWN if change < 0 else ScaleKind.HOLD
        words = reason(found, signals, state.bounds or Bounds())
        return ScaleDecision(now_ms, kind, abs(change), found.target, found.rule, words, signals.stats)

    def _tell(self, state: Scaled, signals: Signals, decision: ScaleDecision) -> None:
        witness, bounds = self._dispatcher.witness, state.bounds
        if witness is not None and bounds is not None:
            stats = stats_facts(signals.stats, wish(signals, bounds).target)
            witness.scaled(model_facts(state.model, bounds, signals.present), stats, decision.target)

    def _idle_workers(self, model: ModelName) -> list[Worker]:
        idle = [worker for worker in self._fleet.of_model(model).values() if is_idle(worker)]
        return sorted(idle, key=lambda worker: (worker.used_at_ms, worker.pace.rated, -worker.registered_at_ms))

    def _may_begin(self, bounds: Bounds | None) -> bool:
        return bounds is not None and not self._books.paused and not bounds.paused

    def _mark(self, now_ms: int) -> None:
        self._now_ms = now_ms
        if self._began_ms is None:
            self._began_ms = now_ms


def _waiting_longest(state: Scaled) -> float:
    return float("inf") if state.waiting_since_ms is None else state.waiting_since_ms
