"""Cellmorph: models that share the memory of a host, and who has to give way to whom."""

from __future__ import annotations

import pytest

from scale_bed import Kind, ScaleBed, small_bed
from swarmesh.core.events import LoadTimeKnown, TaskCancelled, WorkerStopRequested
from swarmesh.core.ids import HostName, ModelName, TaskId, WorkerId
from swarmesh.core.load_times import TURN_MS_MIN
from swarmesh.core.memory_pool import Pool
from swarmesh.core.morph import Resident, usefulness, vacancy
from swarmesh.core.scale_moves import PAUSED_MS

ELM = HostName("elm")


def pool(free_mib: int, **held: int) -> Pool:
    """Memory of which all is promised but ``free_mib``."""
    total_mib = free_mib + sum(held.values())
    books = Pool("ram", usable_share=1.0, total_mib=total_mib, available_mib=free_mib)
    books.reserved = {WorkerId(name): mib for name, mib in held.items()}
    return books


def test_usefulness_halves_with_every_load_time_without_use() -> None:
    assert usefulness(0, 8_000, 1) == 1.0
    assert usefulness(8_000, 8_000, 1) == 0.5
    assert usefulness(16_000, 8_000, 2) == 0.125
    assert usefulness(60_000, 60_000, 1) > usefulness(60_000, 1_000, 1)


def test_the_least_useful_go_and_no_more_than_needed() -> None:
    residents = [
        Resident(WorkerId("dear"), 0.9),
        Resident(WorkerId("small"), 0.1),
        Resident(WorkerId("large"), 0.2),
        Resident(WorkerId("elsewhere"), 0.0),
    ]
    room = vacancy(ELM, [pool(1_000, dear=4_000, small=500, large=4_000)], 5_000, residents, ())
    assert room is not None
    assert room.leavers == ("large",)
    assert vacancy(ELM, [pool(1_000, dear=4_000)], 5_001, residents, ()) is None
    alone = vacancy(ELM, [pool(1_000, dear=4_000, small=500, large=4_000)], 5_000, residents, (WorkerId("large"),))
    assert alone is not None
    assert alone.leavers == ()
    assert vacancy(ELM, [], 1, residents, ()) is None


def test_an_idle_model_gives_way_to_one_that_is_asked_for() -> None:
    bed = small_bed("a", "b")
    bed.submit("a")
    bed.run(10_000)
    task = bed.submit("b")
    bed.run(8_000)
    assert task in bed.done
    assert (bed.workers("a"), len(bed.workers("b"))) == ([], 1)
    assert bed.decisions("b")[:2] == [("make_room", 1, "room"), ("up", 1, "first_request")]
    down = bed.state("a").history[0]
    assert (down.kind, down.rule, down.reason) == ("down", "room", "gives way to b on elm")


def test_while_room_is_made_the_client_is_told() -> None:
    bed = small_bed("a", "b")
    bed.stop_ms = 5_000
    bed.submit("a")
    bed.run(10_000)
    [leaver] = bed.workers("a")
    bed.submit("b")
    bed.run(1_000)
    action = bed.state("b").action
    assert action is not None
    assert (action.phase, action.host) == ("making_room", "elm")
    assert action.words == f"making room for b on elm: {leaver} has to go"


def test_a_worker_in_use_is_not_touched_before_its_turn_is_over() -> None:
    bed = small_bed("a", "b", task_ms=5_000)
    for _ in range(40):
        bed.submit("a")
    bed.run(6_000)
    task = bed.submit("b")
    bed.run(4_000)
    assert len(bed.workers("a")) == 1
    assert bed.state("b").action is not None
    took_ms = bed.run_until(lambda: task in bed.done)
    assert TURN_MS_MIN - 4_000 <= took_ms <= TURN_MS_MIN + 15_000
    assert not bed.stopped_busy
    assert not bed.failed


def test_two_models_that_are_always_asked_for_alternate_and_nobody_fails() -> None:
    bed = small_bed("a", "b", task_ms=1_000)
    bed.load("a", 1.0, 300_000)
    bed.load("b", 1.0, 300_000)
    bed.run(400_000)
    assert not bed.failed
    assert not bed.stopped_busy
    assert len(bed.done) == 600
    ups = [sum(kind == "up" for kind, _, _ in bed.decisions(model)) for model in ("a", "b")]
    assert min(ups) >= 4
    assert len(bed.spawned) < 300_000 / TURN_MS_MIN * 2


def test_three_models_on_two_places_are_all_served() -> None:
    bed = small_bed("a", "b", "c", memory_mib=10_000, task_ms=1_000)
    for model in ("a", "b", "c"):
        bed.load(model, 0.7, 300_000)
    bed.run(420_000)
    assert not bed.failed
    assert not bed.stopped_busy
    assert len(bed.done) == 3 * 209


def test_models_of_unequal_size_on_one_place_wait_for_what_is_kept_for_another() -> None:
    bed = small_bed("a", "b", "c", task_ms=1_000)
    bed.kinds["c"].need_mib = 2_500
    bed.stop_ms = 4_000
    for model in ("a", "b", "c"):
        bed.load(model, 0.5, 200_000)
    bed.run(500_000)
    assert not bed.failed
    assert len(bed.done) == 300


def test_alternating_requests_swap_without_waiting_for_turns() -> None:
    bed = small_bed("a", "b")
    for number in range(10):
        task = bed.submit("ab"[number % 2])
        took_ms = bed.run_until(lambda task=task: task in bed.done)
        assert took_ms < 6_000
        bed.run(4_000)
    assert not bed.failed


@pytest.mark.parametrize("protection", ["minimum", "unscaled", "paused", "direct"])
def test_who_never_gives_way(protection: str) -> None:
    bed = small_bed("a", "b")
    if protection == "minimum":
        bed.scale("a", 1, 1)
    bed.submit("a")
    bed.run(20_000)
    [worker_id] = bed.workers("a")
    worker = bed.swarm.fleet.get(WorkerId(worker_id))
    assert worker is not None
    if protection == "unscaled":
        bed.unscale("a")
    elif protection == "paused":
        bed.scale("a", 0, 1, paused=True)
    worker.direct = protection == "direct"
    task = bed.submit("b")
    bed.run(PAUSED_MS + 10_000)
    assert bed.workers("a") == [worker_id]
    assert bed.failed[task].code == "model_cannot_be_placed"
    assert "needs 4000 MiB and has 600 MiB of ram free" in bed.failed[task].message
    assert "failures" not in bed.failed[task].message, "nothing has failed, there is no room"


@pytest.mark.parametrize("end", ["resumed", "other bounds", "gone", "all resumed"])
def test_who_lacked_room_is_started_as_soon_as_that_may_have_changed(end: str) -> None:
    bed = small_bed("a", "b")
    bed.submit("a")
    bed.run(20_000)
    bed.scale("a", 0, 1, paused=True)
    task = bed.submit("b", durable=True)
    bed.run(PAUSED_MS + 12_000)
    assert bed.state("b").breaker_ms > 10_000
    match end:
        case "resumed":
            bed.scale("a", 0, 1)
        case "other bounds":
            bed.scale("", 0, 1)
            bed.scale("a", 0, 1)
        case "gone":
            bed.end_worker(bed.workers("a")[0], "killed")
        case _:
            bed.pause()
            bed.scale("a", 0, 1)
            bed.pause(paused=False)
    assert bed.state("b").breaker_ms == 0
    assert bed.run_until(lambda: task in bed.done) < 9_000


def test_a_short_pause_of_who_has_the_memory_fails_nobody() -> None:
    bed = small_bed("a", "b")
    bed.submit("a")
    bed.run(20_000)
    bed.scale("a", 0, 1, paused=True)
    task = bed.submit("b")
    bed.run(PAUSED_MS - 10_000)
    bed.scale("a", 0, 1)
    bed.run(15_000)
    assert task in bed.done
    assert not bed.failed


def test_a_pause_ends_a_search_that_finds_no_room_and_counts_nothing() -> None:
    bed = small_bed("a", "b", task_ms=60_000)
    bed.submit("a")
    bed.run(10_000)
    bed.submit("b", durable=True)
    bed.pause()
    bed.run(60_000)
    state = bed.state("b")
    assert (state.action, state.breaker_ms, state.breaker_reason) == (None, 0, "")


def test_a_second_copy_does_not_take_the_place_of_another_model_in_use() -> None:
    bed = ScaleBed(elm=10_000).settle()
    bed.kinds["a"] = Kind(slots=1, task_ms=2_000)
    bed.kinds["b"] = Kind(slots=1, task_ms=2_000)
    bed.scale("a", 0, 3)
    bed.scale("b", 0, 1)
    bed.submit("b")
    bed.run(10_000)
    bed.load("a", 2.0, 60_000)
    bed.load("b", 0.4, 120_000)
    bed.run(60_000)
    assert len(bed.workers("b")) == 1
    assert len(bed.workers("a")) == 1
    assert "no host ha" in bed.state("a").blocked
    assert bed.state("a").breaker_reason == ""


def test_a_second_copy_takes_the_place_of_a_model_that_is_not_used() -> None:
    bed = ScaleBed(elm=10_000).settle()
    bed.kinds["a"] = Kind(slots=1, task_ms=2_000)
    bed.kinds["b"] = Kind()
    bed.scale("a", 0, 3)
    bed.scale("b", 0, 1)
    bed.submit("b")
    bed.run(60_000)
    bed.load("a", 1.0, 100_000)
    bed.run(100_000)
    assert bed.workers("b") == []
    assert len(bed.workers("a")) == 2


def test_the_place_is_kept_for_whom_it_was_made() -> None:
    bed = small_bed("a", "b", task_ms=3_000)
    bed.stop_ms = 3_000
    for _ in range(30):
        bed.submit("a")
    bed.run(5_000)
    waiting = bed.submit("b")
    bed.run_until(lambda: not bed.workers("a"))
    bed.submit("a")
    bed.run_until(lambda: bed.workers("b"))
    assert bed.workers("a") == []
    bed.run_until(lambda: waiting in bed.done)
    bed.run(200_000)
    assert not bed.failed


def test_a_worker_that_somebody_else_drains_does_not_hold_up_a_newcomer() -> None:
    bed = small_bed("a", "b", "c", memory_mib=10_000)
    bed.kinds["a"].task_ms = 300_000
    bed.submit("a")
    bed.submit("b")
    bed.run(10_000)
    bed.handle(WorkerStopRequested(WorkerId(bed.workers("a")[0]), 600_000))
    task = bed.submit("c")
    bed.run(15_000)
    assert task in bed.done
    assert bed.workers("b") == []


def test_clients_that_leave_while_their_model_waits_for_its_turn_end_the_action() -> None:
    bed = small_bed("a", "b", task_ms=30_000)
    bed.submit("a")
    bed.run(4_000)
    task = bed.submit("b", durable=True)
    bed.run(2_000)
    assert bed.state("b").action is not None
    bed.handle(TaskCancelled(TaskId(task)))
    bed.run(2_000)
    assert bed.state("b").action is None
    assert len(bed.workers("a")) == 1


def test_a_model_that_takes_long_to_load_is_kept_longer() -> None:
    bed = small_bed("a", "b")
    bed.handle(LoadTimeKnown(ModelName("a"), ELM, 60_000))
    bed.kinds["a"].load_ms = 60_000
    bed.submit("a")
    bed.run_until(lambda: bed.done)
    bed.run(1_000)
    bed.submit("b")
    bed.run(5_000)
    assert len(bed.workers("a")) == 1
    bed.run(20_000)
    assert len(bed.workers("b")) == 1
