"""What people see of a worker."""

from __future__ import annotations

import pytest

from swarmesh.core.fleet import Worker
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.queen.worker_views import rustbee_view, waggle_view


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("status", list(WorkerStatus))
def test_only_who_can_be_reached_is_called_healthy(status: WorkerStatus, *, silent: bool) -> None:
    worker = Worker(
        worker_id=WorkerId("a"),
        model=ModelName("m"),
        backend="cpu",
        host=HostName("h"),
        location="unix:/x",
        slots=4,
        direct=False,
        registered_at_ms=0,
        status=status,
        silent=silent,
    )
    shown = "suspect" if silent and status is WorkerStatus.HEALTHY else status.value
    assert rustbee_view(worker, None).status == shown
    assert waggle_view(worker, None).status == shown
