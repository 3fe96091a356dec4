"""Facts of a swarm that does not exist: what every function of a script is tried with before it decides anything."""

from __future__ import annotations

from typing import Final

import msgspec

from swarmesh.core.fleet import Worker
from swarmesh.core.ids import HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.memory_pool import PoolFree
from swarmesh.core.placement import WEIGHTS, HostCandidate, HostVerdict
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scale_view import ScaleStats
from swarmesh.core.script import Facts, Hook
from swarmesh.core.script_facts import host_facts, model_facts, stats_facts, task_facts, worker_facts
from swarmesh.core.task import Task

_NOW_MS: Final = 600_000
_ALL_SLOTS: Final = (7, 3)
_SMALL: Final = ModelName("qwen2.5-0.5b")
_LARGE: Final = ModelName("llama-3.3-70b")


class Sample(msgspec.Struct, frozen=True):
    """One question.

    Attributes:
        title: What it is about, for people.
        arguments: What the function is given, in order; several of a kind are a list.
    """

    hook: Hook
    title: str
    arguments: tuple[Facts | tuple[Facts, ...], ...]


def samples(hook: Hook) -> tuple[Sample, ...]:
    """Questions a script may well be asked, the plain one first."""
    match hook:
        case Hook.ADMIT:
            return tuple(Sample(hook, _asks(priority), (_task(priority),)) for priority in Priority)
        case Hook.SCORE:
            return tuple(Sample(hook, _asks(priority), (_task(priority), _workers())) for priority in Priority)
        case Hook.PLACE:
            return tuple(Sample(hook, model, (model_facts(model, Bounds(0, 4), 1), _hosts())) for model in _MODELS)
        case Hook.SCALE:
            return tuple(
                Sample(hook, title, (model_facts(_SMALL, Bounds(0, 4), stats.serving), stats_facts(stats, target)))
                for title, stats, target in _STATS
            )


def _asks(priority: Priority) -> str:
    return f"a {priority} task"


def _task(priority: Priority) -> Facts:
    task = Task(
        task_id=TaskId(f"sample-{priority}"),
        model=_SMALL,
        priority=priority,
        key_id=KeyId("key-sample"),
        durable=False,
        prompt_chars=2_000,
        max_tokens=256,
        submitted_at_ms=_NOW_MS - 40,
        band=priority,
    )
    return task_facts(task, _NOW_MS)


def _workers() -> tuple[Facts, ...]:
    return (
        worker_facts(_worker("rustbee-3", "tower", "rocm", 1, 0), _NOW_MS, 0.2, all_slots=_ALL_SLOTS),
        worker_facts(_worker("rustbee-2", "laptop", "cpu", 2, 1), _NOW_MS, 0.8, all_slots=_ALL_SLOTS),
        worker_facts(_worker("rustbee-1", "localhost", "cuda", 4, 3), _NOW_MS, 1.5, 128.0, _ALL_SLOTS),
    )


def _worker(worker_id: str, host: str, backend: str, slots: int, busy: int) -> Worker:
    return Worker(
        worker_id=WorkerId(worker_id),
        model=_SMALL,
        backend=backend,
        host=HostName(host),
        location=f"http://{host}:9000",
        slots=slots,
        direct=False,
        registered_at_ms=0,
        status=WorkerStatus.HEALTHY,
        running={TaskId(f"{worker_id}-task-{number}"): 100.0 for number in range(busy)},
        backlog=100.0 * busy,
        reported=True,
    )


def _hosts() -> tuple[Facts, ...]:
    return (
        _host("localhost", "cuda", free_mib=16_000, total_mib=24_000, proximity=1.0, workers=1),
        _host("laptop", "cpu", free_mib=6_000, total_mib=16_000, proximity=0.8, workers=0),
        _host("tower", "rocm", free_mib=40_000, total_mib=48_000, proximity=0.5, workers=2),
    )


def _host(name: str, backend: str, *, free_mib: int, total_mib: int, proximity: float, workers: int) -> Facts:
    candidate = HostCandidate(
        host=HostName(name),
        need_mib=5_000,
        pools=(PoolFree("ram", free_mib, total_mib),),
        file_there=workers > 0,
        proximity=proximity,
        workers=workers,
        backend=backend,
        slots=4,
        speed=40.0 if workers else 0.0,
        load=0.5 if workers else 0.0,
    )
    verdict = HostVerdict(candidate.host, votes=tuple((vote, 0.5) for vote in WEIGHTS), score=0.5)
    return host_facts(candidate, verdict)


_MODELS: Final = (_SMALL, _LARGE)
_STATS: Final = (
    ("two rustbees, half busy", ScaleStats(serving=2, slots=8, busy=4, load=0.5, latency_ms=400), 2),
    ("tasks wait", ScaleStats(serving=1, slots=4, busy=4, load=1.0, waiting=12, wait_ms=3_000, latency_ms=6_000), 3),
    ("idle", ScaleStats(serving=1, slots=4, idle_ms=400_000), 0),
    ("nobody serves", ScaleStats(load=1.0, waiting=1, wait_ms=20), 1),
)
