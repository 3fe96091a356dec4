"""Hosts whose connection breaks, and hosts that are to be free."""

from __future__ import annotations

import pytest

from core_hive import Hive
from swarmesh.core.commands import BreakStream, RaiseAlarm, StopWorker
from swarmesh.core.events import HostProbed, SpawnRequested
from swarmesh.core.ids import Blame, HostName, ModelName, WorkerId
from swarmesh.core.liveness import EXPIRY_FACTOR, WorkerStatus
from swarmesh.core.patience import PATIENCE_MS
from swarmesh.core.roster import REST_INTERVAL_MS

EXPIRY_MS = int(REST_INTERVAL_MS * EXPIRY_FACTOR)
DEAD, DRAINING, HEALTHY, SUSPECT = (
    WorkerStatus.DEAD,
    WorkerStatus.DRAINING,
    WorkerStatus.HEALTHY,
    WorkerStatus.SUSPECT,
)


def hive_of(**workers_of: str) -> Hive:
    hive = Hive()
    hive.settle(**workers_of)
    return hive


def statuses(hive: Hive) -> dict[str, WorkerStatus]:
    return {worker.worker_id: worker.status for worker in hive.swarm.fleet}


# A host is lost


def test_every_worker_of_a_lost_host_is_silent_at_once_and_no_other() -> None:
    hive = hive_of(oak="a b", elm="c d")
    hive.lose("oak")
    assert [worker.worker_id for worker in hive.swarm.fleet if worker.silent] == ["a", "b"]
    for name in ("t1", "t2", "t3"):
        hive.submit(name)
    assert (hive.running("c"), hive.running("d"), hive.waiting()) == (["t1"], ["t2"], ["t3"])


def test_the_alarm_names_the_host_and_the_reason() -> None:
    hive = hive_of(oak="a", elm="b", ash="c")
    hive.lose("oak")
    alarm = hive.only(RaiseAlarm)
    assert (alarm.worker_id, alarm.code) == ("a", "rustbee_silent")
    assert alarm.message == "a is out of reach: the connection to oak broke: ssh ended"


def test_a_server_that_was_adopted_is_not_reached_over_the_hosts_connection() -> None:
    hive = hive_of(oak="a")
    hive.register("adopted", direct=True)
    hive.lose("oak")
    assert not hive.worker("adopted").silent
    hive.submit("t")
    assert hive.starts() == [("t", "adopted", 1)]


def test_a_worker_that_has_not_introduced_itself_yet_is_left_to_its_start() -> None:
    hive = Hive()
    hive.tell(HostProbed(HostName("oak"), 10_000, 10_000))
    hive.tell(SpawnRequested(WorkerId("new"), ModelName("qwen"), "cpu", HostName("oak"), 1, 100))
    assert hive.lose("oak") == []
    hive.register("new")
    hive.submit("t")
    assert hive.starts() == [("t", "new", 1)]


def test_losing_a_host_twice_or_one_without_workers_is_no_news() -> None:
    hive = hive_of(oak="a", elm="b", ash="c")
    hive.lose("oak")
    assert hive.lose("oak", "nowhere") == []


@pytest.mark.parametrize("others", ["", "b", "b c", "b c d"])
def test_one_worker_of_a_small_fleet_is_buried_whatever_its_share(others: str) -> None:
    hive = hive_of(oak="a", elm=others)
    hive.lose("oak")
    assert hive.worker("a").status is DEAD


@pytest.mark.parametrize("elms", ["c", "c d"])
def test_half_a_fleet_on_one_host_is_held_and_its_tasks_move_all_the_same(elms: str) -> None:
    hive = hive_of(oak="a b", elm=elms)
    for name in ("t1", "t2"):
        hive.submit(name)
    hive.lose("oak")
    assert (hive.worker("a").status, hive.worker("b").status, hive.worker("b").held) == (DEAD, SUSPECT, True)
    assert [code for _, code in hive.alarms()] == ["rustbee_silent", "eviction_held"]
    # The core wants the first one's streams broken; those of both have broken with the connection.
    hive.cut("t2", code="stream_cut")
    hive.cut("t1", code="stream_cut")
    running = [task for worker in elms.split() for task in hive.running(worker)]
    assert sorted(running + hive.waiting()) == ["t1", "t2"]
    assert running
    for worker in elms.split():
        for task in list(hive.running(worker)):
            hive.end(task, attempt=2)
    for task in hive.running("c"):
        hive.end(task, attempt=2)
    assert hive.is_at_rest()


def test_a_worker_held_with_its_host_gets_nothing_however_many_tasks_wait() -> None:
    hive = hive_of(oak="a b", elm="c")
    hive.lose("oak")
    hive.submit("t1")
    hive.submit("t2")
    assert (hive.running("c"), hive.waiting()) == (["t1"], ["t2"])
    hive.tick()
    assert hive.waiting() == ["t2"]


def test_a_worker_held_with_its_host_is_buried_when_its_lease_is_over_too() -> None:
    hive = hive_of(oak="a b", elm="c")
    hive.lose("oak")
    for _ in range(EXPIRY_MS // 2_000 + 1):
        hive.waggle("c")
        hive.tick(2_000)
    assert statuses(hive) == {"a": DEAD, "b": DEAD, "c": HEALTHY}


def test_who_waits_for_a_lost_host_that_had_the_only_workers_waits_no_longer_than_patience_lasts() -> None:
    hive = hive_of(oak="a b")
    hive.submit("t1")
    hive.submit("t2")
    hive.lose("oak")
    hive.cut("t1")
    hive.cut("t2")
    assert sorted(hive.waiting()) == ["t1", "t2"]
    hive.wait(PATIENCE_MS + 3_000)
    assert hive.failures() == {"t1": "no_stable_rustbees", "t2": "no_stable_rustbees"}
    assert "and silent" in hive.failure_of("t1").message


def test_a_host_that_comes_back_brings_its_workers_back_dead_and_held_alike() -> None:
    hive = hive_of(oak="a b", elm="c")
    hive.submit("t")
    hive.lose("oak")
    hive.cut("t")
    assert hive.running("c") == ["t"]
    for name in ("a", "b"):
        hive.submit(f"for-{name}")
    assert sorted(hive.waiting()) == ["for-a", "for-b"]
    hive.heard("b")  # Suspect, it is the last choice, and now the only one.
    assert hive.running("b") == ["for-a"]
    hive.heard("a")
    assert hive.running("a") == []  # Dead: what it can do its next report says.
    hive.waggle("a")
    hive.waggle("b")
    assert hive.running("a") == ["for-b"]
    assert statuses(hive) == {"a": HEALTHY, "b": HEALTHY, "c": HEALTHY}
    assert not any(worker.held or worker.silent or worker.returning for worker in hive.swarm.fleet)


def test_a_lost_host_counts_for_nothing_during_the_amnesty_but_gets_nothing_either() -> None:
    hive = Hive(amnesty_until_ms=60_000)
    hive.settle(oak="a", elm="b")
    assert hive.lose("oak") == []
    assert hive.worker("a").status is HEALTHY
    hive.submit("t1")
    hive.submit("t2")
    assert (hive.running("a"), hive.running("b"), hive.waiting()) == ([], ["t1"], ["t2"])


# A host is to be free


def test_streams_move_at_once_where_another_host_serves_the_model() -> None:
    hive = hive_of(oak="a b", elm="c")
    hive.submit("t1")
    hive.submit("t2")
    hive.drain("oak")
    assert statuses(hive) == {"a": DRAINING, "b": DRAINING, "c": HEALTHY}
    broken = hive.all(BreakStream)
    assert [(stream.task_id, stream.code, stream.blame) for stream in broken] == [
        ("t1", "rustbee_stopped", Blame.SWARM),
        ("t2", "rustbee_stopped", Blame.SWARM),
    ]
    assert broken[0].message == "a is stopped, as its host oak is drained"
    hive.cut_as_asked()
    assert (hive.running("c"), hive.waiting()) == (["t1"], ["t2"])
    assert (hive.task("t1").moves, hive.task("t1").tried) == (0, set())
    hive.tick()
    assert [stop.worker_id for stop in hive.all(StopWorker)] == ["a", "b"]


def test_tasks_that_only_that_host_can_do_get_the_grace() -> None:
    hive = hive_of(oak="a", elm="other")
    hive.register("other", model="demo", host="elm")
    hive.submit("t")
    assert hive.drain("oak", 30_000) == []
    hive.wait(29_000)
    assert hive.running("a") == ["t"]
    hive.end("t")
    hive.tick(500)
    assert len(hive.all(StopWorker)) == 1


def test_what_still_runs_after_the_grace_is_broken_off() -> None:
    hive = hive_of(oak="a")
    hive.submit("t")
    hive.drain("oak", 5_000)
    hive.wait(5_000)
    assert [(stream.task_id, stream.blame) for stream in hive.all(BreakStream)] == [("t", Blame.SWARM)]
    assert len(hive.all(StopWorker)) == 1


def test_an_answer_that_cannot_be_gone_on_with_may_end_where_it_is() -> None:
    hive = Hive()
    hive.register("a", slots=2)
    hive.register("b", slots=2, host="elm")
    hive.submit("firm", resumable=False)
    hive.submit("filler")
    hive.submit("movable")
    assert hive.running("a") == ["firm", "movable"]
    hive.drain("oak")
    assert [stream.task_id for stream in hive.all(BreakStream)] == ["movable"]
    hive.cut_as_asked()
    assert (hive.running("a"), hive.running("b")) == (["firm"], ["filler", "movable"])
    hive.end("firm")
    hive.tick()
    assert len(hive.all(StopWorker)) == 1


@pytest.mark.parametrize("why_not", ["same host", "silent", "starting", "dead", "draining", "no slots", "other model"])
def test_a_worker_that_cannot_take_over_now_is_nobody_to_move_to(why_not: str) -> None:
    hive = hive_of(oak="a")
    hive.submit("t")
    elsewhere = "oak" if why_not == "same host" else "elm"
    model = "demo" if why_not == "other model" else "qwen"
    hive.register("b", host=elsewhere, ready=why_not != "starting", model=model)
    if why_not == "silent":
        hive.silent("b")
    if why_not == "dead":
        hive.alarm("b")
    if why_not == "draining":
        hive.submit("keeps-b-busy")
        hive.stop("b", grace_ms=60_000)
    if why_not == "no slots":
        hive.waggle("b", slots=0)
    hive.drain("oak")
    assert hive.all(BreakStream) == []
    assert hive.running("a") == ["t"]


def test_draining_twice_with_less_grace_shortens_it() -> None:
    hive = hive_of(oak="a")
    hive.submit("t")
    hive.drain("oak", 60_000)
    hive.drain("oak", 0)
    assert [stream.task_id for stream in hive.all(BreakStream)] == ["t"]
    assert len(hive.all(StopWorker)) == 1


def test_no_grace_breaks_each_stream_once_wherever_it_goes_on() -> None:
    hive = hive_of(oak="a", elm="b")
    hive.submit("t")
    hive.drain("oak", 0)
    assert [stream.task_id for stream in hive.all(BreakStream)] == ["t"]


def test_empty_workers_stop_at_once_and_other_hosts_notice_nothing() -> None:
    hive = hive_of(oak="a b", elm="c")
    hive.drain("oak")
    assert [stop.worker_id for stop in hive.last if isinstance(stop, StopWorker)] == ["a", "b"]
    hive.submit("t")
    assert hive.starts() == [("t", "c", 1)]
    assert hive.drain("nowhere") == []


def test_new_tasks_for_a_model_that_only_a_drained_host_has_are_refused_as_for_a_stopped_worker() -> None:
    hive = hive_of(oak="a")
    hive.submit("runs")
    hive.submit("waits")
    hive.submit("kept", durable=True)
    hive.drain("oak", 10 * PATIENCE_MS)
    hive.submit("late")
    assert hive.failures() == {"late": "no_rustbees_available"}
    hive.wait(PATIENCE_MS + 3_000)
    assert hive.failures() == {"waits": "no_rustbees_available"}
    assert (hive.running("a"), hive.waiting()) == (["runs"], ["kept"])
