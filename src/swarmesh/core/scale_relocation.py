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
from swarmesh.core.placement import HostCandidate, veto
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
        kept_mib = self._rooms.kept_mib(newcomer.model)
        places = [site for site in sites if site.usable and not site.draining]
        free_mib = {site.host: self._free_mib(site) - kept_mib.get(site.host, 0) for site in places}
        # Each worker of a fleet of thousands may be asked about: the first of another host says it.
        roomiest = sorted(free_mib, key=free_mib.__getitem__, reverse=True)[:2]

        def may_move(worker: Worker) -> bool:
            other = self._books.of_model[worker.model]
            moves = other.action is not None and other.action.relocation is not None
            stays = now_ms < other.stays_until_ms and not moves
            if stays or other.breaker.left_ms(now_ms):
                return False
            # What it needs on another host, and whether it can run there, is only known when its hosts are asked.
            need_mib = self._sites.held_mib(worker.host, [worker.worker_id])
            return any(free_mib[host] >= need_mib for host in roomiest if host != worker.host)

        room = self._rooms.with_kept(newcomer, sites, may_move, now_ms)
        if room is None:
            return None
        kept = list(self._below_minimum(room.leavers))
        if not _fit_together(
            [self._sites.held_mib(room.host, [worker.worker_id]) for worker in kept],
            [mib for host, mib in free_mib.items() if host != room.host],
        ):
            return None
        ready = (worker for worker in kept if self._may_begin(newcomer, worker, now_ms))
        return [Relocation(worker.worker_id, worker.model, room.host, newcomer.model) for worker in ready]

    def is_full(self, state: Scaled) -> bool:
        """Whether a model has as many workers as it may have, so that the old one has to go first."""
        return state.bounds is None or self._books.present(state.model) >= state.bounds.max_workers

    def is_wanted(self, relocation: Relocation) -> bool:
        """Whether nobody serves the newcomer although somebody ought to, and the worker is in its way and may move."""
        newcomer, worker = self._books.of_model.get(relocation.newcomer), self._fleet.get(relocation.worker_id)
        if newcomer is None or newcomer.bounds is None or worker is None or not worker.may_serve:
            return False
        if self._books.is_paused(self._books.of_model[relocation.model]):
            return False
        wanted = newcomer.waiting or newcomer.bounds.min_workers
        return bool(wanted) and not self._books.is_paused(newcomer) and not self._books.is_present(newcomer.model)

    def apart(self, relocation: Relocation, sites: tuple[HostCandidate, ...]) -> tuple[HostCandidate, ...]:
        """Where it is in nobody's way, if there is room: next time the newcomer may want another of the large hosts."""
        newcomer = self._books.of_model[relocation.newcomer]
        wanted = newcomer.action.sites if newcomer.action is not None else ()
        large = {site.host for site in wanted if self._rooms.could_hold(site)}
        return tuple(site for site in sites if site.host not in large and not veto(site)) or sites

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

    def _free_mib(self, site: HostCandidate) -> int:
        return sum(pool.free_mib for pool in self._sites.pools(site))


def _fit_together(needs_mib: Sequence[int], free_mib: Sequence[int]) -> bool:
    """Whether there is room for all: the largest first, each where most is free."""
    left_mib = sorted(free_mib)
    for need_mib in sorted(needs_mib, reverse=True):
        if not left_mib or left_mib[-1] < need_mib:
            return False
        left_mib[-1] -= need_mib
        left_mib.sort()
    return True


def relocation_decision(
    relocation: Relocation, state: Scaled, present: int, now_ms: int, *, is_full: bool
) -> ScaleDecision:
    """What is written down of a move, before it is carried out."""
    first = "goes first" if is_full else "is replaced elsewhere first"
    words = f"{relocation.newcomer} is to have the place on {relocation.host}, so {relocation.worker_id} {first}"
    stats = state.signals(0, now_ms).stats
    return ScaleDecision(now_ms, ScaleKind.UP, 1, present + (not is_full), "move", words, stats)
