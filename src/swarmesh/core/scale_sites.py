"""What the queen's books say of the places where a worker could be started, and which of them is chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from swarmesh.core.events import SpawnRequested
from swarmesh.core.fleet import Fleet
from swarmesh.core.host_speeds import HostSpeeds
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.memory import MemoryBooks
from swarmesh.core.memory_pool import Pool, PoolFree
from swarmesh.core.placement import ChosenBy, HostCandidate, HostVerdict, Placement, choose_host, judge
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.script import Facts, Hook
from swarmesh.core.script_facts import host_facts, model_facts
from swarmesh.core.script_guard import Scripted
from swarmesh.core.witness import Witness

AVOIDED: Final = "the last start there failed, so others come first"
BARRED: Final = "kept from it by the policy script"


class Sites:
    """Fills in what the core knows better than whoever asked the hosts, and lets votes or the script choose."""

    def __init__(self, fleet: Fleet, memory: MemoryBooks, scripted: Scripted) -> None:
        self.speeds = HostSpeeds(fleet)
        self._fleet = fleet
        self._memory = memory
        self._scripted = scripted

    def filled(
        self, model: ModelName, sites: Sequence[HostCandidate], kept_mib: Mapping[HostName, int] | None = None
    ) -> tuple[HostCandidate, ...]:
        """The same places with memory, speed and load from the books; ``kept_mib`` of a host is for somebody else."""
        loads = self._loads()
        return tuple(
            msgspec.structs.replace(
                site,
                pools=self._pools_free(site, (kept_mib or {}).get(site.host, 0)),
                speed=self.speeds.of(model, site.host) or site.speed,
                load=loads.get(site.host, 0.0),
            )
            for site in sites
        )

    def pools(self, site: HostCandidate) -> list[Pool]:
        """The books of the memory it could take; empty for a host that was never probed."""
        books = self._memory.of_host(site.host)
        return books.of_gpus(site.gpus) if books is not None else []

    def held_mib(self, host: HostName, workers: Collection[WorkerId]) -> int:
        """What is promised to those workers there, of any kind of memory."""
        books = self._memory.of_host(host)
        pools = books.pools() if books is not None else []
        return sum(pool.reserved.get(worker_id, 0) for pool in pools for worker_id in workers)

    def choose(
        self,
        model: ModelName,
        sites: Sequence[HostCandidate],
        *,
        bounds: Bounds | None = None,
        last: HostName | None = None,
        avoided: Collection[str] = (),
    ) -> Placement:
        """The script's choice among those that no filter takes out, else that of the votes.

        ``avoided`` hosts are only taken when there is no other.
        """
        others = [site for site in sites if site.host not in avoided]
        if len(others) < len(sites):
            placement = self.choose(model, others, bounds=bounds, last=last)
            if placement.choice is not None:
                shown = [HostVerdict(site.host, AVOIDED) for site in sites if site.host in avoided]
                return msgspec.structs.replace(placement, reasons=(*placement.reasons, *shown))
        if self._scripted.has(Hook.PLACE):
            verdicts = judge(sites)
            scores = self._asked(model_facts(model, bounds, len(self._fleet.of_model(model))), sites, verdicts)
            if scores is not None:
                return _by_script(verdicts, scores)
        return choose_host(sites, last=last)

    def barred(
        self, model: ModelName, sites: Sequence[HostCandidate], *, bounds: Bounds | None = None
    ) -> set[HostName]:
        """Where the script would not have a worker of the model even if nothing else were there.

        Nobody has to go to make room at such a place.
        """
        if not self._scripted.has(Hook.PLACE):
            return set()
        empty = [
            msgspec.structs.replace(site, pools=tuple(map(_emptied, site.pools))) for site in self.filled(model, sites)
        ]
        scores = self._asked(model_facts(model, bounds, len(self._fleet.of_model(model))), empty, judge(empty))
        return {host for host, score in (scores or {}).items() if score is None}

    def tell(
        self,
        witness: Witness,
        model: ModelName,
        bounds: Bounds | None,
        sites: Sequence[HostCandidate],
        placement: Placement,
    ) -> None:
        """Show a witness what a script would have been told, and which host was chosen."""
        by_host = {site.host: site for site in sites}
        verdicts = [verdict for verdict in judge(sites) if not verdict.veto]
        facts = [host_facts(by_host[verdict.host], verdict) for verdict in verdicts]
        witness.placed(model_facts(model, bounds, len(self._fleet.of_model(model))), facts, placement.choice)

    def _asked(
        self, model: Facts, sites: Sequence[HostCandidate], verdicts: Sequence[HostVerdict]
    ) -> dict[HostName, float | None] | None:
        by_host = {site.host: site for site in sites}
        open_to_it = [verdict for verdict in verdicts if not verdict.veto]
        if not open_to_it:
            return None
        scores = self._scripted.place(model, [host_facts(by_host[verdict.host], verdict) for verdict in open_to_it])
        if scores is None:
            return None
        return {verdict.host: score for verdict, score in zip(open_to_it, scores, strict=True)}

    def _pools_free(self, site: HostCandidate, kept_mib: int) -> tuple[PoolFree, ...]:
        pools = self.pools(site)
        free = [PoolFree(pool.label, pool.free_mib, pool.total_mib) for pool in pools] or list(site.pools)
        for index, pool in enumerate(free):
            taken_mib = min(kept_mib, pool.free_mib)
            if taken_mib:
                free[index] = pool._replace(
                    label=f"{pool.label} beside {taken_mib} MiB kept for another modelcell",
                    free_mib=pool.free_mib - taken_mib,
                )
                kept_mib -= taken_mib
        return tuple(free)

    def _loads(self) -> dict[HostName, float]:
        slots: Counter[HostName] = Counter()
        busy: Counter[HostName] = Counter()
        for worker in self._fleet:
            slots[worker.host] += worker.slots
            busy[worker.host] += len(worker.running)
        return {host: min(1.0, busy[host] / count) for host, count in slots.items() if count}


def _emptied(pool: PoolFree) -> PoolFree:
    return pool._replace(free_mib=pool.total_mib)


def _by_script(verdicts: Sequence[HostVerdict], scores: Mapping[HostName, float | None]) -> Placement:
    judged = tuple(_scored(verdict, scores) for verdict in verdicts)
    best = max((verdict for verdict in judged if not verdict.veto), key=lambda verdict: verdict.score, default=None)
    return Placement(best.host if best is not None else None, judged, ChosenBy.SCRIPT)


def _scored(verdict: HostVerdict, scores: Mapping[HostName, float | None]) -> HostVerdict:
    if verdict.veto:
        return verdict
    score = scores[verdict.host]
    if score is None:
        return HostVerdict(verdict.host, BARRED, verdict.votes)
    return msgspec.structs.replace(verdict, score=score)


def spawn_of(model: ModelName, site: HostCandidate) -> SpawnRequested:
    """The wish to start a worker there."""
    return SpawnRequested(
        worker_id=site.worker_id,
        model=model,
        backend=site.backend,
        host=site.host,
        slots=site.slots,
        need_mib=site.need_mib,
        gpus=site.gpus,
    )
