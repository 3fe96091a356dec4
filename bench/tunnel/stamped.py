"""Streams whose events say when they were written: the time each of them was on its way, byte for byte checked."""

from __future__ import annotations

from bench.relay import answers
from bench.relay.driver import Load, StreamClient
from bench.relay.responses import WrongAnswerError

FRAME_BYTES = len(answers.frame(answers.event(0)))


class StampedLoad(Load):
    """A load that also keeps how long every event was on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.delays_us: list[int] = []


class StampedClient(StreamClient):
    """As its base, for answers that are framed as the worker framed them; any other framing is a wrong answer."""

    def __init__(self, load: StampedLoad, request: bytes, chunk_count: int) -> None:
        super().__init__(load, request, chunk_count)
        self._delays_us = load.delays_us
        self._frames = answers.stream_frames(chunk_count)
        self._tail = b"".join(self._frames[chunk_count:])

    def begin(self) -> None:
        """Forgets the last stream."""
        super().begin()
        self._received = b""
        self._in_body = False

    def take(self, data: bytes) -> None:
        """Compares every whole event but for its stamp, and notes its age."""
        now_us = answers.now_us()
        self._received += data
        if not self._in_body and not self._take_head():
            return
        at = 0
        while self._chunks < self._chunk_count and at + FRAME_BYTES <= len(self._received):
            self._take_event(self._received[at : at + FRAME_BYTES], now_us)
            at += FRAME_BYTES
        self._received = self._received[at:]
        if self._chunks == self._chunk_count and len(self._received) >= len(self._tail):
            self._finish(complete=self._received == self._tail)

    def _take_head(self) -> bool:
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return False
        if not (head.startswith(b"HTTP/1.1 200") and b"chunked" in head.lower()):
            raise WrongAnswerError(f"{head[:80]!r} {rest[:300]!r}")
        self._in_body, self._received = True, rest
        return True

    def _take_event(self, framed: bytes, now_us: int) -> None:
        stamp, expected = answers.STAMP, self._frames[self._chunks]
        if framed[: stamp.start] != expected[: stamp.start] or framed[stamp.stop :] != expected[stamp.stop :]:
            raise WrongAnswerError(f"chunk {self._chunks} differs: {framed[:300]!r}")
        self._delays_us.append(now_us - int(framed[stamp], 16))
        self._count(self._chunks + 1)
