"""What virtual engines answer: a sequence of tokens, one byte each, that depends on the task and nothing else."""

from __future__ import annotations

import hashlib

from swarmesh.core.ids import TaskId


def whole_answer(task_id: TaskId, tokens: int) -> bytes:
    """The final text of a task; every engine gives the same."""
    return hashlib.shake_128(task_id.encode()).digest(tokens)


def continuation(whole: bytes, shown: bytes) -> bytes:
    """What an engine adds to a beginning: the rest of the answer if it is one, other words of the same length if not.

    An engine sees only the tokens that it is given, so that a queen who hands on a wrong beginning gets a wrong end.
    """
    if whole.startswith(shown):
        return whole[len(shown) :]
    left = max(0, len(whole) - len(shown))
    return hashlib.shake_128(whole[:16] + shown).digest(left)
