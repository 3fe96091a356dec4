"""Why a task waits: the first reason that holds, with its numbers, and what would let it run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

from core_hive import Hive
from scale_bed import ScaleBed
from swarmesh.core.events import KeyLimited, ModelScaled, ScalingPaused
from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.script import Facts, Hook
from swarmesh.core.swarm import Swarm
from swarmesh.queen.why_waiting import AHEAD_COUNTED_MAX, WAITING, WhyWaiting, why_waiting

SPAWN: Final = "'swarmesh spawn rustbee --modelcell qwen' starts one"


class NotToA:
    """A script that has no task go to `a`."""

    name = "mine.py"
    hooks = frozenset({Hook.SCORE})
    asked = 0

    def admit(self, _task: Facts) -> str | None:
        return None

    def place(self, _model: Facts, hosts: Sequence[Facts]) -> Sequence[float | None]:
        return [None for _ in hosts]

    def scale(self, _model: Facts, _stats: Facts) -> int | None:
        return None

    def score(self, _task: Facts, workers: Sequence[Facts]) -> Sequence[float | None]:
        self.asked += 1
        return [None if worker["id"] == "a" else 1.0 for worker in workers]


def why(hive: Hive, name: str, *, known: bool = True) -> WhyWaiting:
    return why_waiting(hive.swarm, hive.task(name), hive.now_ms, has_model=lambda _model: known)


def limit(hive: Hive, **limits: int) -> None:
    hive.tell(KeyLimited(KeyId("ada"), **limits))


def test_a_key_with_its_share_of_tasks() -> None:
    hive = Hive("a", slots=4)
    limit(hive, concurrency=1)
    hive.submit("t1", durable=True)
    hive.submit("t2", durable=True)
    hive.now_ms += 2_000
    told = why(hive, "t2")
    assert told.words == "1 task of its key is under way, and the key may have 1 at once; one ends in about 5 s"
    assert told.would_help == ("fewer tasks of this key under way, or a key that may have more at once",)
    assert (told.phase, told.since_ms, told.expected_ms) == (WAITING, 2_000, None)


def test_a_key_without_tokens() -> None:
    hive = Hive("a", slots=4)
    limit(hive, tokens_per_minute=60)
    for name in ("t1", "t2", "t3", "t4"):
        hive.submit(name, durable=True)
    assert hive.waiting() == ["t4"]
    told = why(hive, "t4")
    assert told.words == (
        "its key may use 60 tokens per minute and has 0 left; this task may take 20 and is let go when 20 are left, "
        "in 20 s if no other task of the key starts before"
    )
    assert told.would_help[1] == "a key with more tokens per minute"
    hive.wait(20_000)
    assert hive.waiting() == []


def test_a_script_that_keeps_it_from_all() -> None:
    hive = Hive("a")
    script = NotToA()
    hive.swarm.set_script(script)
    hive.submit("t", durable=True)
    told = why(hive, "t")
    assert told.words == "policy script 'mine.py' keeps it from every rustbee of 'qwen'"
    assert "swarmesh policy deactivate" in told.would_help[0]
    hive.register("b")
    hive.tick()
    hive.submit("u", durable=True)
    assert why(hive, "u").words == "policy script 'mine.py' keeps it from every free rustbee of 'qwen'"


def test_a_script_is_not_asked_while_nobody_is_free() -> None:
    hive = Hive("b")
    hive.submit("runs")
    hive.swarm.set_script(script := NotToA())
    hive.submit("t")
    asked = script.asked
    assert why(hive, "t").words == "all slots of the one rustbee with 'qwen' are in use, and it is next"
    assert script.asked == asked


def test_its_turn_and_who_is_before_it() -> None:
    hive = Hive("a", "b")
    for name in ("r1", "r2", "t1", "t2", "t3"):
        hive.submit(name)
    words = [why(hive, name).words for name in ("t1", "t2", "t3")]
    in_use = "all slots of 2 rustbees with 'qwen' are in use, and "
    assert words == [in_use + end for end in ("it is next", "1 task waits before it", "2 tasks wait before it")]
    for number in range(AHEAD_COUNTED_MAX):
        hive.submit(f"more-{number}")
    assert why(hive, f"more-{AHEAD_COUNTED_MAX - 1}").words.endswith("more than 64 tasks wait before it")


def test_a_free_slot_that_is_not_its_turn_yet() -> None:
    hive = Hive("a")
    hive.submit("t")
    hive.submit("t2")
    hive.swarm.fleet.note(hive.worker("a"))
    hive.worker("a").slots = 2
    assert why(hive, "t2").words == "it waits for its turn, and it is next"


def test_no_rustbee_and_no_bounds() -> None:
    hive = Hive()
    hive.accept("t")
    told = why(hive, "t")
    assert told.words == "no rustbee of 'qwen' serves now, and none is started by itself"
    assert told.would_help == (
        SPAWN,
        "bounds: with 'swarmesh swarmscale set qwen --min 0 --max 1' rustbees come and go by themselves",
    )


def test_no_rustbee_and_nothing_to_start_one_from() -> None:
    hive = Hive()
    hive.accept("t")
    told = why(hive, "t", known=False)
    assert told.words == "no rustbee of 'qwen' serves now, and the queennode's catalog has no modelcell of that name"
    assert told.would_help == (
        "the modelcell: 'swarmesh models add FILE --name qwen', then 'swarmesh spawn rustbee --modelcell qwen'",
        "a server that has it: 'swarmesh spawn rustbee --type openai --url URL --modelcell qwen'",
        "no longer wanted: 'swarmesh nectarflow cancel t'",
    )


def test_the_catalog_is_not_asked_about_a_model_that_is_served_or_scaled() -> None:
    hive = Hive("a")
    hive.submit("runs")
    hive.submit("t")
    scaled = Hive()
    scaled.tell(ModelScaled(ModelName("qwen"), Bounds(0, 1)))
    scaled.tell(ScalingPaused(paused=True))
    scaled.accept("t")
    for other in (hive, scaled):
        assert why(other, "t", known=False) == why(other, "t")


@pytest.mark.parametrize(
    ("everything", "resume"),
    [(True, "'swarmesh swarmscale resume' goes on"), (False, "'swarmesh swarmscale resume qwen' goes on")],
)
def test_scaling_is_paused(*, everything: bool, resume: str) -> None:
    hive = Hive()
    hive.tell(ModelScaled(ModelName("qwen"), Bounds(0, 1, paused=not everything)))
    hive.tell(ScalingPaused(everything))
    hive.accept("t")
    hive.tick()
    told = why(hive, "t")
    assert told.words == "no rustbee of 'qwen' serves now, and scaling is paused"
    assert told.would_help == (resume, SPAWN)


def test_a_rustbee_that_is_starting_and_one_that_leaves() -> None:
    hive = Hive()
    hive.register("a", ready=False)
    hive.submit("t")
    told = why(hive, "t")
    assert told.words == "a rustbee of 'qwen' is starting"
    other = Hive("a")
    other.submit("runs", durable=True)
    other.stop("a", 60_000)
    other.accept("t")
    assert why(other, "t").words == "no rustbee of 'qwen' serves now (1 draining), and none is started by itself"


def test_every_rustbee_has_failed_it() -> None:
    hive = Hive("a", "b")
    hive.submit("t")
    hive.submit("on-b")
    hive.cut("t", final=True)
    hive.gone("b")
    assert why(hive, "t").words.startswith("every rustbee that serves 'qwen' now has failed this task")


def of(bed: ScaleBed, name: str) -> WhyWaiting:
    swarm: Swarm = bed.swarm
    return why_waiting(swarm, swarm.dispatcher.tasks[TaskId(name)], bed.now_ms, has_model=lambda _model: True)


def test_a_start_under_way_and_one_that_was_given_up() -> None:
    bed = ScaleBed("oak", oak=16_000).settle()
    bed.scale("a")
    name = bed.submit(durable=True)
    bed.run(1_000)
    told = of(bed, name)
    assert (told.phase, told.words) == ("loading", "loading a on oak")
    full = ScaleBed("oak", oak=10).settle()
    full.scale("a")
    name = full.submit(durable=True)
    full.run(60_000)
    told = of(full, name)
    assert told.phase == WAITING
    assert told.words.startswith("no rustbee of 'a' serves now, and none could be started: oak")
    assert "'swarmesh explain placement a'" in told.would_help[0]


def test_what_an_engine_died_of_is_one_line() -> None:
    bed = ScaleBed("oak").settle()
    bed.scale("a")
    bed.kinds["a"].fails = "exited with code 1:\n  no such module"
    name = bed.submit(durable=True)
    bed.run_until(lambda: bed.state().breaker_ms)
    assert "exited with code 1: no such module; tried again in" in of(bed, name).words


class Nowhere(NotToA):
    """A script that keeps everything from every host."""

    hooks = frozenset({Hook.PLACE})


def test_a_script_that_lets_it_onto_no_host_is_named() -> None:
    bed = ScaleBed("oak").settle()
    bed.swarm.set_script(Nowhere())
    bed.scale("a")
    name = bed.submit(durable=True)
    bed.run_until(lambda: bed.state().breaker_ms)
    assert of(bed, name).would_help[-1] == "no script: 'swarmesh policy deactivate' takes 'mine.py' out of use"


class WantsNone(NotToA):
    """A script that has no rustbee of anything."""

    hooks = frozenset({Hook.SCALE})

    def scale(self, _model: Facts, _stats: Facts) -> int | None:
        return 0


def test_a_script_that_wants_none_is_named() -> None:
    bed = ScaleBed("oak").settle()
    bed.swarm.set_script(WantsNone())
    bed.scale("a")
    name = bed.submit(durable=True)
    bed.run(2_000)
    told = of(bed, name)
    assert told.words == "no rustbee of 'a' serves now, and policy script 'mine.py' wants none now"
    assert told.would_help == (
        "'swarmesh spawn rustbee --modelcell a' starts one",
        "no script: 'swarmesh policy deactivate' takes 'mine.py' out of use",
    )
