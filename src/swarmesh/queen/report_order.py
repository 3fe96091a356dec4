"""Which of a worker's reports is the newest: one that was held up on its way says what is not so any more."""

from __future__ import annotations

from swarmesh.core.ids import WorkerId
from swarmesh.wire.waggle import Registration, Waggle


class ReportOrder:
    """The number of the last report of each worker's present life."""

    def __init__(self) -> None:
        self._last: dict[WorkerId, tuple[str, int]] = {}

    def is_news(self, report: Registration | Waggle) -> bool:
        """Whether no newer one has been seen; notes it if so. A report without a number always is news."""
        worker_id = WorkerId(report.rustbee_id)
        nonce, last = self._last.get(worker_id, ("", 0))
        if isinstance(report, Registration) and report.nonce != nonce:
            nonce, last = report.nonce, 0
        if 0 < report.number < last:
            return False
        self._last[worker_id] = (nonce, max(last, report.number))
        return True

    def forget(self, worker_id: WorkerId) -> None:
        """The worker is gone."""
        self._last.pop(worker_id, None)
