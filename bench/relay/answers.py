"""The exact bytes a fake worker answers with, so that the driver can compare every answer byte for byte.

Every event of a stream has the same length and its own number, so a lost, doubled or reordered chunk shows,
and chunks can be counted by length alone.
"""

from __future__ import annotations

import json
import time
from functools import lru_cache

MODEL = "fake"
CRLF = b"\r\n"
END_OF_STREAM = b"data: [DONE]\n\n"
EVENT_DIGITS = 6
MAX_CHUNKS = 100_000
STEPPED_PACE_PER_S = 100

_NO_STAMP = "5f3a9c0d7e21"

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: fake\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)


def event(number: int) -> bytes:
    """One SSE event of about 200 bytes, shaped like an OpenAI chat chunk."""
    content = f" tok{number:0{EVENT_DIGITS}d}"
    chunk = {
        "id": f"chatcmpl-{_NO_STAMP}",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": MODEL,
        "choices": [{"index": 0, "delta": {"content": content}, "logprobs": None, "finish_reason": None}],
    }
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


EVENT_BYTES = len(event(0))


@lru_cache(maxsize=16)
def stream_payload(chunk_count: int) -> bytes:
    """All bytes of a stream's body, without HTTP's chunked framing."""
    return b"".join(event(number) for number in range(chunk_count)) + END_OF_STREAM


def frame(payload: bytes) -> bytes:
    """One HTTP/1.1 chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


@lru_cache(maxsize=16)
def stream_frames(chunk_count: int) -> tuple[bytes, ...]:
    """The writes of one stream after its head: one per event, one for [DONE], one for the end of the body."""
    events = [frame(event(number)) for number in range(chunk_count)]
    return (*events, frame(END_OF_STREAM), b"0\r\n\r\n")


@lru_cache(maxsize=16)
def stream_framed(chunk_count: int) -> bytes:
    """The body as the worker frames it, for routers that pass the framing on untouched."""
    return b"".join(stream_frames(chunk_count))


STAMP = slice(frame(event(0)).index(_NO_STAMP.encode()), frame(event(0)).index(_NO_STAMP.encode()) + len(_NO_STAMP))
"""Where in a framed event its stamp stands: 12 hex digits in its id."""


def now_us() -> int:
    """The clock of stamps; on Linux all processes of a machine read the same one."""
    return time.monotonic_ns() // 1_000


def stamped(framed_event: bytes) -> bytes:
    """A framed event that says when it was written."""
    return b"%b%012x%b" % (framed_event[: STAMP.start], now_us(), framed_event[STAMP.stop :])


def completion_body() -> bytes:
    """The body of every non-stream answer."""
    completion = {
        "id": "chatcmpl-5f3a9c0d7e21",
        "object": "chat.completion",
        "created": 1700000000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The bees dance to say where the flowers are. " * 4},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100},
    }
    return json.dumps(completion, separators=(",", ":")).encode()


def json_response(body: bytes, *, status: bytes = b"200 OK") -> bytes:
    """A whole response with a content-length."""
    head = b"HTTP/1.1 %b\r\nserver: fake\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def request_body(*, chunk_count: int, pace_per_s: int, stream: bool, session: int) -> bytes:
    """A chat request of some 400 bytes; ``max_tokens`` asks for chunks and ``seed`` for a pace (0 = no pause).

    A pace below 0 is the same pace with a stamp in every event.

    Both ride in fields every router passes on, because the queen drops the ones it does not know.
    """
    question = f"Session {session:04d}. " + "Where do the bees of this hive find their nectar today? " * 4
    request = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You answer in one short sentence."},
            {"role": "user", "content": question},
        ],
        "max_tokens": chunk_count,
        "seed": pace_per_s,
        "temperature": 0.0,
        "stream": stream,
    }
    return json.dumps(request, separators=(",", ":")).encode()
