"""What every relayed answer says of the decision behind it, in its head."""

from __future__ import annotations

from typing import Final

from swarmesh.wire.http1 import Headers

TASK_HEADER: Final = b"x-swarmesh-task"
"""What `swarmesh explain task` and `explain refusal` are asked by."""
DECISION_HEADERS: Final = (b"x-swarmesh-rustbee", b"x-swarmesh-attempts", b"x-swarmesh-queue-ms", TASK_HEADER)
_LINES: Final = b"%s: %%s\r\n%s: %%d\r\n%s: %%d\r\n%s: %%s\r\n" % DECISION_HEADERS
# One template: it is filled once per answer.


def decision_lines(worker_id: bytes, attempt: int, queue_ms: int, task_id: bytes) -> bytes:
    """As lines of a head."""
    return _LINES % (worker_id, attempt, queue_ms, task_id)


def decision_headers(worker_id: bytes, attempt: int, queue_ms: int, task_id: bytes) -> Headers:
    """The same for a head that is rendered elsewhere."""
    values = (worker_id, b"%d" % attempt, b"%d" % queue_ms, task_id)
    return list(zip(DECISION_HEADERS, values, strict=True))
