"""The queen's own books of work, and what a task would cost on each worker by them.

Charged when a task is dispatched, settled when its stream ends. Nothing here is scraped from workers: a burst that
arrives between two waggles spreads, because each dispatch is seen by the next decision (the herd effect of stale load
reports is what this avoids).
"""

from __future__ import annotations

from typing import Final

from swarmesh.core.fleet import Worker
from swarmesh.core.task import Task

CHARS_PER_TOKEN: Final = 4
"""Rough length of a token in English text; only ratios of predictions matter."""
PREFILL_WEIGHT: Final = 0.1
"""Reading a prompt token costs about a tenth of writing one: prefill is batched, decoding is not."""
DEFAULT_OUTPUT_TOKENS: Final = 256
"""What is assumed of a task whose client set no bound, before any has ended."""


def predicted_work(
    unread_tokens: float,
    max_tokens: int,
    output_tokens: float = DEFAULT_OUTPUT_TOKENS,
    prefill_weight: float = PREFILL_WEIGHT,
) -> float:
    """Work of a task in token-equivalents: what it may write plus the weighted cost of reading it.

    Args:
        unread_tokens: Of the prompt, those that have to be read.
        max_tokens: Bound of the answer; 0 for none.
        output_tokens: What is assumed of a task without a bound, or with a higher one.
        prefill_weight: What reading a token takes, writing one being 1.
    """
    written = float(max_tokens) if 0 < max_tokens < output_tokens else output_tokens
    return written + prefill_weight * unread_tokens


def charge(worker: Worker, task: Task, work: float) -> None:
    """Enter a task into a worker's books; one task is never charged twice."""
    assert task.task_id not in worker.running, "a task is charged once per dispatch"
    task.charge = work
    task.worker_id = worker.worker_id
    worker.running[task.task_id] = work
    worker.backlog += work


def settle(worker: Worker, task: Task) -> None:
    """Strike a task from a worker's books; harmless when the worker was registered anew since."""
    charged = worker.running.pop(task.task_id, None)
    if charged is not None:
        # Sums of floats drift; an empty book is exactly zero again.
        worker.backlog = worker.backlog - charged if worker.running else 0.0
