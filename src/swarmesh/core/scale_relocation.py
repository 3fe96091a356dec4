"""Moving workers that their models have to keep: where nobody serves a model, they hold the only place it fits in.

A minimum says how many, not where. So where no worker that may be let go makes enough room, those are looked at that
have to be kept, and for which another host has memory. One more is started there; then the old one is above the minimum
and gives way like any other. Where a model has all the workers it may have, the old one goes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import ModelName, WorkerId
from swarmesh.core.memory_pool import allot
from swarmesh.core.placement import HostCandidate
from swarmesh.core.scale_action import Relocation
from swarmesh.core.scale_book import Scaled
from swarmesh.core.scale_books import ScaleBooks
from swarmesh.core.scale_room import RoomFinder
from swarmesh.core.scale_sites import Sites
from swarmesh.core.scale_view import ScaleDecision, ScaleKind


class Relocations:
    """Reads the books; changes nothing."""

    def __init__(self, fleet: Fleet, books: ScaleBooks, sites: Sites, rooms: RoomFinder) -> None:
        self._fleet = fleet
        self._books = books
        self._sites = sites
        self._rooms = rooms

    def find(self, newcomer: Scaled, sites: Sequence[HostCandidate], now_ms: int) -> list[Relocation] | None:
        """Who is to move now so that one worker of the model fits; empty while that has to wait.

        None when moving would not help either.
        """

        def may_move(worker: Worker) -> bool:
            other = self._books.of_model[worker.model]
            moves = other.action is not None and other.action.relocation is not None
            stays = now_ms < other.stays_until_ms and not moves
            return not (stays or other.breaker.left_ms(now_ms)) and self._fits_elsewhere(worker, newcomer, sites)

        room = self._rooms.with_kept(newcomer, sites, may_move, now_ms)
        if room is None:
            return None
        kept = self._below_minimum(room.leavers)
        ready = (worker for worker in kept if self._may_begin(newcomer, worker, now_ms))
        return [Relocation(worker.worker_id, worker.model, room.host, newcomer.model) for worker in ready]

    def is_full(self, state: Scaled) -> bool:
        """Whether a model has as many workers as it may have, so that the old one has to go first."""
        return state.bounds is None or self._books.present(state.model) >= state.bounds.max_workers

    def is_wanted(self, relocation: Relocation) -> bool:
        """Whether nobody serves the newcomer yet although somebody ought to, and the worker is still in its way."""
        newcomer, worker = self._books.of_model.get(relocation.newcomer), self._fleet.get(relocation.worker_id)
        if newcomer is None or newcomer.bounds is None or worker is None or not worker.may_serve:
            return False
        wanted = newcomer.waiting or newcomer.bounds.min_workers
        return bool(wanted) and not self._books.is_paused(newcomer) and not self._books.is_present(newcomer.model)

    def may_go(self, relocation: Relocation, now_ms: int) -> bool:
        """Whether the worker may go before the other is there: nobody uses it, or its turn is over."""
        newcomer, worker = self._books.of_model[relocation.newcomer], self._fleet.get(relocation.worker_id)
        return worker is not None and self._may_go_first(newcomer, worker, now_ms)

    def _below_minimum(self, leavers: Sequence[WorkerId]) -> Iterator[Worker]:
        """Those without whom their models would have too few, if all the others went: the least useful of each."""
        going: Counter[ModelName] = Counter()
        for worker_id in reversed(leavers):
            worker = self._fleet.get(worker_id)
            if worker is not None:
                going[worker.model] += 1
                if going[worker.model] > self._rooms.spare(worker.model):
                    yield worker

    def _may_begin(self, newcomer: Scaled, worker: Worker, now_ms: int) -> bool:
        other = self._books.of_model[worker.model]
        if other.action is not None or other.breaker.holds(now_ms):
            return False
        return not self.is_full(other) or self._may_go_first(newcomer, worker, now_ms)

    def _may_go_first(self, newcomer: Scaled, worker: Worker, now_ms: int) -> bool:
        bounds = self._books.of_model[worker.model].bounds
        if bounds is None or self._books.present(worker.model) > bounds.max_workers:
            return False  # There would be as many as allowed without it: nothing may be started in its place.
        return self._rooms.may_give_way(newcomer, worker, now_ms)

    def _fits_elsewhere(self, worker: Worker, newcomer: Scaled, sites: Sequence[HostCandidate]) -> bool:
        # What it needs on another host, and whether it can run there, is only known when its hosts are asked.
        need_mib = self._sites.held_mib(worker.host, [worker.worker_id])
        kept_mib = self._rooms.kept_mib(newcomer.model)
        others = [site for site in sites if site.host != worker.host and site.usable and not site.draining]
        return any(self._has_room(site, need_mib + kept_mib.get(site.host, 0)) for site in others)

    def _has_room(self, site: HostCandidate, need_mib: int) -> bool:
        pools = self._sites.pools(site)
        return bool(pools) and allot(pools, need_mib) is not None


def relocation_decision(
    relocation: Relocation, state: Scaled, present: int, now_ms: int, *, is_full: bool
) -> ScaleDecision:
    """What is written down of a move, before it is carried out."""
    first = "goes first" if is_full else "is replaced elsewhere first"
    words = f"{relocation.newcomer} fits nowhere but on {relocation.host}, so {relocation.worker_id} {first}"
    stats = state.signals(0, now_ms).stats
    return ScaleDecision(now_ms, ScaleKind.UP, 1, present + (not is_full), "move", words, stats)
