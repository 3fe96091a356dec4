"""Who is measured again although others look better: a worker that was slow need not be so any more.

Two kinds are due: those that have come (back) and had no task since, and those that had none for `STALE_MS`. One task
in `SHARE` goes to whoever is due; one who has been due for `DEADLINE_MS` is not kept waiting for that, within limits.
Counted, not drawn: equal histories give equal choices.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Final

from swarmesh.core.ids import WorkerId

SHARE: Final = 100
STALE_MS: Final = 120_000
"""Without a task for so long, what is known of a worker is old. Less costs more tasks on workers that are slow."""
DEADLINE_MS: Final = 15_000
"""A worker that has come back is tried before so much of traffic has passed it by."""
STALE_DEADLINE_MS: Final = 20_000
SPACING: Final = 4
"""Tasks between two that go to those who have come back: a fleet that comes back at once is not all measured first."""
STALE_SPACING: Final = 50
"""Tasks between two that go to those not used for long: at most one in so many is spent on finding out."""
LOOKED_AT_MAX: Final = 8


class Exploration:
    """Of one model: who is due since when, and how many tasks ago somebody was measured."""

    def __init__(self, seed: int) -> None:
        self._come: OrderedDict[WorkerId, int] = OrderedDict()
        self._used: dict[WorkerId, int] = {}
        # Queens with different seeds do not measure in step; none does before there is traffic worth the name.
        self._since = seed % (SHARE // 2)
        self._fresh_until_ms = 0

    def came(self, worker_id: WorkerId, now_ms: int) -> None:
        """A worker is there, for the first time or again."""
        self._come.setdefault(worker_id, now_ms)

    def used(self, worker_id: WorkerId, now_ms: int) -> bool:
        """A task goes to this worker; True when it had none for so long that what is known of it is old."""
        # Whoever was due is measured now, whatever it was chosen for.
        is_back = bool(self._come) and self._come.pop(worker_id, None) is not None
        # A dict in the order of use: taking out and putting in costs less than an OrderedDict's move.
        is_stale = now_ms - self._used.pop(worker_id, now_ms) >= STALE_MS
        self._used[worker_id] = now_ms
        self._since = 0 if is_back or is_stale else self._since + 1
        return is_stale

    def forget(self, worker_id: WorkerId) -> None:
        """The worker is gone."""
        self._come.pop(worker_id, None)
        self._used.pop(worker_id, None)

    def due(self, now_ms: int, may: Callable[[WorkerId], bool]) -> WorkerId | None:
        """Who gets the next task to be measured, of those that may; None for nobody."""
        if self.is_quiet(now_ms):
            return None
        worker_id = self._overdue(self._come, now_ms, DEADLINE_MS, may)
        if worker_id is not None or self._since < STALE_SPACING or now_ms < self._fresh_until_ms:
            return worker_id
        # Nobody is due before whoever was used longest ago; who is used from now on is due later still.
        self._fresh_until_ms = next(iter(self._used.values()), now_ms) + STALE_MS
        return self._overdue(self._used, now_ms - STALE_MS, STALE_DEADLINE_MS, may)

    def is_quiet(self, now_ms: int) -> bool:
        """Whether it is plain that nobody is `due`; so it is at most times, and every task asks."""
        if self._since < SPACING:
            return True
        return not self._come and (self._since < STALE_SPACING or now_ms < self._fresh_until_ms)

    def _overdue(
        self, line: dict[WorkerId, int], now_ms: int, deadline_ms: int, may: Callable[[WorkerId], bool]
    ) -> WorkerId | None:
        for worker_id, at_ms in islice(line.items(), LOOKED_AT_MAX):
            if at_ms > now_ms:
                break
            if (now_ms - at_ms >= deadline_ms or self._since >= SHARE) and may(worker_id):
                return worker_id
        return None
