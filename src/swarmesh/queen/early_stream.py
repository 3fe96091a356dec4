"""The head of a stream that no worker has answered yet: its client is told what it waits for.

What the head says of other streams (who took it, after how long) is not known by then; it follows as comments.
"""

from __future__ import annotations

from typing import Final

from swarmesh.net.event_stream import EVENT_STREAM_HEADERS
from swarmesh.net.request import Request
from swarmesh.queen.decision_headers import TASK_HEADER, decision_headers
from swarmesh.queen.framing import Passage, passage_for
from swarmesh.wire.http1 import ResponseHead, parse_response_head

_RAW: Final = b"HTTP/1.1 200 OK" + b"".join(
    b"\r\n%s: %s" % header for header in (*EVENT_STREAM_HEADERS, (b"transfer-encoding", b"chunked"))
)


def early_stream(request: Request, task_id: bytes) -> tuple[Passage, bytes]:
    """What the rest of the stream goes through, and the head that begins it."""
    head: ResponseHead = parse_response_head(_RAW)
    passage = passage_for(head, request)
    return passage, passage.head(head, b"%s: %s\r\n" % (TASK_HEADER, task_id))


def late_decision(worker_id: bytes, attempt: int, queue_ms: int, task_id: bytes) -> bytes:
    """What could not be said in the head any more: a comment line for each of its headers."""
    return b"".join(b": %s: %s\n" % header for header in decision_headers(worker_id, attempt, queue_ms, task_id))
