"""The six measurements. Each loads one target, takes its figures in a steady window and checks every answer."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .driver import Client, CompletionClient, Load, StreamClient, Target, running
from .process_tree import ROUTER_CORE, ProcessTree, core_busy_s
from .responses import WrongAnswerError

CONNECTIONS = 32
CHUNKS_PER_STREAM = 2_000
CHUNKS_PER_STEPPED_STREAM = 200
STEPPED_STREAMS = 64
STEPS_PER_S = 400
PACED_STREAMS = 100
PACED_CHUNKS = 20
PACE_PER_S = 30
OPEN_STREAMS = 1_000
OPEN_PACE_PER_S = 10
OPEN_SPREAD_S = 2.0
MICROSECONDS = 1e6
MILLISECONDS = 1e3


Figures = dict[str, float]


@dataclass(frozen=True)
class Plan:
    """How long the steady window of each measurement is, in seconds, and how often it is repeated."""

    rounds: int = 5
    slow_rounds: int = 3
    warm_up_s: float = 0.5
    requests_s: float = 1.5
    chunks_s: float = 1.5
    stepped_s: float = 1.5
    starts_s: float = 1.0
    first_token_s: float = 3.0
    open_chunks: int = 100


QUICK = Plan(
    rounds=2,
    slow_rounds=1,
    warm_up_s=0.3,
    requests_s=0.8,
    chunks_s=0.8,
    stepped_s=0.8,
    starts_s=0.5,
    first_token_s=2.0,
    open_chunks=40,
)


class Window:
    """A steady stretch of load: what the router's processes and its core did in the meantime."""

    def __init__(self, tree: ProcessTree | None, load: Load) -> None:
        self._tree = tree
        self._load = load
        self._begin = self._now()
        self.seconds = self.cpu_s = self.others_s = 0.0
        self.answers = self.chunks = 0

    def _now(self) -> tuple[float, float, float, int, int]:
        cpu_s = self._tree.cpu_s() if self._tree else 0.0
        return time.perf_counter(), cpu_s, core_busy_s(ROUTER_CORE), self._load.answers, self._load.chunks

    def close(self) -> None:
        """Ends the stretch and works out its figures."""
        delta = [after - before for after, before in zip(self._now(), self._begin, strict=True)]
        self.seconds, self.cpu_s, core_s = delta[:3]
        self.others_s = max(0.0, core_s - self.cpu_s)
        self.answers, self.chunks = int(delta[3]), int(delta[4])
        if self.answers + self.chunks == 0:
            raise WrongAnswerError(f"no answer in {self.seconds:.1f} s")

    def shares(self) -> dict[str, float]:
        """How busy the router was, and how much of its core somebody else used, from 0 to 1."""
        return {"router_busy": self.cpu_s / self.seconds, "others_busy": self.others_s / self.seconds}


@asynccontextmanager
async def _window(
    target: Target, tree: ProcessTree | None, clients: list[Client], load: Load, warm_up_s: float, seconds: float
) -> AsyncIterator[Window]:
    async with running(target, clients, load, spread_s=min(warm_up_s, 0.5)):
        await load.run_for(warm_up_s)
        window = Window(tree, load)
        await load.run_for(seconds)
        window.close()
        yield window


async def requests(target: Target, tree: ProcessTree | None, plan: Plan) -> Figures:
    """Non-stream requests on 32 keep-alive connections, as fast as they are answered."""
    load = Load()
    clients: list[Client] = [
        CompletionClient(load, target.request(chunk_count=40, pace_per_s=0, stream=False, session=index))
        for index in range(CONNECTIONS)
    ]
    async with _window(target, tree, clients, load, plan.warm_up_s, plan.requests_s) as window:
        return {
            "requests_per_s": window.answers / window.seconds,
            "cpu_us_per_request": window.cpu_s / window.answers * MICROSECONDS,
            **window.shares(),
        }


def _stream_clients(target: Target, load: Load, *, streams: int, chunk_count: int, pace_per_s: int) -> list[Client]:
    return [
        StreamClient(
            load,
            target.request(chunk_count=chunk_count, pace_per_s=pace_per_s, stream=True, session=index),
            chunk_count,
        )
        for index in range(streams)
    ]


async def chunks(target: Target, tree: ProcessTree | None, plan: Plan) -> Figures:
    """32 streams of 2,000 chunks as fast as they go; the starts of the streams are in the figure."""
    load = Load()
    clients = _stream_clients(target, load, streams=CONNECTIONS, chunk_count=CHUNKS_PER_STREAM, pace_per_s=0)
    async with _window(target, tree, clients, load, plan.warm_up_s, plan.chunks_s) as window:
        return {
            "chunks_per_s": window.chunks / window.seconds,
            "cpu_us_per_chunk": window.cpu_s / window.chunks * MICROSECONDS,
            **window.shares(),
        }


async def stepped(target: Target, tree: ProcessTree | None, plan: Plan) -> Figures:
    """64 streams that each get a chunk 400 times a second: no router can gather two chunks into one read."""
    load = Load()
    clients = _stream_clients(
        target, load, streams=STEPPED_STREAMS, chunk_count=CHUNKS_PER_STEPPED_STREAM, pace_per_s=STEPS_PER_S
    )
    async with _window(target, tree, clients, load, plan.warm_up_s, plan.stepped_s) as window:
        return {
            "stepped_chunks_per_s": window.chunks / window.seconds,
            "cpu_us_per_stepped_chunk": window.cpu_s / window.chunks * MICROSECONDS,
            **window.shares(),
        }


async def starts(target: Target, tree: ProcessTree | None, plan: Plan) -> Figures:
    """Streams of a single chunk on 32 connections: what starting and ending a stream costs."""
    load = Load()
    clients = _stream_clients(target, load, streams=CONNECTIONS, chunk_count=1, pace_per_s=0)
    async with _window(target, tree, clients, load, plan.warm_up_s, plan.starts_s) as window:
        return {
            "streams_per_s": window.answers / window.seconds,
            "cpu_us_per_stream": window.cpu_s / window.answers * MICROSECONDS,
            **window.shares(),
        }


async def first_token(target: Target, tree: ProcessTree | None, plan: Plan) -> Figures:
    """100 streams at 30 chunks/s each: time from the request's write to its first chunk."""
    load = Load()
    clients = _stream_clients(target, load, streams=PACED_STREAMS, chunk_count=PACED_CHUNKS, pace_per_s=PACE_PER_S)
    async with running(target, clients, load, spread_s=PACED_CHUNKS / PACE_PER_S):
        await load.run_for(PACED_CHUNKS / PACE_PER_S + plan.warm_up_s)
        load.first_token_s.clear()
        window = Window(tree, load)
        await load.run_for(plan.first_token_s)
        window.close()
    cuts = statistics.quantiles(load.first_token_s, n=100, method="inclusive")
    return {
        "first_token_ms_p50": cuts[49] * MILLISECONDS,
        "first_token_ms_p99": cuts[98] * MILLISECONDS,
        "samples": float(len(load.first_token_s)),
        "cpu_us_per_paced_chunk": window.cpu_s / window.chunks * MICROSECONDS,
        **window.shares(),
    }


async def memory(target: Target, tree: ProcessTree | None, plan: Plan) -> Figures:
    """1,000 streams open at once, 10 chunks/s each; the peak from when all flow until the first one ends."""
    assert tree is not None, "memory is measured of a process"
    load = Load()
    idle = tree.memory_mib()
    clients = _stream_clients(
        target, load, streams=OPEN_STREAMS, chunk_count=plan.open_chunks, pace_per_s=OPEN_PACE_PER_S
    )
    stream_s = plan.open_chunks / OPEN_PACE_PER_S
    rss = pss = 0.0
    async with running(target, clients, load, spread_s=OPEN_SPREAD_S):
        began_s = time.monotonic()
        await load.run_for(OPEN_SPREAD_S + 0.3)
        assert load.open_streams == OPEN_STREAMS, f"only {load.open_streams} streams are open"
        window = Window(tree, load)
        while time.monotonic() - began_s < stream_s - 0.5:
            await load.run_for(0.5)
            sample = tree.memory_mib()
            rss, pss = max(rss, sample.rss), max(pss, sample.pss)
        window.close()
        flowed = load.chunks / OPEN_STREAMS
        assert load.open_streams == OPEN_STREAMS, f"only {load.open_streams} streams are open"
    return {
        "rss_mib": rss,
        "pss_mib": pss,
        "rss_mib_idle": idle.rss,
        "chunks_per_open_stream": flowed,
        "cpu_us_per_open_chunk": window.cpu_s / window.chunks * MICROSECONDS,
        **window.shares(),
    }


MEASUREMENTS = {
    "requests": requests,
    "chunks": chunks,
    "stepped": stepped,
    "starts": starts,
    "first_token": first_token,
    "memory": memory,
}


def rounds_of(plan: Plan, measurement: str) -> int:
    """How often a measurement is repeated: memory once, since it is a peak and not a rate."""
    if measurement == "memory":
        return 1
    return plan.slow_rounds if measurement in {"stepped", "starts", "first_token"} else plan.rounds
