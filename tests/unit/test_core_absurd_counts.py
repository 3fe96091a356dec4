"""Counts that cannot be: they teach nothing, charge nobody, and keep no slot."""

from __future__ import annotations

from collections import Counter

import pytest

from core_hive import Hive
from swarmesh.core.events import TOKENS_TOLD_MAX, KeyLimited, StreamEnded
from swarmesh.core.ids import KeyId, ModelName, TaskId


@pytest.mark.parametrize("tokens", [10**400, 10**300, TOKENS_TOLD_MAX + 1, -1, -(10**6)])
@pytest.mark.parametrize("field", ["completion_tokens", "prompt_tokens"])
def test_they_count_as_not_told(tokens: int, field: str) -> None:
    hive = Hive("a")
    hive.tell(KeyLimited(KeyId("ada"), 0, 100))
    hive.submit("t1")
    hive.now_ms += 1_000
    hive.tell(StreamEnded(TaskId("t1"), 1, **{"completion_tokens": 5, "prompt_tokens": 5, field: tokens}))
    assert hive.running("a") == []
    assert not hive.swarm.dispatcher.tasks
    book = hive.swarm.dispatcher.limits.of(KeyId("ada"))
    assert (book.tokens, book.left, book.taken, book.running) == (0, 80, 0, 0)
    hive.submit("t2")
    assert hive.starts() == [("t2", "a", 1)]


def test_one_report_of_an_absurd_speed_draws_nobody() -> None:
    hive = Hive("a", "b", slots=4)
    for name in ("t1", "t2"):
        hive.submit(name)
    hive.now_ms += 1_000
    for task in list(hive.swarm.dispatcher.tasks.values()):
        tokens = TOKENS_TOLD_MAX if task.worker_id == "a" else 50
        hive.tell(StreamEnded(task.task_id, 1, tokens, 10))
    assert hive.swarm.router._books[ModelName("qwen")].costs.output_tokens < 1_000
    went: Counter[str] = Counter()
    for number in range(100):
        hive.submit(f"z{number}")
        task = hive.task(f"z{number}")
        went[str(task.worker_id)] += 1
        hive.now_ms += 1_000
        hive.tell(StreamEnded(task.task_id, 1, 50, 10))
    assert hive.worker("a").pace.rated < 2 * hive.worker("b").pace.rated


def test_nothing_that_goes_wrong_in_learning_keeps_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    hive = Hive("a")
    hive.submit("t1")
    monkeypatch.setattr("swarmesh.core.model_book.ModelBook.learn", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        hive.tell(StreamEnded(TaskId("t1"), 1, 5, 5))
    assert hive.running("a") == []
