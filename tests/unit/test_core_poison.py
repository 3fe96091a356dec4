"""Who crashes engines, who was only there, and what becomes of either."""

from __future__ import annotations

import pytest

from core_hive import HIGH, LOW, PID, Hive
from swarmesh.core.commands import RecordTask, StartStream
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import Blame, HostName, KeyId, ModelName, TaskId, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.poison import FINGERPRINTS_MAX, QUARANTINE_MS, PoisonBooks
from swarmesh.core.refusals import NOT_READY
from swarmesh.core.task import Task, TaskStatus

SAME = 7
"""Fingerprint of the request that is asked again and again."""


def a_swarm(count: int = 5, *, slots: int = 1) -> Hive:
    return Hive(*(f"w{number}" for number in range(count)), slots=slots)


def restart(hive: Hive, name: str, *, slots: int = 1) -> None:
    """The agent started its engine again: the next one, with a pid of its own."""
    hive.alarm(name, "engine_crashed", returning=True)
    hive.cut_as_asked()
    hive.waggle(name, slots=slots, engine_pid=hive.worker(name).engine_pid + 1)


# Two crashes are enough


def test_a_task_that_crashes_two_engines_alone_is_poison() -> None:
    hive = a_swarm()
    hive.submit("t", fingerprint=SAME)
    hive.crash("t")
    assert (hive.task("t").kills, hive.starts()) == (1, [("t", "w1", 2)])
    assert hive.only(StartStream).watched
    hive.crash("t")
    error = hive.failure()
    assert (error.code, error.status) == ("failed_poison", 422)
    assert "it crashed 2 engines" in error.message
    assert hive.is_at_rest()


def test_a_suspect_whose_worker_was_not_ready_leaves_no_probation_behind() -> None:
    hive = a_swarm(3)
    hive.submit("t", fingerprint=SAME)
    hive.crash("t")
    assert (hive.running("w1"), hive.worker("w1").probation) == (["t"], "t")
    hive.cut("t", code=NOT_READY)
    assert (hive.worker("w1").status, hive.worker("w1").probation) == (WorkerStatus.STARTING, None)
    assert (hive.running("w2"), hive.task("t").moves) == (["t"], 1), "and it is no move"
    hive.crash("t")
    assert hive.failures() == {"t": "failed_poison"}
    assert [worker.probation for worker in map(hive.worker, ("w0", "w1", "w2"))] == [None] * 3


@pytest.mark.parametrize("code", ["engine_died", "engine_stuck", "stream_cut", "rustbee_silent"])
def test_engines_that_somebody_killed_are_nobodys_fault(code: str) -> None:
    hive = a_swarm()
    hive.submit("t", fingerprint=SAME)
    for _ in range(3):
        hive.cut("t", code=code)
    assert hive.task("t").kills == 0
    assert not hive.only(StartStream).watched
    hive.cut("t", code=code)
    assert hive.failures() == {"t": "rustbee_lost"}
    hive.submit("twin", fingerprint=SAME)
    assert hive.failures() == {}


def test_poison_is_said_also_when_the_task_could_not_have_moved_anyway() -> None:
    hive = a_swarm(2)
    hive.submit("t")
    hive.crash("t")
    hive.cut("t", code="engine_crashed", resumable=False)
    assert hive.failures() == {"t": "failed_poison"}


def test_an_engine_that_the_swarm_stopped_is_not_held_against_its_tasks() -> None:
    hive = a_swarm()
    hive.submit("t")
    hive.cut("t", code="engine_crashed", blame=Blame.SWARM)
    assert (hive.task("t").kills, hive.task("t").moves) == (0, 0)


def test_kills_are_recorded_with_every_change_of_a_durable_task() -> None:
    hive = a_swarm()
    hive.submit("t", durable=True)
    hive.crash("t")
    assert [(c.status, c.kills) for c in hive.all(RecordTask)] == [(TaskStatus.QUEUED, 1), (TaskStatus.RUNNING, 1)]
    hive.crash("t")
    assert [(c.status, c.kills) for c in hive.all(RecordTask)] == [(TaskStatus.FAILED, 2)]


# Company, probation, culprits


def test_when_it_cannot_be_told_who_did_it_all_are_on_probation() -> None:
    hive = a_swarm(1, slots=3)
    for name in ("t1", "t2", "t3"):
        hive.submit(name)
    for name in ("t3", "t2", "t1"):
        hive.crash(name)
    assert [hive.task(name).kills for name in ("t1", "t2", "t3")] == [1, 1, 1]
    assert all(hive.task(name).on_probation for name in ("t1", "t2", "t3"))


def test_no_two_on_probation_run_on_one_worker_until_one_has_brought_something() -> None:
    hive = a_swarm(1, slots=3)
    for name in ("t1", "t2", "t3"):
        hive.submit(name)
    hive.alarm("w0", "engine_crashed", returning=True)
    hive.cut_as_asked()
    hive.waggle("w0", slots=3, engine_pid=PID + 1)
    assert (hive.running("w0"), hive.waiting()) == (["t1"], ["t2", "t3"])
    hive.submit("other")  # Only those on probation keep apart.
    assert hive.running("w0") == ["t1", "other"]
    hive.progress("t1", 2)
    assert hive.starts() == [("t2", "w0", 2)]
    hive.end("t2", 2)
    assert hive.starts() == [("t3", "w0", 2)]
    for name, attempt in (("t1", 2), ("t3", 2), ("other", 1)):
        hive.end(name, attempt)
    assert hive.is_at_rest()


def test_those_on_probation_run_side_by_side_on_different_workers() -> None:
    hive = a_swarm(1, slots=2)
    hive.submit("t1")
    hive.submit("t2")
    hive.register("w1", slots=2)
    hive.register("w2", slots=2)
    hive.alarm("w0", "engine_crashed")
    hive.cut_as_asked()
    assert {hive.task(name).worker_id for name in ("t1", "t2")} == {"w1", "w2"}


@pytest.mark.parametrize("order", [("bad", "on-b"), ("on-b", "bad")], ids=["culprit first", "company first"])
def test_the_second_crash_names_its_culprit_whoever_breaks_first(order: tuple[str, str]) -> None:
    hive = Hive("a", slots=2)
    hive.submit("bad", fingerprint=SAME)
    hive.submit("innocent")
    hive.register("b", slots=2)
    hive.submit("on-b")
    hive.crash("bad")
    hive.crash("innocent")  # Both are on probation now, and only one of them may be on b.
    assert (hive.running("b"), hive.waiting()) == (["on-b", "bad"], ["innocent"])
    hive.register("c", slots=4)
    assert hive.running("c") == ["innocent"]
    for name in order:
        hive.crash(name)
    assert not hive.is_open("bad")
    assert hive.worker("b").probation is None
    assert (hive.task("on-b").kills, hive.running("c")) == (0, ["innocent", "on-b"])
    for name in ("innocent", "on-b"):
        hive.end(name, 2)
    assert hive.is_at_rest()


def test_the_alarm_before_the_broken_streams_counts_the_crash_once() -> None:
    hive = Hive("a", "b")
    hive.submit("t")
    hive.alarm("a", "engine_crashed", returning=True)
    hive.cut_as_asked()
    assert (hive.task("t").kills, hive.starts()) == (1, [("t", "b", 2)])


def test_the_alarm_after_the_broken_streams_counts_the_crash_once() -> None:
    hive = Hive("a", "b")
    hive.submit("t")
    hive.crash("t")
    hive.alarm("a", "engine_crashed", returning=True)
    assert hive.cut_as_asked() == []
    assert hive.task("t").kills == 1


def test_a_task_that_was_given_to_an_engine_already_gone_is_not_suspected() -> None:
    hive = Hive("a", slots=2)
    hive.submit("t1")
    hive.submit("t2")
    hive.submit("waits")
    hive.crash("t2")
    assert hive.starts() == [("waits", "a", 1)]  # A suspect is better than nobody, and its end is not known yet.
    hive.crash("t1")
    hive.alarm("a", "engine_crashed", returning=True)
    hive.cut_as_asked()
    assert [hive.task(name).kills for name in ("t1", "t2", "waits")] == [1, 1, 0]


def test_a_stream_that_breaks_after_the_next_engine_was_reported_belongs_to_the_first_crash() -> None:
    hive = Hive("a", "b", slots=2)
    for name in ("t1", "on-b", "t2"):
        hive.submit(name, fingerprint=SAME if name == "t2" else 0)
    assert hive.running("a") == ["t1", "t2"]
    hive.crash("t1")
    hive.waggle("a", slots=2, engine_pid=PID + 1)
    hive.crash("t2")  # It was not alone on the engine that crashed, and so is not proven to be the one.
    assert (hive.task("t2").kills, hive.swarm.dispatcher.admission.poison.kills_of(SAME, hive.now_ms)) == (1, 0)


def test_the_crash_of_the_next_engine_is_another_one_also_when_news_of_the_first_came_late() -> None:
    hive = Hive("a", "b", slots=2)
    for name in ("t1", "on-b", "t2"):
        hive.submit(name)
    hive.crash("t1")
    hive.waggle("a", slots=2, engine_pid=PID + 1)
    hive.crash("t2")
    for name in ("t1", "t2"):
        hive.cancel(name)
    hive.end("on-b")
    hive.waggle("a", slots=2, engine_pid=PID + 1)
    hive.submit("next")
    hive.crash("next")
    assert hive.task("next").kills == 1


def test_a_task_cleared_and_alone_at_the_second_crash_is_poison() -> None:
    hive = a_swarm()
    hive.submit("t")
    hive.crash("t")
    hive.progress("t", 2)
    hive.crash("t")
    assert hive.failures() == {"t": "failed_poison"}


def test_one_that_crashes_late_and_in_company_is_watched_to_its_end_and_found() -> None:
    hive = a_swarm(4, slots=2)
    hive.submit("late")
    for number in range(4):
        hive.submit(f"company-{number}")
    crashes = 0
    while hive.is_open("late"):
        crashes += 1
        home = str(hive.task("late").worker_id)
        if hive.task("late").attempt > 1:
            hive.progress("late", hive.task("late").attempt)
        company = [name for name in hive.running(home) if name != "late"]
        for name in ["late", *company]:
            hive.crash(name)
        for name in company:
            if hive.is_open(name) and hive.task(name).worker_id:
                hive.progress(name, hive.task(name).attempt)
        restart(hive, home, slots=2)
    assert crashes <= 3
    assert all(hive.is_open(f"company-{number}") for number in range(4))


def test_progress_does_not_clear_one_that_is_watched_to_its_end() -> None:
    hive = Hive("a", "b", slots=2)
    hive.submit("t")
    hive.task("t").kills, hive.task("t").watched_to_end = 1, True
    hive.cut("t")
    assert hive.worker("b").probation == "t"
    hive.progress("t", 2)
    assert (hive.worker("b").probation, hive.task("t").on_probation) == ("t", True)
    hive.end("t", 2)
    assert hive.is_at_rest()


# Probation is always given back


@pytest.mark.parametrize("how", ["end", "cancel", "refused", "swarm", "stream_cut", "not resumable", "crash"])
def test_the_workers_probation_ends_with_the_stream_however_it_ends(how: str) -> None:
    hive = Hive("a", slots=2)
    hive.accept("t", kills=1)
    assert hive.worker("a").probation == "t"
    match how:
        case "end":
            hive.end("t")
        case "cancel":
            hive.cancel("t")
        case "refused":
            hive.cut("t", blame=Blame.TASK)
        case "swarm":
            hive.worker("a").status = WorkerStatus.DRAINING
            hive.cut("t", blame=Blame.SWARM)
        case "stream_cut":
            hive.cut("t")
        case "not resumable":
            hive.cut("t", resumable=False)
        case _:
            hive.crash("t")
    assert hive.worker("a").probation is None


def test_a_refused_task_on_probation_leaves_room_for_the_next_and_takes_no_blame() -> None:
    hive = Hive("a", slots=2)
    hive.accept("refused", kills=1)
    hive.accept("next", kills=1)
    hive.cut("refused", blame=Blame.TASK)
    assert hive.starts() == [("next", "a", 1)]
    hive.crash("next")
    assert hive.failures() == {"next": "failed_poison"}


def test_late_progress_of_an_attempt_before_clears_nobody() -> None:
    hive = a_swarm()
    hive.submit("t")
    hive.crash("t")
    assert hive.progress("t", 1) == []
    assert hive.task("t").on_probation


def test_registering_again_keeps_the_probation_and_the_crash() -> None:
    hive = Hive("a", slots=2)
    hive.accept("t", kills=1)
    hive.register("a", slots=2)
    assert hive.worker("a").probation == "t"
    hive.crash("t")
    hive.register("a", slots=2, ready=False)
    assert hive.worker("a").crash is not None


def test_another_model_has_no_probation() -> None:
    hive = Hive("a", slots=2)
    hive.accept("t", kills=1)
    hive.register("a", slots=2, model="demo")
    assert hive.worker("a").probation is None
    hive.cut_as_asked()
    assert hive.worker("a").probation is None


# Twins


def test_requests_that_ask_the_same_are_refused_for_a_while() -> None:
    hive = a_swarm(6)
    hive.submit("t", fingerprint=SAME)
    hive.crash("t")
    hive.crash("t")
    hive.submit("twin", fingerprint=SAME)
    assert (hive.failure().code, hive.failure().status) == ("quarantined", 422)
    assert "crashed 2 engines" in hive.failure().message
    hive.submit("other", fingerprint=SAME + 1)
    hive.submit("nobody knows", fingerprint=0)
    assert hive.running("w2") + hive.running("w3") == ["other", "nobody knows"]
    hive.tick(QUARANTINE_MS)
    hive.submit("still", fingerprint=SAME)
    assert hive.failures() == {"still": "quarantined"}
    hive.tick(1)
    hive.submit("again", fingerprint=SAME)
    assert hive.failures() == {}


def test_tasks_of_no_known_fingerprint_are_never_quarantined() -> None:
    hive = a_swarm(6)
    for name in ("t1", "t2"):
        hive.submit(name)
        hive.crash(name)
        hive.crash(name)
        assert hive.failures() == {name: "failed_poison"}
        for worker in ("w0", "w1", "w2", "w3"):
            hive.waggle(worker, engine_pid=hive.worker(worker).engine_pid + 1)


def test_waiting_twins_are_told_why_and_the_rest_is_served() -> None:
    hive = Hive("a", "b")
    hive.submit("bad", fingerprint=SAME)
    hive.crash("bad")
    hive.submit("on-a")
    for name in ("twin", "durable"):
        hive.submit(name, fingerprint=SAME, durable=name == "durable")
    hive.submit("other", fingerprint=SAME + 1)
    hive.crash("bad")
    assert hive.failures() == {"bad": "failed_poison", "twin": "quarantined", "durable": "quarantined"}
    assert [(c.task_id, c.status) for c in hive.all(RecordTask)] == [("durable", TaskStatus.FAILED)]
    assert hive.starts() == [("other", "b", 1)]
    assert hive.waiting() == []


def test_a_preempted_twin_ends_too() -> None:
    hive = Hive("a", "b", "c")
    hive.submit("twin", fingerprint=SAME, priority=LOW)
    hive.submit("bad", fingerprint=SAME, priority=HIGH)
    for number in range(2):
        hive.submit(f"urgent-{number}", priority=HIGH)
    assert hive.task("twin").status is TaskStatus.PREEMPTED
    hive.submit("next", priority=HIGH)
    hive.crash("bad")
    hive.end("urgent-0")
    assert (hive.running("b"), hive.running("c"), hive.waiting()) == (["next"], ["bad"], ["twin"])
    hive.crash("bad")
    assert hive.failures() == {"bad": "failed_poison", "twin": "quarantined"}


def test_a_twin_of_one_that_crashed_an_engine_is_watched_from_the_start() -> None:
    hive = a_swarm()
    hive.submit("t", fingerprint=SAME)
    hive.crash("t")
    hive.submit("twin", fingerprint=SAME)
    assert (hive.only(StartStream).watched, hive.task("twin").kills) == (True, 1)
    hive.crash("twin")
    assert hive.failures() == {"twin": "failed_poison"}


def test_twins_that_ran_already_do_not_have_two_engines_each() -> None:
    hive = a_swarm(8)
    for number in range(3):
        hive.submit(f"twin-{number}", fingerprint=SAME)
    hive.crash("twin-0")
    hive.crash("twin-1")
    assert hive.failures() == {"twin-1": "failed_poison"}
    hive.crash("twin-2")
    assert hive.failures() == {"twin-2": "failed_poison"}
    hive.end("twin-0", 2)
    assert hive.is_at_rest()


def test_a_crash_in_company_proves_nothing_against_a_fingerprint() -> None:
    hive = Hive("a", slots=2)
    hive.submit("t1", fingerprint=SAME)
    hive.submit("t2", fingerprint=SAME)
    hive.alarm("a", "engine_crashed", returning=True)
    hive.cut_as_asked()
    assert hive.swarm.dispatcher.admission.poison.kills_of(SAME, hive.now_ms) == 0


def test_what_was_accepted_before_is_watched_and_not_refused() -> None:
    hive = a_swarm(6)
    hive.submit("t", fingerprint=SAME)
    hive.crash("t")
    hive.crash("t")
    hive.accept("kept", fingerprint=SAME)
    assert hive.only(StartStream).watched
    hive.crash("kept")
    assert hive.failures() == {"kept": "failed_poison"}


def test_the_books_hold_so_many_fingerprints_and_forget_the_oldest() -> None:
    books = PoisonBooks()
    for fingerprint in range(1, FINGERPRINTS_MAX + 2):
        worker = Worker(
            WorkerId("w"), ModelName("m"), "cpu", HostName("h"), "", 1, False, 0, WorkerStatus.HEALTHY, engine_pid=PID
        )
        task = Task(TaskId("t"), ModelName("m"), LOW, KeyId("k"), False, 1, 1, 0, LOW, fingerprint=fingerprint)
        task.engine_pid = PID
        books.blame(task, worker, 0)
    kept = [fingerprint for fingerprint in range(1, FINGERPRINTS_MAX + 2) if books.kills_of(fingerprint, 0)]
    assert (len(kept), kept[0]) == (FINGERPRINTS_MAX, 2)
