"""Carrying out what the scaler decided, step by step: seek a place, make room, load, or stop; one action per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from swarmesh.core.commands import Command, SeekSites
from swarmesh.core.dispatch import Dispatcher
from swarmesh.core.events import SitesFound, WorkerStopRequested
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import HostName, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.morph import Vacancy
from swarmesh.core.placement import HostCandidate
from swarmesh.core.roster import Roster
from swarmesh.core.scale_action import (
    DRAIN_GRACE_MS,
    SEEK_LIMIT_MS,
    STAY_MS,
    STOP_LIMIT_MS,
    WHOLE_GRACE_MS,
    Action,
    Phase,
    Relocation,
    Room,
    Start,
)
from swarmesh.core.scale_book import ON_CALM, Scaled
from swarmesh.core.scale_books import ScaleBooks
from swarmesh.core.scale_failures import Failures
from swarmesh.core.scale_fresh import Newcomers
from swarmesh.core.scale_relocation import Relocations, relocation_decision
from swarmesh.core.scale_room import Chance, RoomFinder, room_made
from swarmesh.core.scale_sites import BARRED, Sites, spawn_of
from swarmesh.core.scale_starts import Starts
from swarmesh.core.scale_view import ScaleDecision, ScaleKind

NO_ROOM_MS: Final = 60_000
"""After no host had room for one more worker of a model that is served, until the next try."""
ASK_AGAIN_MS: Final = 10_000
"""While a model waits for its turn: how often the hosts are asked anew."""
DOUBT_MS: Final = 15_000
"""How long it has to look as if there could be no room before it is believed: until the hosts were asked twice."""
PAUSED_MS: Final = 60_000
"""The same where who has the room is paused: as long as tasks wait for workers that nobody expects."""
FREED_MS: Final = 2_000
"""Room was made and is not seen yet: how often it is looked for, for `DOUBT_MS` at most."""

_READY: Final = frozenset({WorkerStatus.HEALTHY, WorkerStatus.SUSPECT})
_HELD_BY_OTHERS: Final = frozenset({Chance.DOUBTFUL, Chance.PAUSED})
_DOUBT_MS_MAX: Final = {Chance.LATER: 0, Chance.DOUBTFUL: DOUBT_MS, Chance.PAUSED: PAUSED_MS}


class Moves:
    """Owns the actions; what they need of others goes through the roster."""

    def __init__(self, fleet: Fleet, dispatcher: Dispatcher, roster: Roster, books: ScaleBooks, sites: Sites) -> None:
        self.rooms = RoomFinder(fleet, books, sites)
        self.relocations = Relocations(fleet, books, sites, self.rooms)
        self.failures = Failures(dispatcher, books)
        self.newcomers = Newcomers(fleet, self.failures)
        self.starts = Starts(fleet, dispatcher, roster, books, self.newcomers)
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._roster = roster
        self._books = books
        self._sites = sites
        self._seeks = 0

    # beginnings

    def begin_up(self, state: Scaled, decision: ScaleDecision, now_ms: int, out: list[Command]) -> None:
        """Start as many workers as the decision says, one after the other, without waiting for each to load."""
        state.action = Action(decision, now_ms, Phase.SEEKING, now_ms, missing=decision.count)
        self._seek(state, state.action, now_ms, out)

    def begin_down(
        self, state: Scaled, decision: ScaleDecision, workers: Sequence[Worker], now_ms: int, out: list[Command]
    ) -> None:
        """Stop these idle workers."""
        decision = msgspec.structs.replace(decision, workers=tuple(worker.worker_id for worker in workers))
        state.action = Action(decision, now_ms, Phase.STOPPING, now_ms, stopping=set(decision.workers))
        state.note(decision)
        state.changed(now_ms)
        if decision.rule in ON_CALM or decision.rule == "script":
            state.stopped_ms = now_ms
        for worker_id in decision.workers:
            self._stop(worker_id, now_ms, out)

    # what happens meanwhile

    def go_on(self, state: Scaled, action: Action, now_ms: int, out: list[Command]) -> None:
        """Time has passed."""
        for start in list(action.starts.values()):
            self.starts.look_at(state, action, start, now_ms, out)
        if state.action is not action:
            return
        match action.phase:
            case Phase.SEEKING:
                if now_ms - action.phase_ms > SEEK_LIMIT_MS:
                    words = f"no host has said within {SEEK_LIMIT_MS // 1000} s what it could do"
                    self._give_up(state, action, {"": words}, now_ms, out)
            case Phase.MAKING_ROOM:
                self._go_on_making_room(state, action, now_ms, out)
            case Phase.LOADING:
                self._end_if_done(state, action, now_ms)
            case Phase.STOPPING:
                gone = not any(worker_id in self._fleet for worker_id in action.stopping)
                if gone or now_ms - action.phase_ms > STOP_LIMIT_MS:  # The roster repeats the wish until it is gone.
                    self._end(state, action, now_ms)

    def sites_found(self, state: Scaled, event: SitesFound, now_ms: int, out: list[Command]) -> None:
        """Start a worker at the best place, make room for it, or count a failure; a late answer is left alone."""
        action = state.action
        if action is None or action.phase is not Phase.SEEKING or action.seek != event.action:
            return
        relocation = action.relocation
        in_vain = self.relocations.is_full(state) if relocation is None else not self.relocations.is_wanted(relocation)
        if in_vain or state.breaker.left_ms(now_ms):
            self._nothing_more(state, action, now_ms)
            return
        reasons = {str(host): reason for host, reason in event.failures}
        if "" in reasons:
            self._give_up(state, action, reasons, now_ms, out, hopeless=True)
            return
        # A name that is taken would put a worker in the place of another.
        named = (site for site in event.sites if site.worker_id and site.worker_id not in self._fleet)
        action.sites = tuple(site for site in named if relocation is None or site.host != relocation.host)
        self._place(state, action, reasons, now_ms, out)

    def reported(self, worker_id: WorkerId, now_ms: int, out: list[Command]) -> None:
        """A worker that is being started has said how far it is."""
        state = self._books.of_model.get(self.starts.loading[worker_id])
        action = state.action if state is not None else None
        start = action.starts.get(worker_id) if action is not None else None
        if state is None or action is None or start is None:
            self.starts.loading.pop(worker_id, None)
            return
        start.heard_ms = now_ms
        self.starts.look_at(state, action, start, now_ms, out)
        if state.action is action and action.phase is Phase.LOADING:
            self._end_if_done(state, action, now_ms)

    def gone(self, worker: Worker, words: str, now_ms: int, out: list[Command]) -> None:
        """A worker is not there any more; call when the fleet has forgotten it."""
        self._sites.speeds.keep(worker)
        self._books.room_changed()
        start = self.starts.find(worker.worker_id)
        own = self._books.of_model.get(worker.model)
        if own is not None:
            self.newcomers.settle(own)
        if own is not None and own.action is not None and start is not None:
            mine = own.action
            self.starts.drop(mine, start.worker_id)
            if not worker.stop_at_ms:
                self.starts.failed(own, mine, start, start.trouble or words, now_ms, out)
            self.go_on(own, mine, now_ms, out)
        if own is not None and worker.worker_id in own.fresh:
            self.newcomers.judge(own, worker, worker.worker_id, words, now_ms, out)
        for state in list(self._books.of_model.values()):
            action = state.action
            if action is None:
                continue
            if (
                action.phase is Phase.MAKING_ROOM
                and action.room is not None
                and worker.worker_id in action.room.leaving
            ):
                self._go_on_making_room(state, action, now_ms, out)
            elif action.phase is Phase.STOPPING and worker.worker_id in action.stopping:
                self.go_on(state, action, now_ms, out)

    # seeking and placing

    def _seek(self, state: Scaled, action: Action, now_ms: int, out: list[Command]) -> None:
        self._seeks += 1
        action.seek = self._seeks
        action.go(Phase.SEEKING, now_ms)
        out.append(SeekSites(state.model, action.seek))

    def _place(
        self, state: Scaled, action: Action, failures: Mapping[str, str], now_ms: int, out: list[Command]
    ) -> None:
        sites = self._sites.filled(state.model, action.sites, self.rooms.kept_mib(state.model))
        if action.relocation is not None:
            sites = self.relocations.apart(action.relocation, sites)
        last = None if self._books.is_present(state.model) else state.last_host
        state.placement = self._sites.choose(
            state.model, sites, bounds=state.bounds, last=last, avoided=state.breaker.avoided
        )
        if self._dispatcher.witness is not None:
            self._sites.tell(self._dispatcher.witness, state.model, state.bounds, sites, state.placement)
        reasons = {**failures, **{str(host): why for host, why in state.placement.vetoes.items()}}
        if state.placement.choice is None or self._shuns(state.placement.choice, state, action, now_ms):
            self._no_site(state, action, reasons, now_ms, out)
            return
        if action.relocation is not None and not self._goes_first(state, action.relocation, now_ms, out):
            self._nothing_more(state, action, now_ms)
            return
        site = next(site for site in sites if site.host == state.placement.choice)
        error = self._roster.start(spawn_of(state.model, site), now_ms, out)
        if error is not None:
            self._no_site(state, action, {**reasons, str(site.host): error.message}, now_ms, out)
            return
        self._started(state, action, site, now_ms)
        if action.missing and not self.relocations.is_full(state):
            self._seek(state, action, now_ms, out)
        else:
            self._nothing_more(state, action, now_ms)

    def _shuns(self, host: HostName, state: Scaled, action: Action, now_ms: int) -> bool:
        """Leave a host out where starts fail again and again, if room can be made elsewhere; whether that was done."""
        first = not (action.starts or action.room or action.relocation)
        others = self.rooms.instead_of(host, state, action.sites, now_ms) if first else ()
        action.sites = others or action.sites
        return bool(others)

    def _started(self, state: Scaled, action: Action, site: HostCandidate, now_ms: int) -> None:
        action.room, state.doubted_ms = None, None
        action.missing -= 1
        limit_ms = self._books.loads.limit_ms(state.model, site.host, site.need_mib)
        start = Start(site.worker_id, site.host, now_ms, now_ms, now_ms, limit_ms)
        self.starts.add(state.model, action, start)
        state.last_host = site.host
        if not action.decision.workers:
            state.note(action.decision)
        action.decision = state.named(action.decision, site.worker_id)

    def _no_site(
        self, state: Scaled, action: Action, reasons: Mapping[str, str], now_ms: int, out: list[Command]
    ) -> None:
        if action.relocation is not None:
            state.stays_until_ms = now_ms + STAY_MS
            self._nothing_more(state, action, now_ms)
        elif action.starts:  # Part of what was wanted is better than nothing, and on its way.
            self._nothing_more(state, action, now_ms)
        elif action.room is None:
            barred = self._sites.barred(state.model, action.sites, bounds=state.bounds)
            action.sites = tuple(site for site in action.sites if site.host not in barred)
            self._make_room(state, action, {**reasons, **dict.fromkeys(barred, BARRED)}, now_ms, out)
        elif now_ms - (action.room.made_ms or 0) < DOUBT_MS:  # What has ended holds its memory for a moment yet.
            action.go(Phase.MAKING_ROOM, now_ms)
        elif self._sites.choose(state.model, self._sites.filled(state.model, action.sites)).choice is not None:
            action.room = None  # Only what is kept for others is in its way: it waits for another turn.
            action.go(Phase.MAKING_ROOM, now_ms)
        else:
            state.breaker.avoided.add(str(action.room.host))
            self._give_up(state, action, reasons or {"": "no host can be asked"}, now_ms, out)

    # making room

    def _make_room(
        self, state: Scaled, action: Action, reasons: Mapping[str, str], now_ms: int, out: list[Command]
    ) -> None:
        if self._books.is_paused(state):  # It ends what it has, but does not begin to take from others.
            self._end(state, action, now_ms, changed=False)
            return
        chance, vacancy = self.rooms.find(state, action.sites, now_ms)
        if chance in _HELD_BY_OTHERS and self._relocate(state, action, now_ms, out):
            chance = Chance.LATER
        doubt_ms = _doubt_ms(state, chance, now_ms)
        if vacancy is not None:
            self._clear(state, action, vacancy, now_ms, out)
        elif self._books.is_present(state.model) or (chance is not Chance.NEVER and not state.waiting):
            words = "; ".join(f"{host}: {why}" for host, why in reasons.items())
            state.not_before_ms, state.blocked = now_ms + NO_ROOM_MS, f"no host has room: {words}"
            self._end(state, action, now_ms, changed=False)
        elif doubt_ms <= _DOUBT_MS_MAX.get(chance, -1):
            if action.phase is not Phase.MAKING_ROOM:
                action.go(Phase.MAKING_ROOM, now_ms)
        elif chance is Chance.NEVER:
            self._give_up(state, action, reasons or {"": "no host can be asked"}, now_ms, out)
        else:
            self._end(state, action, now_ms, changed=False)
            self.failures.no_room(state, reasons, now_ms, out)

    def _clear(self, state: Scaled, action: Action, vacancy: Vacancy, now_ms: int, out: list[Command]) -> None:
        site = next(site for site in action.sites if site.host == vacancy.host)
        leavers = [worker for worker_id in vacancy.leavers if (worker := self._fleet.get(worker_id)) is not None]
        limit_ms = STOP_LIMIT_MS + max((self._grace_ms(worker) for worker in leavers if worker.running), default=0)
        # Also those that somebody else has stopped already, if they only have to end.
        leaving = {*vacancy.leavers, *self.rooms.leaving(site)} - action.stuck
        action.room = Room(vacancy.host, vacancy.need_mib, leaving, now_ms + limit_ms)
        action.go(Phase.MAKING_ROOM, now_ms)
        if leavers:
            state.note(room_made(action.decision, state.model, vacancy, leavers, now_ms))
        for worker in leavers:
            self._give_way(state, worker, vacancy.host, now_ms, out)
        self._go_on_making_room(state, action, now_ms, out)

    def _give_way(self, newcomer: Scaled, worker: Worker, host: HostName, now_ms: int, out: list[Command]) -> None:
        other = self._books.of_model.get(worker.model)
        if other is not None:
            target = self._books.present(worker.model) - 1
            words = f"gives way to {newcomer.model} on {host}"
            stats = other.signals(0, now_ms).stats
            other.note(ScaleDecision(now_ms, ScaleKind.DOWN, 1, target, "room", words, stats, (worker.worker_id,)))
            other.changed(now_ms)
        self._stop(worker.worker_id, now_ms, out, self._grace_ms(worker))

    def _grace_ms(self, worker: Worker) -> int:
        resumable = all(self._dispatcher.tasks[task_id].resumable for task_id in worker.running)
        return DRAIN_GRACE_MS if resumable else WHOLE_GRACE_MS

    def _go_on_making_room(self, state: Scaled, action: Action, now_ms: int, out: list[Command]) -> None:
        room = action.room
        if room is not None:
            self._go_on_with(room, state, action, now_ms, out)
        elif not state.waiting or self._books.is_paused(state) or self._books.is_present(state.model):
            self._end(state, action, now_ms, changed=False)
        elif now_ms - action.phase_ms >= ASK_AGAIN_MS:
            self._seek(state, action, now_ms, out)
        else:
            vetoes = state.placement.vetoes if state.placement is not None else {}
            self._make_room(state, action, vetoes, now_ms, out)

    def _go_on_with(self, room: Room, state: Scaled, action: Action, now_ms: int, out: list[Command]) -> None:
        room.leaving = {worker_id for worker_id in room.leaving if worker_id in self._fleet}
        if room.leaving:
            if now_ms > room.until_ms:  # That is no failure of this model: it tries to do without them.
                words = f"{', '.join(sorted(room.leaving))} did not go to make room"
                action.stuck |= room.leaving
                action.room = None
                action.go(Phase.MAKING_ROOM, now_ms)
                self._make_room(state, action, {str(room.host): words}, now_ms, out)
        elif room.made_ms is None or now_ms - action.phase_ms >= FREED_MS:
            room.made_ms = now_ms if room.made_ms is None else room.made_ms
            self._seek(state, action, now_ms, out)

    # moving

    def _relocate(self, newcomer: Scaled, action: Action, now_ms: int, out: list[Command]) -> bool:
        """Let workers move that hold the only place of a model; whether there is hope in that."""
        found = self.relocations.find(newcomer, action.sites, now_ms)
        for relocation in found or ():
            state = self._books.of_model[relocation.model]
            if state.action is None:
                present, full = self._books.present(state.model), self.relocations.is_full(state)
                decision = relocation_decision(relocation, state, present, now_ms, is_full=full)
                state.action = Action(decision, now_ms, Phase.SEEKING, now_ms, missing=1, relocation=relocation)
                self._seek(state, state.action, now_ms, out)
        return found is not None

    def _goes_first(self, state: Scaled, relocation: Relocation, now_ms: int, out: list[Command]) -> bool:
        """Let the worker go that moves, where no more are allowed; False if it is in use just now."""
        worker = self._fleet.get(relocation.worker_id)
        if worker is None or not self.relocations.is_full(state):
            return True
        if not self.relocations.may_go(relocation, now_ms):
            return False
        self._give_way(self._books.of_model[relocation.newcomer], worker, relocation.host, now_ms, out)
        return True

    # endings

    def _nothing_more(self, state: Scaled, action: Action, now_ms: int) -> None:
        action.missing, action.room = 0, None
        action.go(Phase.LOADING, now_ms)
        self._end_if_done(state, action, now_ms)

    def _end_if_done(self, state: Scaled, action: Action, now_ms: int) -> None:
        if not action.starts:
            self._end(state, action, now_ms, changed=bool(action.decision.workers))

    def _end(self, state: Scaled, action: Action, now_ms: int, *, changed: bool = True) -> None:
        for start in list(action.starts.values()):
            self.starts.drop(action, start.worker_id)
        state.action = state.doubted_ms = None
        if changed:
            self.starts.note_change(state, now_ms)

    def _give_up(
        self,
        state: Scaled,
        action: Action,
        reasons: Mapping[str, str],
        now_ms: int,
        out: list[Command],
        *,
        hopeless: bool = False,
    ) -> None:
        if action.starts:
            self._nothing_more(state, action, now_ms)
        else:
            self._end(state, action, now_ms, changed=False)
        self.failures.count(state, reasons, now_ms, out, hopeless=hopeless)

    def _stop(self, worker_id: WorkerId, now_ms: int, out: list[Command], grace_ms: int = DRAIN_GRACE_MS) -> None:
        self._roster.stop_requested(WorkerStopRequested(worker_id, grace_ms), now_ms, out)


def _doubt_ms(state: Scaled, chance: Chance, now_ms: int) -> int:
    if chance not in _HELD_BY_OTHERS:
        state.doubted_ms = None
        return 0
    state.doubted_ms = now_ms if state.doubted_ms is None else state.doubted_ms
    return now_ms - state.doubted_ms
