"""A wire that can be made bad: a TCP proxy that delays, trickles, passes one way only or nothing at all, or breaks."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

CHUNK_BYTES: Final = 16 * 1024
CHUNKS_HELD_MAX: Final = 256
"""Of each direction: what is on its way when a delay is long; a sender of more than that has to wait."""
CONTROL_TIMEOUT_S: Final = 10.0
RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)


class Way(StrEnum):
    """A direction; ``up`` leads from whoever connected to the target."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True)
class Trickle:
    """So many bytes, then a pause."""

    bytes_at_once: int
    interval_ms: float


@dataclass(frozen=True)
class Faults:
    """How the wire is at the moment, for connections that exist and for new ones.

    Attributes:
        delay_ms: Each way.
        stopped: Ways on which nothing passes, an end neither; nobody is told. A connection made meanwhile is taken and
            led to the target later.
        trickle: Pace of each connection each way.
    """

    delay_ms: float = 0.0
    stopped: frozenset[Way] = frozenset()
    trickle: Trickle | None = None


GOOD: Final = Faults()
CUT: Final = Faults(stopped=frozenset(Way))
HALF_OPEN: Final = Faults(stopped=frozenset({Way.DOWN}))
"""What is sent arrives, but no answer ever comes."""


@dataclass
class Traffic:
    """What has passed so far.

    Attributes:
        made: Connections in all.
        open: Connections at this moment.
        open_max: The most there were at a time.
        held: Those of them that whoever connected has not ended, as far as that has come through the wire.
        held_max: The most of these at a time; how soon the target lets go of its end does not count.
        bytes_up: That the target was given.
        bytes_down: That it gave.
    """

    made: int = 0
    open: int = 0
    open_max: int = 0
    held: int = 0
    held_max: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class FaultProxy:
    """One target behind one port of this machine. Made by `fault_proxy`; every method may be called by any thread.

    Attributes:
        port: Of 127.0.0.1, where to connect.
        traffic: Counts; only to be read.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.traffic = Traffic()
        self._target = (host, port)
        self._faults = GOOD
        self._writers: set[asyncio.StreamWriter] = set()
        self._links: set[asyncio.Task[Any]] = set()
        self._held: set[asyncio.Task[Any]] = set()
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def faults(self) -> Faults:
        """How the wire is now."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._do(self._take, faults)

    def drop(self) -> None:
        """Break every connection off with a reset, as a router does that has forgotten them."""
        self._do(self._reset)

    async def serve(self, listening: threading.Event) -> None:
        """Pass everything on until `close`."""
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK_BYTES)
        self.port = server.sockets[0].getsockname()[1]
        listening.set()
        await self._over.wait()
        server.close()
        links = set(self._links)
        self._reset()
        await asyncio.gather(*links, return_exceptions=True)

    def close(self) -> None:
        """End `serve`, and every connection."""
        self._do(self._over.set)

    def _do(self, action: Any, *args: Any) -> None:
        """Have the loop's thread do something and wait until it is done."""
        assert self._loop is not None, "it serves"
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (action(*args), done.set()))
        assert done.wait(CONTROL_TIMEOUT_S), "the proxy's loop stands still"

    def _take(self, faults: Faults) -> None:
        self._faults = faults
        self._changed.set()
        self._changed = asyncio.Event()

    def _reset(self) -> None:
        for writer in self._writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            writer.transport.abort()
        for link in self._links:
            link.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None, "a server's callback is a task"
        self._links.add(link)
        traffic = self.traffic
        traffic.made += 1
        traffic.open += 1
        traffic.open_max = max(traffic.open_max, traffic.open)
        traffic.held += 1
        traffic.held_max = max(traffic.held_max, traffic.held)
        self._held.add(link)
        try:
            with self._known(writer):
                await self._passing(Way.UP)
                await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()  # The target is not there, or the wire is rolled up.
        finally:
            traffic.open -= 1
            self._let_go(link)
            self._links.discard(link)

    def _let_go(self, link: asyncio.Task[Any]) -> None:
        if link in self._held:
            self._held.discard(link)
            self.traffic.held -= 1

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_connection(*self._target, limit=CHUNK_BYTES)
        link = asyncio.current_task()
        assert link is not None, "`_accept` is one"
        with self._known(target_writer):
            for each in (writer, target_writer):
                each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._carry(Way.UP, reader, target_writer, lambda: self._let_go(link)))
                ways.create_task(self._carry(Way.DOWN, target_reader, writer, lambda: None))

    @contextmanager
    def _known(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _carry(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ended: Callable[[], None]
    ) -> None:
        """One direction: what is read at a time is written when it is due, and an end of it is passed on as well."""
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_HELD_MAX)
        arriving = asyncio.create_task(self._read(reader, on_the_way, ended))
        try:
            while True:
                due_s, chunk = await on_the_way.get()
                await asyncio.sleep(due_s - asyncio.get_running_loop().time())
                await self._passing(way)
                if not chunk:
                    writer.write_eof()
                    return
                await self._write(way, chunk, writer)
                on_the_way.task_done()
        except OSError:
            writer.transport.abort()  # Whoever should have had this is gone; the other way finds out by itself.
        finally:
            arriving.cancel()

    async def _read(
        self, reader: asyncio.StreamReader, on_the_way: asyncio.Queue[tuple[float, bytes]], ended: Callable[[], None]
    ) -> None:
        chunk = b"-"
        while chunk:
            try:
                chunk = await reader.read(CHUNK_BYTES)
            except OSError:
                chunk = b""
            if not chunk:
                ended()
            await on_the_way.put((asyncio.get_running_loop().time() + self._faults.delay_ms / 1000, chunk))
            if not self._faults.delay_ms:
                await on_the_way.join()  # A wire that is not long holds nothing.

    async def _write(self, way: Way, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        while chunk:
            await self._passing(way)
            trickle = self._faults.trickle
            now, chunk = (
                (chunk, b"")
                if trickle is None
                else (
                    chunk[: trickle.bytes_at_once],
                    chunk[trickle.bytes_at_once :],
                )
            )
            writer.write(now)
            await writer.drain()
            if way is Way.UP:
                self.traffic.bytes_up += len(now)
            else:
                self.traffic.bytes_down += len(now)
            if trickle is not None:
                await asyncio.sleep(trickle.interval_ms / 1000)

    async def _passing(self, way: Way) -> None:
        while way in self._faults.stopped:
            await self._changed.wait()


@contextmanager
def fault_proxy(host: str, port: int = 22) -> Iterator[FaultProxy]:
    """A proxy to there, running in a thread of its own while the block lasts."""
    proxy = FaultProxy(host, port)
    listening = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve(listening)), name="fault proxy")
    thread.start()
    try:
        assert listening.wait(CONTROL_TIMEOUT_S), "the proxy does not listen"
        yield proxy
    finally:
        proxy.close()
        thread.join(CONTROL_TIMEOUT_S)
