"""A worker that its model has to keep moves to another host when nobody serves a model that fits nowhere else."""

from __future__ import annotations

import pytest

from scale_bed import Kind, ScaleBed, void
from swarmesh.core.breaker import FAILURES_MAX, OPEN_MS
from swarmesh.core.commands import Command, SpawnWorker
from swarmesh.core.events import TaskCancelled
from swarmesh.core.ids import TaskId, WorkerId
from swarmesh.core.load_times import TURN_MS_MIN
from swarmesh.core.scale_action import STAY_MS
from swarmesh.core.scale_moves import PAUSED_MS


def pinned_bed(most: int = 2, **hosts: int) -> ScaleBed:
    """A small model ``a`` that is kept, on the only host where the large ``b`` fits; another holds small ones only."""
    bed = ScaleBed(**(hosts or {"large": 10_000, "small": 5_000})).settle()
    bed.kinds["a"] = Kind(need_mib=4_000, load_ms=3_000)
    bed.kinds["b"] = Kind(need_mib=8_000, load_ms=4_000)
    bed.scale("a", 1, most)
    bed.run(20_000)
    bed.scale("b", 0, 1)
    assert homes(bed) == ["large"]
    return bed


def homes(bed: ScaleBed, model: str = "a") -> list[str]:
    return [bed.homes[worker_id] for worker_id in bed.workers(model)]


def test_another_is_started_elsewhere_before_the_one_in_the_way_goes() -> None:
    bed = pinned_bed()
    served = []
    bed.watch = lambda _commands: served.append(bed.serving("a"))
    task = bed.submit("b")
    took_ms = bed.run_until(lambda: task in bed.done)
    assert took_ms < 20_000
    assert min(served) == 1, "its model is served all the time"
    assert (homes(bed), homes(bed, "b")) == (["small"], ["large"])
    assert bed.decisions("a") == [("up", 1, "min"), ("up", 1, "move"), ("down", 1, "room")]
    moved = bed.state("a").history[1]
    assert moved.reason == "b is to have the place on large, so a1 is replaced elsewhere first"
    assert not bed.failed


def test_it_goes_where_it_is_in_nobodys_way_next_time() -> None:
    bed = pinned_bed(large=10_000, other=10_000, small=5_000)
    bed.kinds["c"] = Kind(need_mib=2_000)
    bed.adopt("adopted", "c", "other")  # Which keeps the large one from there.
    bed.machines["other"].facts["proximity"] = 1.0  # By which it gets more votes than the small host.
    task = bed.submit("b")
    bed.run_until(lambda: task in bed.done)
    assert homes(bed) == ["small"]


def test_where_no_more_are_allowed_the_one_in_the_way_goes_first() -> None:
    bed = pinned_bed(most=1)
    most = []
    bed.watch = lambda _commands: most.append(len(bed.workers("a")))
    task = bed.submit("b")
    took_ms = bed.run_until(lambda: task in bed.done)
    bed.run(10_000)
    assert took_ms < 20_000
    assert (homes(bed), homes(bed, "b")) == (["small"], ["large"])
    assert max(most) == 1
    assert bed.state("a").history[0].reason == "b is to have the place on large, so a1 goes first"
    assert not bed.failed


@pytest.mark.parametrize("most", [1, 2])
def test_one_in_use_moves_when_its_turn_is_over_and_no_task_is_lost(most: int) -> None:
    bed = pinned_bed(most)
    bed.kinds["a"].task_ms = 3_000
    bed.load("a", 0.6, 120_000)
    bed.run(10_000)
    task = bed.submit("b")
    took_ms = bed.run_until(lambda: task in bed.done)
    assert took_ms < TURN_MS_MIN + 30_000
    assert (homes(bed), homes(bed, "b")) == (["small"], ["large"])
    bed.run(200_000)
    assert len(bed.done) == 72 + 1
    assert not bed.failed
    assert not bed.stopped_busy


def test_several_small_ones_move_for_a_large_one() -> None:
    bed = ScaleBed(large=10_000, small=5_000, other=5_000).settle()
    for model in ("a", "c"):
        bed.kinds[model] = Kind(need_mib=4_000, load_ms=3_000)
    bed.kinds["b"] = Kind(need_mib=8_000)
    for host in ("small", "other"):
        bed.machines[host].down = "not connected"
    for model in ("a", "c"):
        bed.scale(model, 1, 2)
        bed.run(10_000)
    for host in ("small", "other"):
        bed.machines[host].down = ""
    bed.scale("b", 0, 1)
    assert homes(bed) == homes(bed, "c") == ["large"]
    task = bed.submit("b")
    bed.run_until(lambda: task in bed.done, 40_000)
    assert {*homes(bed), *homes(bed, "c")} == {"small", "other"}


def test_none_moves_where_there_is_no_room_for_all_that_would_have_to() -> None:
    bed = ScaleBed(large=10_000, small=5_000).settle()
    bed.machines["small"].down = "not connected"
    for model in ("a", "c"):
        bed.kinds[model] = Kind(need_mib=4_000, load_ms=3_000)
        bed.scale(model, 1, 2)
        bed.run(10_000)
    bed.machines["small"].down = ""
    bed.kinds["b"] = Kind(need_mib=8_000)
    bed.scale("b", 0, 1)
    task = bed.submit("b")
    bed.run(30_000)
    assert bed.failed[task].code == "model_cannot_be_placed"
    assert homes(bed) == homes(bed, "c") == ["large"]
    assert len(bed.spawned) == 2


def test_two_kept_ones_of_one_model_move_one_after_the_other() -> None:
    bed = ScaleBed(large=10_000, small=5_000, other=5_000).settle()
    bed.kinds["a"] = Kind(need_mib=4_000, load_ms=3_000)
    bed.kinds["b"] = Kind(need_mib=8_000)
    for host in ("small", "other"):
        bed.machines[host].down = "not connected"
    bed.scale("a", 2, 3)
    bed.run(30_000)
    assert homes(bed) == ["large", "large"]
    for host in ("small", "other"):
        bed.machines[host].down = ""
    bed.scale("b", 0, 1)
    served = []
    bed.watch = lambda _commands: served.append(bed.serving("a"))
    task = bed.submit("b")
    bed.run_until(lambda: task in bed.done, 2 * STAY_MS)
    assert sorted(homes(bed)) == ["other", "small"]
    assert min(served) == 2


def test_one_that_is_kept_and_one_that_is_not_both_make_room() -> None:
    bed = ScaleBed(large=10_000, small=5_000).settle()
    bed.kinds["a"] = Kind(need_mib=4_000, load_ms=3_000)
    bed.kinds["b"] = Kind(need_mib=8_000)
    bed.machines["small"].down = "not connected"
    bed.scale("a", 2, 2)
    bed.run(30_000)
    bed.scale("a", 1, 2)
    bed.machines["small"].down = ""
    bed.scale("b", 0, 1)
    assert homes(bed) == ["large", "large"]
    task = bed.submit("b")
    bed.run_until(lambda: task in bed.done, 60_000)
    assert homes(bed) == ["small"]


def test_one_whose_replacement_fails_again_and_again_gets_its_place_back() -> None:
    bed = pinned_bed(most=1)
    failing_on(bed, "a", "small")
    bed.load("a", 0.3, 600_000)
    bed.run(15_000)
    for number in range(20):
        bed.at(bed.now_ms + 30_000 * number, lambda: void(bed.submit("b")))
    down_s = 0
    for _ in range(600):
        bed.run(1_000)
        down_s += not bed.serving("a")
    assert down_s < 120
    assert ("make_room", 1, "room") in bed.decisions("a")
    assert homes(bed) == ["large"]


def failing_on(bed: ScaleBed, model: str, host: str) -> None:
    """Starts of the model fail there, and nowhere else."""
    spawn = bed._spawn

    def fails(command: SpawnWorker) -> None:
        worker = bed.swarm.fleet.get(command.worker_id)
        assert worker is not None
        bed.kinds[model].fails = "out of memory" if (worker.model, worker.host) == (model, host) else ""
        spawn(command)
        bed.kinds[model].fails = ""

    bed._spawn = fails  # type: ignore[method-assign]


def test_nothing_is_started_in_place_of_one_that_is_too_many_anyway() -> None:
    bed = ScaleBed(large=10_000, small=5_000, other=5_000).settle()
    bed.kinds["a"] = Kind(need_mib=4_000, load_ms=3_000, task_ms=30_000)
    bed.kinds["b"] = Kind(need_mib=8_000)
    bed.scale("b", 0, 1)
    for number, host in enumerate(("large", "large", "small")):
        bed.adopt(f"adopted{number}", "a", host)
    for _ in range(6):
        bed.submit("a", durable=True)
    bed.scale("a", 2, 2)  # None of the three can be stopped now: all are in use.
    task = bed.submit("b", durable=True)
    most = []
    bed.watch = lambda commands: most.append(len(bed.workers("a")) if _spawns(commands, "a") else 0)
    bed.run_until(lambda: task in bed.done, 120_000)
    assert max(most) == 2
    assert sorted(homes(bed)) == ["other", "small"]


def _spawns(commands: list[Command], model: str) -> bool:
    return any(isinstance(each, SpawnWorker) and each.worker_id.startswith(model) for each in commands)


def test_a_model_that_is_to_be_kept_itself_needs_no_request_for_it() -> None:
    bed = pinned_bed()
    bed.scale("b", 1, 1)
    bed.run(120_000)
    assert (homes(bed), homes(bed, "b")) == (["small"], ["large"])


def test_one_that_fits_nowhere_else_stays_and_the_client_is_told() -> None:
    bed = pinned_bed(large=10_000, small=4_000)
    task = bed.submit("b")
    bed.run(30_000)
    assert bed.failed[task].code == "model_cannot_be_placed"
    assert homes(bed) == ["large"]
    assert bed.decisions("a") == [("up", 1, "min")]


def test_a_move_that_fails_is_tried_like_any_start_and_then_given_up() -> None:
    bed = pinned_bed()
    bed.kinds["a"].fails = "out of memory"
    first = bed.submit("b")
    bed.run(60_000)
    assert bed.failed[first].code == "model_cannot_be_placed"
    assert (homes(bed), bed.serving("a")) == (["large"], 1)
    assert len(bed.spawned) == 1 + FAILURES_MAX
    bed.kinds["a"].fails = ""
    bed.run(OPEN_MS)
    second = bed.submit("b")
    bed.run_until(lambda: second in bed.done, 60_000)


def test_one_that_went_first_for_a_replacement_that_failed_does_not_go_again_and_again() -> None:
    bed = pinned_bed(most=1)
    bed.load("a", 0.3, 200_000)
    bed.run(15_000)
    bed.kinds["a"].fails = "out of memory"
    bed.submit("b")
    bed.run_until(lambda: not bed.workers("a"))
    bed.run_until(lambda: bed.state("a").breaker_reason)
    bed.kinds["a"].fails = ""  # It only fails on the small host, and the next start avoids that one.
    bed.run(10_000)
    [back] = bed.workers("a")
    assert homes(bed) == ["large"]
    for _ in range(10):
        bed.submit("b")
        bed.run(15_000)
    assert bed.workers("a") == [back]
    assert [rule for _, _, rule in bed.decisions("a")].count("move") == 1


@pytest.mark.parametrize("told", [False, True])
def test_hosts_that_have_no_room_for_it_are_not_asked_again_and_again(told: bool) -> None:  # noqa: FBT001 - a case
    bed = pinned_bed()
    bed.machines["small"].facts["need_mib"] = 9_000  # What it needs there is only known when it is asked.
    first = bed.submit("b")
    bed.run(60_000)
    assert bed.failed[first].code == "model_cannot_be_placed"
    bed.submit("b")
    bed.run(60_000)
    assert [str(seek.model) for seek in bed.seeks].count("a") == 2
    bed.machines["small"].facts.clear()
    if told:
        bed.scale("a", 1, 2)  # Which forgets what kept it from being placed.
        bed.run(OPEN_MS)
    else:
        bed.run(STAY_MS)
    third = bed.submit("b")
    bed.run_until(lambda: third in bed.done, 60_000)


def test_nothing_moves_for_a_client_that_has_left_before_the_hosts_have_answered() -> None:
    bed = pinned_bed()
    bed.seek_ms = 2_000
    task = bed.submit("b")
    bed.run_until(lambda: bed.state("a").action is not None)
    bed.handle(TaskCancelled(TaskId(task)))
    bed.run(30_000)
    assert homes(bed) == ["large"]
    assert bed.state("a").action is None
    bed.seek_ms = 200
    again = bed.submit("b")
    bed.run_until(lambda: again in bed.done, 30_000)


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("every", [False, True])
def test_nothing_moves_that_is_paused_before_the_hosts_have_answered(most: int, every: bool) -> None:  # noqa: FBT001 - a case
    bed = pinned_bed(most)
    bed.seek_ms = 2_000
    bed.submit("b")
    bed.run_until(lambda: bed.state("a").action is not None)
    before = (bed.workers("a"), len(bed.spawned))
    bed.pause() if every else bed.scale("a", 1, most, paused=True)
    bed.run(30_000)
    assert (bed.workers("a"), len(bed.spawned)) == before


@pytest.mark.parametrize("protection", ["paused", "unscaled", "direct", "all paused"])
def test_who_never_moves(protection: str) -> None:
    bed = pinned_bed()
    [worker_id] = bed.workers("a")
    worker = bed.swarm.fleet.get(WorkerId(worker_id))
    assert worker is not None
    match protection:
        case "paused":
            bed.scale("a", 1, 2, paused=True)
        case "unscaled":
            bed.unscale("a")
        case "direct":
            worker.direct = True
        case _:
            bed.pause()
    task = bed.submit("b")
    bed.run(PAUSED_MS + 20_000)
    assert task not in bed.done
    assert bed.workers("a") == [worker_id]


def test_one_more_of_a_model_that_is_served_is_no_reason_to_move() -> None:
    bed = ScaleBed(large=10_000, other=10_000, small=5_000).settle()
    bed.kinds["a"] = Kind(need_mib=4_000)
    bed.kinds["b"] = Kind(need_mib=8_000, slots=1, task_ms=10_000)
    bed.scale("a", 1, 2)
    bed.scale("b", 0, 2)
    bed.run(20_000)
    for _ in range(30):
        bed.submit("b")
    bed.run(120_000)
    assert bed.decisions("a") == [("up", 1, "min")]
    assert len(bed.workers("b")) == 1
    assert "no host ha" in bed.state("b").blocked
