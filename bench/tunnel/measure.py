"""The measurements of one way to the workers. Each checks every answer byte for byte, as the relay's do."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from bench.relay.driver import Client, Load, StreamClient, Target, running
from bench.relay.measure import MICROSECONDS, MILLISECONDS, PACE_PER_S, PACED_CHUNKS, Figures, Window
from bench.relay.process_tree import ProcessTree

from .stamped import StampedClient, StampedLoad
from .ways import Direct

STREAMS: Final = (1, 10, 50, 200)
CHUNKS_AT_ONCE: Final = 64_000
"""Of all streams together at full speed, so that many streams end about as soon as few."""
CHUNKS_PER_STREAM_MAX: Final = 20_000
NANOSECONDS_PER_S: Final = 1e9


@dataclass(frozen=True)
class Lengths:
    """How long each steady window is, and how often everything is repeated."""

    rounds: int = 3
    warm_up_s: float = 0.7
    alone_s: float = 1.0
    paced_s: float = 3.0
    full_s: float = 2.0


QUICK: Final = Lengths(rounds=1, warm_up_s=0.5, alone_s=0.5, paced_s=1.5, full_s=1.0)


def cpu_s(tree: ProcessTree) -> float:
    """Processor time of all threads of a tree that are alive, in seconds.

    By the scheduler's own books, in nanoseconds: a paced stream costs less than the 10 ms that other counters count in.
    """
    total_ns = 0
    for process in tree.processes():
        for thread in process.threads():
            try:
                with open(f"/proc/{process.pid}/task/{thread.id}/schedstat", encoding="ascii") as file:  # noqa: PTH123 - read often
                    total_ns += int(file.read().split()[0])
            except FileNotFoundError:
                continue  # It has ended since.
    return total_ns / NANOSECONDS_PER_S


class PartsWindow:
    """A steady stretch of load, and what each part of the way did in it.

    "Others" are those who used the queen's core beside her and ``ssh``.
    """

    def __init__(self, way: Direct, load: Load) -> None:
        self._parts = way.parts
        self._begin = {name: cpu_s(tree) for name, tree in self._parts.items()}
        self.whole = Window(way.tree, load)

    def close(self) -> None:
        """Ends the stretch."""
        self.whole.close()
        self.cpu_s = {name: cpu_s(tree) - self._begin[name] for name, tree in self._parts.items()}

    def figures(self) -> Figures:
        """Chunks a second, microseconds of each part per chunk, and how busy each was, from 0 to 1."""
        chunks, seconds = self.whole.chunks, self.whole.seconds
        costs = {f"{name}_us_per_chunk": used_s / chunks * MICROSECONDS for name, used_s in self.cpu_s.items()}
        busy = {f"{name}_busy": used_s / seconds for name, used_s in self.cpu_s.items()}
        every_us = sum(self.cpu_s.values()) / chunks * MICROSECONDS
        others_s = max(0.0, self.whole.others_s - self.cpu_s.get("ssh", 0.0))
        shares = {**busy, "others_busy": others_s / seconds}
        return {"chunks_per_s": chunks / seconds, "us_per_chunk": every_us, **costs, **shares}


@asynccontextmanager
async def _window(
    way: Direct, clients: list[Client], load: Load, warm_up_s: float, seconds: float
) -> AsyncIterator[PartsWindow]:
    async with running(way.target, clients, load, spread_s=warm_up_s):
        await load.run_for(warm_up_s)
        load.first_token_s.clear()
        if isinstance(load, StampedLoad):
            load.delays_us.clear()
        window = PartsWindow(way, load)
        await load.run_for(seconds)
        window.close()
        yield window


async def alone(way: Direct, lengths: Lengths) -> Figures:
    """One stream of one chunk after the other on one connection: the first token when nothing else goes on."""
    load = Load()
    clients: list[Client] = [StreamClient(load, _request(way.target, 1, 0, 0), 1)]
    async with _window(way, clients, load, lengths.warm_up_s, lengths.alone_s) as window:
        return {**_milliseconds("first_token", load.first_token_s, 1.0), **window.figures()}


async def paced(way: Direct, streams: int, lengths: Lengths) -> Figures:
    """Streams at the pace of an engine: the time each chunk, and each first one, is on its way."""
    load = StampedLoad()
    clients: list[Client] = [
        StampedClient(load, _request(way.target, PACED_CHUNKS, -PACE_PER_S, index), PACED_CHUNKS)
        for index in range(streams)
    ]
    async with _window(
        way, clients, load, max(lengths.warm_up_s, PACED_CHUNKS / PACE_PER_S), lengths.paced_s
    ) as window:
        return {**_milliseconds("delay", load.delays_us, 1 / MICROSECONDS), **window.figures()}


async def full_speed(way: Direct, streams: int, lengths: Lengths) -> Figures:
    """As fast as the way goes; the starts of the streams are in the figures."""
    load = Load()
    count = min(CHUNKS_PER_STREAM_MAX, CHUNKS_AT_ONCE // streams)
    clients: list[Client] = [
        StreamClient(load, _request(way.target, count, 0, index), count) for index in range(streams)
    ]
    async with _window(way, clients, load, lengths.warm_up_s, lengths.full_s) as window:
        return window.figures()


def _request(target: Target, chunk_count: int, pace_per_s: int, session: int) -> bytes:
    return target.request(chunk_count=chunk_count, pace_per_s=pace_per_s, stream=True, session=session)


def _milliseconds(name: str, values: list[float] | list[int], seconds_each: float) -> Figures:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    p50, p99 = (cuts[index] * seconds_each * MILLISECONDS for index in (49, 98))
    return {f"{name}_ms_p50": p50, f"{name}_ms_p99": p99, f"{name}_samples": float(len(values))}
