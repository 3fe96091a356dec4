"""Cellmorph when something goes wrong: room that does not come, models that crash, answers that must not be broken."""

from __future__ import annotations

import pytest

from scale_bed import Kind, ScaleBed, small_bed
from swarmesh.core.breaker import DISTRUST_MS
from swarmesh.core.scale_action import DRAIN_GRACE_MS, STOP_LIMIT_MS
from swarmesh.core.scale_moves import DOUBT_MS


def test_room_that_was_made_for_nothing_counts_as_a_failure() -> None:
    bed = small_bed("a", "b")
    bed.submit("a")
    bed.run(20_000)
    bed.submit("b")
    bed.run(300)
    assert bed.workers("a") == []
    bed.machines["elm"].memory_mib = 3_000
    bed.run(DOUBT_MS)
    assert bed.state("b").breaker_reason == ""
    bed.run(3_000)
    assert bed.state("b").breaker_reason.startswith("elm: needs 4000 MiB")
    task = bed.submit("a")
    bed.machines["elm"].memory_mib = 5_000
    bed.run(30_000)
    assert task in bed.done


def test_memory_that_is_freed_a_little_after_its_process_is_no_failure() -> None:
    bed = small_bed("a", "b")
    bed.submit("a")
    bed.run(20_000)
    task = bed.submit("b")
    bed.run(300)
    bed.machines["elm"].memory_mib = 3_000
    bed.run(8_000)
    assert not bed.workers("b")
    bed.machines["elm"].memory_mib = 5_000
    bed.run(8_000)
    assert task in bed.done
    assert bed.state("b").breaker_reason == ""


def test_what_is_free_is_not_kept_for_whom_a_busy_worker_will_make_room() -> None:
    bed = small_bed("a", "b", "c", memory_mib=8_500)
    bed.kinds["a"].task_ms = 300_000
    bed.kinds["b"].need_mib = 3_000
    bed.submit("a")
    bed.run(5_000)
    bed.submit("c")
    bed.run_until(lambda: not bed.workers("a"))
    small = bed.submit("b")
    bed.run(10_000)
    assert small in bed.done
    bed.run(300_000)
    assert bed.workers("c")


@pytest.mark.parametrize("resumable", [True, False])
def test_an_answer_that_could_only_start_over_is_not_broken_for_another_model(*, resumable: bool) -> None:
    bed = small_bed("a", "b", task_ms=DRAIN_GRACE_MS + 300_000)
    bed.kinds["b"].task_ms = 1_000
    bed.submit("a", resumable=resumable)
    bed.run(20_000)
    task = bed.submit("b", durable=True)
    bed.run(DRAIN_GRACE_MS + 60_000)
    assert (task in bed.done) is resumable
    bed.run(300_000)
    assert task in bed.done
    assert len(bed.stopped_busy) == int(resumable)


def test_a_model_that_always_crashes_does_not_take_the_place_of_one_in_use() -> None:
    bed = small_bed("a", "b")
    bed.kinds["b"].fails = "exit status 1"
    bed.load("a", 1.0, 2_000_000)
    bed.run(60_000)
    tasks = [bed.submit("b")]
    bed.run_until(lambda: tasks[0] in bed.failed)
    began_ms, spawned = bed.now_ms, len(bed.spawned)
    for _ in range(20):
        tasks.append(bed.submit("b"))
        bed.run(60_000)
    tries = sum(name.startswith("b") for name in bed.spawned[spawned:])
    assert tries <= (bed.now_ms - began_ms) / DISTRUST_MS
    assert "exit status 1" in bed.failed[tasks[-1]].message
    bed.kinds["b"].fails = ""
    bed.scale("b", 0, 1)  # Its owner has seen to it.
    task = bed.submit("b")
    bed.run(60_000)
    assert task in bed.done


def test_a_model_that_has_crashed_takes_the_place_of_one_that_is_not_used() -> None:
    bed = small_bed("a", "b")
    bed.kinds["b"].fails = "exit status 1"
    bed.load("a", 1.0, 120_000)
    bed.run(60_000)
    task = bed.submit("b")
    bed.run_until(lambda: task in bed.failed)
    bed.kinds["b"].fails = ""
    bed.run(120_000)
    task = bed.submit("b")
    bed.run(30_000)
    assert task in bed.done


def test_a_worker_that_does_not_go_is_done_without() -> None:
    bed = ScaleBed(elm=5_000, oak=5_000).settle()
    for model in ("a", "b", "c"):
        bed.kinds[model] = Kind(load_ms=2_000)
        bed.scale(model, 0, 1)
    bed.submit("a")
    bed.run(20_000)
    bed.submit("b")
    bed.run(20_000)
    bed.stop_ms = STOP_LIMIT_MS + 300_000
    task = bed.submit("c")
    bed.run(5_000)
    assert bed.workers("a") == []
    bed.run(STOP_LIMIT_MS - 25_000)
    bed.stop_ms = 500
    bed.run(35_000)
    assert task in bed.done
    assert bed.workers("b") == []
    assert bed.state("c").breaker_reason == ""


def test_whoever_waits_for_one_that_does_not_go_is_told_and_served_when_it_has_gone() -> None:
    bed = small_bed("a", "b")
    bed.submit("a")
    bed.run(20_000)
    bed.stop_ms = STOP_LIMIT_MS + 100_000
    task, durable = bed.submit("b"), bed.submit("b", durable=True)
    bed.run(STOP_LIMIT_MS + DOUBT_MS + 5_000)
    assert "needs 4000 MiB" in bed.failed[task].message
    bed.run(120_000)
    assert durable in bed.done


def test_to_look_changes_nothing() -> None:
    bed = small_bed("a", slots=4)
    bed.load("a", 1.0, 400_000)
    for _ in range(400):
        bed.run(1_000)
        before = repr(bed.swarm.scaler._books.of_model)
        bed.state("a")
        assert repr(bed.swarm.scaler._books.of_model) == before


def test_a_model_that_is_looked_at_all_the_time_is_still_seen_to_be_used() -> None:
    bed = small_bed("a", task_ms=100)
    bed.load("a", 0.1, 900_000)
    for _ in range(900):
        bed.run(900)
        bed.state("a")
        bed.run(100)
    assert bed.decisions("a") == [("up", 1, "first_request")]
