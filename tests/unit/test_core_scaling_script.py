"""What a policy script may say about how many workers there are and where, and what the scaler says of itself."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from scale_bed import Kind, ScaleBed
from swarmesh.core.ids import HostName, ModelName
from swarmesh.core.memory_pool import PoolFree
from swarmesh.core.placement import WEIGHTS, ChosenBy, HostCandidate, choose_host
from swarmesh.core.scale_rule import IDLE_MS
from swarmesh.core.scale_view import ScaleKind
from swarmesh.core.script import Facts, Hook, ScriptFailedError


class Told:
    """A script that says what a test wants it to say."""

    name = "told.star"

    def __init__(self, *, count: int | None = None, host: str | None = None, fails: bool = False) -> None:
        self.hooks = frozenset({Hook.SCALE, Hook.PLACE})
        self.count, self.host, self.fails = count, host, fails
        self.asked: list[Facts] = []

    def admit(self, _task: Facts) -> str | None:
        return None

    def score(self, _task: Facts, workers: Sequence[Facts]) -> Sequence[float | None]:
        return [0.0] * len(workers)

    def place(self, _model: Facts, hosts: Sequence[Facts]) -> Sequence[float | None]:
        self.asked += hosts
        if self.host == "":
            return [None] * len(hosts)
        return [1.0 if host["name"] == self.host else 0.0 for host in hosts]

    def scale(self, _model: Facts, stats: Facts) -> int | None:
        self.asked.append(stats)
        if self.fails:
            raise ScriptFailedError("it divides by zero")
        return self.count


def scripted(bed: ScaleBed, **says: object) -> Told:
    script = Told(**says)  # type: ignore[arg-type]
    bed.swarm.set_script(script)
    return script


def test_the_script_says_how_many_within_the_bounds() -> None:
    bed = ScaleBed("elm", "oak", "ash").settle()
    script = scripted(bed, count=2)
    bed.scale("a", 1, 3)
    bed.run(60_000)
    assert bed.serving() == 2
    assert bed.decisions()[0] == ("up", 2, "script")
    script.count = 50
    bed.run(60_000)
    assert bed.serving() == 3
    script.count = 0
    bed.run(200_000)
    assert bed.serving() == 3  # The cool-down holds all the same.
    assert bed.state().blocked.startswith("cool-down: no rustbee is stopped for another ")
    bed.run(400_000)
    assert bed.serving() == 1
    assert bed.state().history[0].target == 1


def test_a_script_that_fails_or_has_no_opinion_leaves_it_to_the_rule() -> None:
    bed = ScaleBed("elm").settle()
    bed.scale("a", 0, 3)
    scripted(bed)
    bed.submit("a")
    bed.run(10_000)
    assert bed.decisions() == [("up", 1, "first_request")]
    scripted(bed, fails=True)
    bed.run(IDLE_MS + 10_000)
    assert bed.workers() == []
    assert [alarm.code for alarm in bed.alarms] == ["policy_script_failed"]


def test_nobody_waits_for_a_model_that_the_script_does_not_want() -> None:
    bed = ScaleBed("elm").settle()
    bed.scale("a", 0, 3)
    scripted(bed, count=0)
    first = bed.submit("a")
    second = bed.submit("a")
    assert bed.failed[second].message == "no rustbee serves 'a', and the policy script wants none now"
    bed.run(62_000)
    assert first in bed.failed
    assert not bed.spawned


def test_the_script_says_where_among_those_that_can() -> None:
    bed = ScaleBed(ash=1_000, elm=10_000, oak=10_000).settle()
    bed.machines["elm"].facts["file_there"] = True
    bed.scale("a")
    script = scripted(bed, host="oak")
    bed.submit("a")
    bed.run(8_000)
    assert bed.homes[bed.workers()[0]] == "oak"
    placement = bed.state().placement
    assert placement is not None
    assert placement.by is ChosenBy.SCRIPT
    assert "ash" in placement.vetoes
    assert [facts["name"] for facts in script.asked if "vote_speed" in facts] == ["elm", "oak"]


def test_a_script_that_keeps_a_model_from_every_host_is_named() -> None:
    bed = ScaleBed("elm").settle()
    bed.scale("a")
    scripted(bed, host="")
    task = bed.submit("a")
    bed.run_until(lambda: bed.failed)
    assert "elm: kept from it by the policy script" in bed.failed[task].message


def site(name: str, **facts: object) -> HostCandidate:
    pools = (PoolFree("ram", 8_000, 10_000),)
    return HostCandidate(**({"host": HostName(name), "need_mib": 4_000, "pools": pools} | facts))  # type: ignore[arg-type]


def test_weights_keep_the_shape_of_nest_site_selection() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)
    assert WEIGHTS["memory left"] + WEIGHTS["few workers"] + WEIGHTS["load"] == pytest.approx(0.4)
    assert WEIGHTS["proximity"] == pytest.approx(0.3)
    assert WEIGHTS["file there"] + WEIGHTS["speed"] == pytest.approx(0.3)


def test_speed_is_voted_on_relative_to_the_fastest() -> None:
    placement = choose_host([site("elm", speed=30.0), site("oak", speed=60.0), site("ash")])
    votes = {verdict.host: dict(verdict.votes)["speed"] for verdict in placement.reasons}
    assert votes == {"elm": 0.5, "oak": 1.0, "ash": 0.5}
    assert placement.choice == "oak"


def test_the_last_choice_is_kept_until_another_is_better_by_a_fifth() -> None:
    assert choose_host([site("elm"), site("oak", file_there=True)], last=HostName("elm")).choice == "oak"
    kept = choose_host([site("elm"), site("oak", proximity=0.8)], last=HostName("elm"))
    assert (kept.choice, kept.by) == ("elm", ChosenBy.LAST)
    assert choose_host([site("elm"), site("oak", proximity=1.0)], last=HostName("elm")).choice == "oak"
    gone = choose_host([site("elm", usable=False), site("oak", proximity=0.1)], last=HostName("elm"))
    assert (gone.choice, gone.by) == ("oak", ChosenBy.VOTES)


def test_a_model_comes_back_to_the_host_it_was_on_with_its_speed_remembered() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.kinds["a"] = Kind(slots=1, task_ms=500)
    bed.scale("a")
    for _ in range(20):
        bed.submit("a")
    bed.run(30_000)
    home = bed.homes[bed.workers()[0]]
    bed.run_until(lambda: not bed.workers())
    bed.run(2_000)
    assert bed.swarm.scaler.sites.speeds.of(ModelName("a"), HostName(home)) > 0
    bed.submit("a")
    bed.run(8_000)
    assert bed.homes[bed.workers()[0]] == home
    placement = bed.state().placement
    assert placement is not None
    assert dict(placement.reasons[0].votes)["speed"] in (1.0, 0.5)


def test_explain_tells_what_would_change_it() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.scale("a", 0, 2)
    assert bed.state().would_change == ("up: the first request starts one",)
    assert bed.state().last is not None
    bed.submit("a")
    bed.run(10_000)
    state = bed.state()
    assert state.last is not None
    assert (state.last.kind, state.last.rule) == (ScaleKind.HOLD, "hold")
    said = state.would_change
    assert said[0].startswith("up: a mean load above 0.8, that is 2 of 2 slots in use; it is 0.")
    assert said[2] == "up: more than 100 waiting tasks; there are 0 now"
    assert said[-1].startswith("down to 0: 300 s without any task, where it is ")
    bed.scale("a", 1, 1)
    assert bed.state().would_change == (
        "up: not beyond 1 rustbee, the most it may have",
        "down: not below 1 rustbee, the least it may have",
    )


def test_a_model_without_bounds_has_a_state_too() -> None:
    bed = ScaleBed("elm").settle()
    with pytest.raises(KeyError):
        bed.state("a")
    bed.kinds["a"] = Kind()
    bed.adopt("mine", "a", "elm")
    state = bed.state("a")
    assert (state.bounds, state.target, state.stats.serving) == (None, 1, 1)
    assert state.would_change == ("bounds: 'swarmesh swarmscale set a --min 0 --max 1' lets it be scaled",)
    assert bed.swarm.scaler.models() == ["a"]
    bed.scale("b")
    assert bed.swarm.scaler.models() == ["b", "a"]


def test_history_is_bounded_and_the_newest_comes_first() -> None:
    bed = ScaleBed("elm").settle()
    bed.kinds["a"] = Kind(load_ms=500)
    bed.scale("a", 0, 1)
    for _ in range(12):
        bed.submit("a")
        bed.run(IDLE_MS + 10_000)
    history = bed.state().history
    assert len(history) == 20
    assert [decision.kind for decision in history[:2]] == ["down", "up"]
    assert history[0].at_ms > history[1].at_ms


def test_the_pause_that_is_there_is_named() -> None:
    bed = ScaleBed("elm").settle()
    bed.scale("a", paused=True)
    one = "'swarmesh swarmscale resume a'"
    assert bed.failed[bed.submit("a")].hint.startswith(f"{one} goes on; ")
    assert bed.state().would_change == (f"paused: {one} goes on",)
    bed.pause()
    assert bed.failed[bed.submit("a")].hint.startswith(f"'swarmesh swarmscale resume' and {one} go on; ")
    bed.scale("a")
    assert bed.failed[bed.submit("a")].hint.startswith("'swarmesh swarmscale resume' goes on; ")
    assert bed.state().would_change == ("paused: 'swarmesh swarmscale resume' goes on",)


def test_explain_names_the_script_also_when_it_wants_what_the_rule_wants() -> None:
    bed = ScaleBed("elm", "oak").settle()
    bed.scale("a", 0, 3)
    script = scripted(bed, count=1)
    bed.submit("a")
    bed.run(10_000)
    says = "the policy script 'told.star' says how many; 'swarmesh policy deactivate' leaves it to the load"
    assert bed.state().would_change == (says,)
    script.count = None
    bed.run(2_000)
    assert bed.state().would_change[0].startswith("up: a mean load above 0.8")


def test_nobody_makes_room_where_the_script_will_not_have_the_newcomer() -> None:
    bed = ScaleBed(oak=5_000, laptop=10_000).settle()
    for model in ("a", "b"):
        bed.kinds[model] = Kind(need_mib=8_000)
        bed.scale(model)
    bed.submit("b")
    bed.run(20_000)
    script = scripted(bed)
    script.host = ""  # Nowhere at all, which it is asked about as if nothing were there.
    bed.load("b", 0.05, 300_000)
    task = bed.submit("a")
    bed.run(300_000)
    assert "laptop: kept from it by the policy script" in bed.failed[task].message
    assert all(host["free_mib"] == host["total_mib"] for host in script.asked if host.get("name") == "laptop")
    assert bed.decisions("b") == [("up", 1, "first_request")]
