"""What policy scripts are told, as plain values: the names here are what scripts are written against.

None may be a word of the language: there is no fact called ``load``, ``in`` or ``class``.
"""

from __future__ import annotations

from collections.abc import Iterable

from swarmesh.core.fleet import Worker
from swarmesh.core.ids import ModelName
from swarmesh.core.ledger import CHARS_PER_TOKEN
from swarmesh.core.placement import HostCandidate, HostVerdict
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scale_view import ScaleStats
from swarmesh.core.script import Facts
from swarmesh.core.task import Task


def task_facts(task: Task, now_ms: int) -> Facts:
    """A task, without its text."""
    return {
        "id": task.task_id,
        "model": task.model,
        "priority": task.priority.value,
        "key": task.key_id,
        "durable": task.durable,
        "prompt_chars": task.prompt_chars,
        "prompt_tokens": task.prompt_chars // CHARS_PER_TOKEN,
        "max_tokens": task.max_tokens,
        "attempt": task.attempt + 1,
        "waited_ms": max(0, now_ms - task.submitted_at_ms),
    }


def slots_of(workers: Iterable[Worker]) -> tuple[int, int]:
    """All slots of these workers, and how many of them are free."""
    slots = free = 0
    for worker in workers:
        slots += worker.slots
        free += worker.slots_free
    return slots, free


def worker_facts(
    worker: Worker,
    now_ms: int,
    score: float = 0.0,
    cached_tokens: float = 0.0,
    all_slots: tuple[int, int] = (0, 0),
) -> Facts:
    """A worker that could take a task.

    Args:
        worker: Which one.
        now_ms: The time.
        score: What the built-in policy compares it by.
        cached_tokens: What it has read of the prompt.
        all_slots: What `slots_of` says of all that serve its model: a script is told of those only that are free.
    """
    used = len(worker.running)
    return {
        "id": worker.worker_id,
        "model": worker.model,
        "host": worker.host,
        "backend": worker.backend,
        "status": worker.status.value,
        "slots": worker.slots,
        "slots_used": used,
        "slots_free": worker.slots_free,
        "all_slots": all_slots[0],
        "all_slots_free": all_slots[1],
        "load_ratio": used / worker.slots if worker.slots else 1.0,
        "backlog_tokens": worker.backlog,
        "speed": worker.pace.speed(worker.pace.rated),
        "quality": worker.quality,
        "trail": worker.trail.quality(now_ms),
        "proximity": worker.proximity,
        "vram_used_mib": worker.vram_used_mib,
        "uptime_s": max(0, now_ms - worker.registered_at_ms) / 1_000,
        "cached_tokens": cached_tokens,
        "score": score,
    }


def host_facts(candidate: HostCandidate, verdict: HostVerdict | None = None) -> Facts:
    """A host on which a worker could be started; with what the built-in votes say of it."""
    return {
        "name": candidate.host,
        "backend": candidate.backend,
        "need_mib": candidate.need_mib,
        "free_mib": sum(pool.free_mib for pool in candidate.pools),
        "total_mib": sum(pool.total_mib for pool in candidate.pools),
        "file_there": candidate.file_there,
        "proximity": candidate.proximity,
        "workers": candidate.workers,
        "slots": candidate.slots,
        "speed": candidate.speed,
        "load_ratio": candidate.load,
        **({f"vote_{name.replace(' ', '_')}": vote for name, vote in verdict.votes} if verdict is not None else {}),
        "score": verdict.score if verdict is not None else 0.0,
    }


def model_facts(model: ModelName, bounds: Bounds | None = None, workers: int = 0) -> Facts:
    """A model that is placed or scaled; ``workers`` are those it has or is being given."""
    return {
        "name": model,
        "workers": workers,
        "min_workers": bounds.min_workers if bounds is not None else 0,
        "max_workers": bounds.max_workers if bounds is not None else workers,
    }


def stats_facts(stats: ScaleStats, target: int) -> Facts:
    """What is asked of a model; ``target`` is how many workers the built-in rule would give it."""
    return {
        "serving": stats.serving,
        "starting": stats.starting,
        "slots": stats.slots,
        "busy": stats.busy,
        "load_ratio": stats.load,
        "waiting": stats.waiting,
        "wait_ms": stats.wait_ms,
        "latency_ms": stats.latency_ms,
        "idle_ms": stats.idle_ms,
        "target": target,
    }
