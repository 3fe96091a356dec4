"""Tasks that nobody can take at the moment: who of them waits, and for how long."""

from __future__ import annotations

from core_hive import Hive
from swarmesh.core.commands import BreakStream, FailTask
from swarmesh.core.patience import PATIENCE_MS


def test_a_durable_task_whose_only_worker_is_lost_waits_for_another_as_it_would_have_before_it_ran() -> None:
    hive = Hive("a")
    hive.submit("kept", durable=True)
    hive.gone("a")
    hive.cut_as_asked()
    assert hive.waiting() == ["kept"]
    hive.wait(2 * PATIENCE_MS)
    hive.register("b")
    assert hive.starts() == [("kept", "b", 2)]


def test_an_interactive_task_whose_only_worker_is_lost_is_told_at_once() -> None:
    hive = Hive("a")
    hive.submit("t")
    hive.gone("a")
    hive.cut_as_asked()
    assert hive.failures() == {"t": "rustbee_lost"}


def test_patience_is_counted_from_when_hope_was_lost() -> None:
    hive = Hive("a")
    hive.submit("runs")
    hive.submit("waits")
    hive.now_ms += 5 * PATIENCE_MS
    hive.waggle("a")
    hive.alarm("a")
    hive.cut("runs")
    hive.tick(0)
    hive.tick(PATIENCE_MS)
    assert hive.waiting() == ["waits"]
    hive.tick(1)
    assert hive.failure().code == "no_rustbees_available"
    assert hive.waiting() == []


def test_hope_that_returns_starts_patience_anew() -> None:
    hive = Hive("a")
    hive.submit("runs")
    hive.submit("waits")
    for _ in range(3):
        hive.alarm("a")
        hive.tick(PATIENCE_MS - 1)
        hive.waggle("a", ready=False)
        hive.tick(1)
    assert hive.waiting() == ["waits"]


def test_nobody_waits_forever_for_workers_that_all_failed_it() -> None:
    hive = Hive("a", "b")
    hive.submit("t1")
    hive.submit("t2")
    hive.cut("t1", final=True)  # b is busy, so it waits for b.
    hive.gone("b")
    hive.tick(0)
    for _ in range(2):
        hive.tick(PATIENCE_MS // 2)
        hive.waggle("a")
    assert hive.waiting() == ["t1"]
    hive.tick(1)
    assert hive.failure().message == "no stable rustbee serves 'qwen': a is healthy and failed this task"


def test_durable_tasks_are_patient() -> None:
    hive = Hive("a")
    hive.submit("runs")
    hive.submit("waits", durable=True)
    hive.gone("a")
    hive.tick(0)
    hive.tick(100 * PATIENCE_MS)
    assert hive.waiting() == ["waits"]


def test_lost_patience_fails_tasks_in_the_order_of_their_models() -> None:
    hive = Hive()
    names = [f"model-{number}" for number in range(20)]
    for name in names:
        hive.register(f"w-{name}", model=name, ready=False)
        hive.submit(f"t-{name}", model=name)
    for name in names:
        hive.gone(f"w-{name}")
    hive.tick(0)
    hive.tick(PATIENCE_MS + 1)
    assert [c.task_id for c in hive.last if isinstance(c, FailTask)] == [f"t-{name}" for name in names]


def test_a_worker_that_goes_takes_no_task_with_it() -> None:
    hive = Hive("a", "b", slots=2)
    hive.submit("t")
    hive.gone("a")
    assert hive.only(BreakStream).task_id == "t"
    hive.cut("t")
    assert hive.starts() == [("t", "b", 2)]
