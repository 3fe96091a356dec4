"""Whose workers may go so that a worker of another model fits, and where that costs least (cellmorph)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec

from swarmesh.core.candidates import SERVING
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.morph import BETTER, Resident, Vacancy, usefulness, vacancy
from swarmesh.core.placement import HostCandidate
from swarmesh.core.scale_book import Scaled
from swarmesh.core.scale_books import ScaleBooks
from swarmesh.core.scale_census import is_idle
from swarmesh.core.scale_sites import Sites
from swarmesh.core.scale_view import ScaleDecision, ScaleKind


class Chance(StrEnum):
    """What can be done about a lack of memory."""

    NOW = "now"
    LATER = "later"
    """Others have the memory and keep it for their turn."""
    DOUBTFUL = "doubtful"
    """Nobody who could be let go has enough of it, by books that are not always of this moment."""
    PAUSED = "paused"
    """The same, because who has it is paused."""
    NEVER = "never"
    """No host has so much at all."""


class RoomFinder:
    """Reads the books of models and of memory; changes nothing."""

    def __init__(self, fleet: Fleet, books: ScaleBooks, sites: Sites) -> None:
        self._fleet = fleet
        self._books = books
        self._sites = sites

    def find(self, state: Scaled, sites: Sequence[HostCandidate], now_ms: int) -> tuple[Chance, Vacancy | None]:
        """Who would have to go for one worker of the model, on the host where that costs least."""
        serving = self._books.is_present(state.model)
        asks = bool(state.waiting) or serving
        worth = 1.0 / (1 + self._books.present(state.model)) if asks else 1.0
        best = self._cheapest(state, sites, self._is_spare, now_ms)
        if best is not None and (not best.leavers or worth > BETTER * best.usefulness):
            return Chance.NOW, best
        if serving or not state.waiting:
            return Chance.LATER if best is not None else self._without_hope(sites), None
        trusted = [site for site in sites if not state.breaker.distrusts(site.host, now_ms)]
        if self._has_waited_its_turn(state, now_ms):
            best = self._cheapest(
                state, trusted, lambda other, worker: self._has_had_its_turn(other, worker, now_ms), now_ms
            )
            if best is not None:
                return Chance.NOW, best
        possible = self._cheapest(state, trusted, lambda _, __: True, now_ms, patient=True)
        return Chance.LATER if possible is not None else self._without_hope(sites), None

    def with_kept(
        self, state: Scaled, sites: Sequence[HostCandidate], may_move: Callable[[Worker], bool], now_ms: int
    ) -> Vacancy | None:
        """The same if those that ``may_move`` elsewhere went as well, though their models have to keep as many."""
        trusted = [site for site in sites if not state.breaker.distrusts(site.host, now_ms)]
        return self._cheapest(state, trusted, lambda _, __: True, now_ms, patient=True, may_move=may_move)

    def instead_of(
        self, host: HostName, state: Scaled, sites: Sequence[HostCandidate], now_ms: int
    ) -> tuple[HostCandidate, ...]:
        """Where room for the first worker can be made if starts fail on that host again and again; else nothing."""
        if not state.breaker.distrusts(host, now_ms) or self._books.is_present(state.model):
            return ()
        trusted = tuple(site for site in sites if not state.breaker.distrusts(site.host, now_ms))
        return trusted if self.find(state, trusted, now_ms)[0] in (Chance.NOW, Chance.LATER) else ()

    def may_give_way(self, state: Scaled, worker: Worker, now_ms: int) -> bool:
        """Whether a worker may go for a model that nobody serves: it is of less use, or its turn is over."""
        other = self._books.of_model[worker.model]
        useful = self._usefulness(worker, now_ms, self._books.present(worker.model))
        if self._is_spare(other, worker) and BETTER * useful < 1.0:
            return True
        return self._has_waited_its_turn(state, now_ms) and self._has_had_its_turn(other, worker, now_ms)

    def _without_hope(self, sites: Sequence[HostCandidate]) -> Chance:
        # A worker that has just ended or loaded may be counted twice: in the books and in what was measured.
        large = {site.host for site in sites if _is_open(site) and self.could_hold(site)}
        if not large:
            return Chance.NEVER
        here = (self._books.of_model.get(worker.model) for worker in self._fleet if worker.host in large)
        return Chance.PAUSED if any(map(self._is_paused, here)) else Chance.DOUBTFUL

    def _is_paused(self, other: Scaled | None) -> bool:
        return other is not None and self._books.is_paused(other)

    def could_hold(self, site: HostCandidate) -> bool:
        """Whether the worker would fit there if nobody else were there."""
        return sum(pool.usable_mib for pool in self._sites.pools(site)) >= site.need_mib

    def _cheapest(
        self,
        state: Scaled,
        sites: Sequence[HostCandidate],
        may_go: Callable[[Scaled, Worker], bool],
        now_ms: int,
        *,
        patient: bool = False,
        may_move: Callable[[Worker], bool] = lambda _: False,
    ) -> Vacancy | None:
        here: defaultdict[HostName, list[Worker]] = defaultdict(list)
        leaving: defaultdict[HostName, list[WorkerId]] = defaultdict(list)
        copies: Counter[ModelName] = Counter()
        stuck = state.action.stuck if state.action is not None else ()
        for worker in self._fleet:  # Once for all hosts: there are thousands of workers.
            here[worker.host].append(worker)
            copies[worker.model] += worker.may_serve
            # Who still works off what it has may take minutes.
            if worker.stop_at_ms and (patient or not worker.running) and worker.worker_id not in stuck:
                leaving[worker.host].append(worker.worker_id)
        # What is kept for somebody else is only kept for a while.
        kept_mib = {} if patient else self.kept_mib(state.model, {one for ids in leaving.values() for one in ids})
        rooms = []
        for site in filter(_is_open, sites):
            residents = self._residents(state.model, here[site.host], copies, may_go, may_move, now_ms)
            need_mib = site.need_mib + kept_mib.get(site.host, 0)
            room = vacancy(site.host, self._sites.pools(site), need_mib, residents, leaving[site.host])
            if room is not None:
                rooms.append(room._replace(need_mib=site.need_mib))
        return min(rooms, key=lambda room: (room.usefulness, room.host), default=None)

    def kept_mib(self, model: ModelName, counted: Collection[WorkerId] = ()) -> dict[HostName, int]:
        """What others than that model have had made free for themselves, by host.

        Who still has to go for them brings that memory along, and none of what is free now is kept for it; unless it
        is among ``counted``, whose memory is taken to be free.
        """
        kept: defaultdict[HostName, int] = defaultdict(int)
        for other in self._books.of_model.values():
            room = other.action.room if other.action is not None and other.model != model else None
            if room is not None:
                coming_mib = self._sites.held_mib(room.host, room.leaving.difference(counted))
                kept[room.host] += max(0, room.need_mib - coming_mib)
        return dict(kept)

    def leaving(self, site: HostCandidate) -> set[WorkerId]:
        """Those that are on their way out, have nothing to do, and hold memory that a worker there could take."""
        pools = self._sites.pools(site)
        held = {worker_id for pool in pools for worker_id in pool.reserved}
        found = (self._fleet.get(worker_id) for worker_id in held)
        return {worker.worker_id for worker in found if worker is not None and _is_ending(worker)}

    def _residents(
        self,
        newcomer: ModelName,
        here: Iterable[Worker],
        copies: Mapping[ModelName, int],
        may_go: Callable[[Scaled, Worker], bool],
        may_move: Callable[[Worker], bool],
        now_ms: int,
    ) -> list[Resident]:
        by_model: defaultdict[ModelName, list[Worker]] = defaultdict(list)
        for worker in here:
            other = self._books.of_model.get(worker.model)
            if other is None or worker.model == newcomer or self._books.is_paused(other):
                continue
            if not worker.direct and worker.may_serve and may_go(other, worker):
                by_model[worker.model].append(worker)
        residents: list[Resident] = []
        for model, workers in by_model.items():
            spare = copies[model] - self._minimum(model)
            found = [(self._usefulness(worker, now_ms, copies[model]), worker) for worker in workers]
            residents += [
                Resident(worker.worker_id, useful)
                for rank, (useful, worker) in enumerate(sorted(found, key=_least_useful))
                if rank < spare or may_move(worker)
            ]
        return residents

    def spare(self, model: ModelName) -> int:
        """How many workers a model has beyond its minimum; below 0 when it lacks some."""
        return self._books.present(model) - self._minimum(model)

    def _minimum(self, model: ModelName) -> int:
        bounds = self._books.of_model[model].bounds
        return bounds.min_workers if bounds is not None else 0

    def _usefulness(self, worker: Worker, now_ms: int, copies: int) -> float:
        idle_ms = 0 if worker.running else max(0, now_ms - worker.used_at_ms)
        load_ms = self._books.loads.of(worker.model, worker.host)
        return usefulness(idle_ms, load_ms, copies) + len(worker.running)

    def _is_spare(self, other: Scaled, worker: Worker) -> bool:
        # By its own queue a model may need a worker that is idle this very moment.
        return is_idle(worker) and not other.waiting and not (other.action is not None and other.action.starts)

    def _has_waited_its_turn(self, state: Scaled, now_ms: int) -> bool:
        since_ms = state.waiting_since_ms
        return since_ms is not None and now_ms - since_ms >= self._books.loads.turn_ms(state.model)

    def _has_had_its_turn(self, other: Scaled, worker: Worker, now_ms: int) -> bool:
        if worker.status not in SERVING or (other.action is not None and other.action.starts):
            return False
        return other.got_ms is None or now_ms - other.got_ms >= self._books.loads.turn_ms(other.model)


def _is_open(site: HostCandidate) -> bool:
    return site.usable and site.offered and not site.draining


def _least_useful(found: tuple[float, Worker]) -> float:
    return found[0]


def _is_ending(worker: Worker) -> bool:
    return bool(worker.stop_at_ms) and not worker.running


def room_made(
    decision: ScaleDecision, model: ModelName, vacancy: Vacancy, leavers: Sequence[Worker], now_ms: int
) -> ScaleDecision:
    """What is written down of workers that go so that the decision can be carried out."""
    words = f"{model} needs {vacancy.need_mib} MiB on {vacancy.host}: " + ", ".join(
        f"{worker.worker_id} of {worker.model} goes" for worker in leavers
    )
    return msgspec.structs.replace(
        decision,
        at_ms=now_ms,
        kind=ScaleKind.MAKE_ROOM,
        rule="room",
        reason=words,
        count=len(leavers),
        workers=vacancy.leavers,
    )
