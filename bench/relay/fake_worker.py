"""Fake OpenAI servers: one process, one event loop, a handful of ports or unix sockets.

``max_tokens`` of a request is the number of chunks, ``seed`` the pace in chunks per second: 0 is as fast as the
socket takes them, from STEPPED_PACE_PER_S on all streams step together, below it each keeps its own time, and below
0 every event also says when it was written. Every chunk is one write(2) of its own, as an engine that flushes each
token makes it.
Run as ``python -m bench.relay.fake_worker PORT|PATH...``; prints ``ready`` once all of them listen.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable

import msgspec
import uvloop

from . import answers

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 10 * 1024 * 1024

_COMPLETION = answers.json_response(answers.completion_body())
_NOT_FOUND = answers.json_response(b'{"error":{"message":"no such route"}}', status=b"404 Not Found")
_BAD_REQUEST = answers.json_response(b'{"error":{"message":"bad request"}}', status=b"400 Bad Request")

# What routers ask a worker before they trust it. /get_load is left out, as in engines other than SGLang: without
# it a router counts by itself.
_PROBES = {
    b"/health": b'{"status":"ok"}',
    b"/health_generate": b'{"status":"ok"}',
    b"/v1/models": b'{"object":"list","data":[{"id":"fake","object":"model","created":1700000000,"owned_by":"bench"}]}',
    b"/get_model_info": b'{"model_path":"fake","is_generation":true}',
    b"/model_info": b'{"model_path":"fake","is_generation":true}',
    b"/get_server_info": b'{"model_id":"fake","served_model_name":"fake","dp_size":1}',
    b"/server_info": b'{"model_id":"fake","served_model_name":"fake","dp_size":1}',
    b"/version": b'{"version":"0.0.0"}',
}
_PROBE_RESPONSES = {path: answers.json_response(body) for path, body in _PROBES.items()}


class Ask(msgspec.Struct):
    """The fields of a completion request that shape the answer."""

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    stream: bool = False


_decode = msgspec.json.Decoder(Ask).decode


class Beat:
    """Steps streams as continuous batching does: at every step each of them gets one chunk."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval_s: float) -> None:
        self.streams: set[Connection] = set()
        self._loop = loop
        self._interval_s = interval_s
        self._due_s = 0.0
        self._beating = False

    def add(self, connection: Connection) -> None:
        """Steps the connection too, until it leaves ``streams``."""
        self.streams.add(connection)
        if not self._beating:
            self._beating = True
            self._due_s = self._loop.time()
            self._schedule()

    def _schedule(self) -> None:
        self._due_s += self._interval_s
        if self._interval_s:
            self._loop.call_at(self._due_s, self._step)
        else:
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        for connection in tuple(self.streams):
            connection.write_next_chunk()
        self._beating = bool(self.streams)
        if self._beating:
            self._schedule()


class Engine:
    """The beats of one process: one as fast as it goes, one for each pace from STEPPED_PACE_PER_S on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._beats: dict[int, Beat] = {}

    def beat(self, pace_per_s: int) -> Beat | None:
        """The beat for a pace; None where every stream keeps its own time."""
        if 0 < pace_per_s < answers.STEPPED_PACE_PER_S:
            return None
        if pace_per_s not in self._beats:
            self._beats[pace_per_s] = Beat(self.loop, 1 / pace_per_s if pace_per_s else 0.0)
        return self._beats[pace_per_s]


class Connection(asyncio.Protocol):
    """One connection of a router, one request at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._received = b""
        self._frames: tuple[bytes, ...] = ()
        self._next_frame = 0
        self._stamped = False
        self._beat: Beat | None = None
        self._interval_s = 0.0
        self._due_s = 0.0
        self._blocked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop; a high-water mark of 0 says at once when the socket is full."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport.set_write_buffer_limits(high=0)
        self._fd: int = transport.get_extra_info("socket").fileno()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Called by the loop; a stream that ran ends."""
        self._fd = -1
        self._end_stream()

    def data_received(self, data: bytes) -> None:
        """Called by the loop; answers once head and body are there."""
        if self._received:
            data = self._received + data
        head_end = data.find(b"\r\n\r\n") + 4
        if head_end == 3:
            self._received = data
            return
        head = data[:head_end]
        length_at = head.lower().find(b"\r\ncontent-length:")
        length = int(head[length_at + 17 : head.find(b"\r\n", length_at + 17)]) if length_at >= 0 else 0
        if head_end > MAX_HEAD_BYTES or length > MAX_BODY_BYTES or self._frames:
            self._refuse("a head or body over the limit, or a second request during a stream")
        elif len(data) < head_end + length:
            self._received = data
        else:
            self._received = data[head_end + length :]
            self._answer(head, data[head_end : head_end + length])

    def _answer(self, head: bytes, body: bytes) -> None:
        request_line = head[: head.find(b"\r\n")]
        if request_line.startswith((b"POST /v1/chat/completions ", b"POST /v1/completions ")):
            try:
                ask = _decode(body)
            except msgspec.DecodeError as error:
                self._refuse(f"{error}; head {head!r}")
                return
            if ask.stream:
                self._start_stream(ask)
            else:
                self._write(_COMPLETION)
        elif request_line.endswith(b" HTTP/1.1"):
            path = request_line.split(b" ")[1].partition(b"?")[0]
            self._write(_PROBE_RESPONSES.get(path, _NOT_FOUND))
        else:  # sglang-router tries whether the worker speaks HTTP/2 by prior knowledge
            self._transport.close()

    def _refuse(self, why: str) -> None:
        print("fake worker: refused:", why, file=sys.stderr, flush=True)
        self._transport.write(_BAD_REQUEST)
        self._transport.close()

    def _start_stream(self, ask: Ask) -> None:
        chunk_count = ask.max_tokens or ask.max_completion_tokens or 1
        self._frames = answers.stream_frames(min(chunk_count, answers.MAX_CHUNKS))
        self._next_frame = 0
        self._write(answers.STREAM_HEAD)
        pace_per_s = ask.seed or 0
        self._stamped, pace_per_s = pace_per_s < 0, abs(pace_per_s)
        self._beat = self._engine.beat(pace_per_s)
        if self._beat is not None:
            self._beat.add(self)
        else:
            self._interval_s = 1 / pace_per_s
            self._due_s = self._engine.loop.time()
            self._write_paced()

    def _end_stream(self) -> None:
        self._frames = ()
        if self._beat is not None:
            self._beat.streams.discard(self)

    def _write_paced(self) -> None:
        # The last event, [DONE] and the end of the body leave together, as from an engine that has finished.
        events = len(self._frames) - 2
        self.write_next_chunk()
        if self._next_frame < events:
            self._due_s += self._interval_s
            self._engine.loop.call_at(self._due_s, self._write_paced)
        else:
            while self._frames:
                self.write_next_chunk()

    def write_next_chunk(self) -> None:
        """Writes one frame of the running stream; in a beat, not while the router has stopped reading."""
        if not self._frames:
            return
        if self._blocked and self._beat is not None:
            self._beat.streams.discard(self)
            return
        frame = self._frames[self._next_frame]
        if self._stamped and self._next_frame < len(self._frames) - 2:
            frame = answers.stamped(frame)
        self._next_frame += 1
        if self._next_frame == len(self._frames):
            self._end_stream()
        self._write(frame)

    def _write(self, data: bytes) -> None:
        # A transport gathers the writes of one turn of the loop into a single call; a real engine's tokens come
        # apart. So write(2) is called here, and the transport only gets what the socket does not take at once.
        written = 0
        if not self._blocked:
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                pass
            except OSError:
                self._end_stream()
                return
        if written < len(data):
            self._transport.write(data[written:])
            self._blocked = self._transport.get_write_buffer_size() > 0

    def pause_writing(self) -> None:
        """Called by the loop when the socket is full."""
        self._blocked = True

    def resume_writing(self) -> None:
        """Called by the loop when the socket takes bytes again; the beat goes on with this stream."""
        self._blocked = False
        if self._frames and self._beat is not None:
            self._beat.add(self)


async def serve(places: list[str]) -> None:
    """Listens on every port of the loopback address, or path of a socket, until the process is ended."""
    loop = asyncio.get_running_loop()
    engine = Engine(loop)
    protocol: Callable[[], Connection] = lambda: Connection(engine)  # noqa: E731 - a factory, typed
    servers: list[asyncio.Server] = []  # uvloop closes a unix server that nobody holds
    for place in places:
        if place.isdecimal():
            servers.append(await loop.create_server(protocol, "127.0.0.1", int(place), backlog=4096))
        else:
            servers.append(await loop.create_unix_server(protocol, place, backlog=4096))
    gc.collect()
    gc.disable()  # a collection in the fake worker would show up as a router's first-token time
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1:]))
