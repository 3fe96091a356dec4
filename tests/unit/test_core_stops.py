"""Workers that end: as they were asked to, within their grace, or by themselves."""

from __future__ import annotations

import pytest

from roster_bed import DRAINING, OAK, A, B, Hive
from swarmesh.core.commands import BreakStream, ForgetWorker, RaiseAlarm, StartStream, StopWorker
from swarmesh.core.roster import STOP_RETRY_MS


def test_an_empty_worker_is_stopped_at_once() -> None:
    hive = Hive(A)
    hive.stop()
    assert hive.last == [StopWorker(A, OAK, direct=False)]
    assert hive.worker().status is DRAINING


def test_what_runs_may_end_within_the_grace() -> None:
    hive = Hive(A)
    hive.submit()
    assert hive.stop(grace_ms=5_000) == []
    assert hive.tick(1_000) == []
    hive.end("t1")
    hive.tick(1_000)
    assert hive.last == [StopWorker(A, OAK, direct=False)]


def test_what_still_runs_after_the_grace_is_moved() -> None:
    hive = Hive(A)
    hive.submit()
    hive.stop(grace_ms=5_000)
    assert hive.tick(4_999) == []
    hive.tick(1)
    assert [broken.code for broken in hive.all(BreakStream)] == ["rustbee_stopped"]
    assert len(hive.all(StopWorker)) == 1


def test_a_second_request_may_shorten_the_grace_and_never_lengthen_it() -> None:
    hive = Hive(A)
    hive.submit()
    hive.stop(grace_ms=5_000)
    assert hive.stop(grace_ms=50_000) == []
    hive.tick(5_000)
    assert len(hive.all(StopWorker)) == 1
    hive = Hive(A)
    hive.submit()
    hive.stop(grace_ms=5_000)
    hive.stop(grace_ms=0)
    assert len(hive.all(StopWorker)) == 1


def test_a_stop_is_repeated_while_nothing_comes_of_it_and_not_every_tick() -> None:
    hive = Hive(A)
    hive.stop()
    assert [len(hive.tick(1_000)) for _ in range(STOP_RETRY_MS // 1_000)] == [0] * (STOP_RETRY_MS // 1_000 - 1) + [1]
    hive.stop()
    assert len(hive.all(StopWorker)) == 1
    hive.gone()
    assert hive.last == [ForgetWorker(A)]


def test_a_worker_to_be_stopped_is_not_waited_for_although_it_would_return() -> None:
    hive = Hive(A)
    hive.submit()
    hive.stop(grace_ms=60_000)
    hive.alarm(returning=True)
    assert not hive.worker().may_serve


@pytest.mark.parametrize("again", ["waggle", "register"])
def test_a_worker_that_was_to_stop_comes_back_only_to_end(again: str) -> None:
    hive = Hive(A)
    hive.submit()
    hive.stop(grace_ms=60_000)
    hive.alarm()
    _ = hive.waggle() if again == "waggle" else hive.register()
    assert hive.worker().status is DRAINING
    hive.submit()
    assert hive.all(StartStream) == []


def test_a_dead_worker_can_be_asked_to_stop() -> None:
    hive = Hive(A)
    hive.alarm()
    hive.stop()
    assert hive.last == [StopWorker(A, OAK, direct=False)]
    hive.waggle()
    assert hive.worker().status is DRAINING


def test_stopping_a_stranger_is_nothing() -> None:
    assert Hive().stop() == []


def test_a_worker_that_ends_unasked_raises_an_alarm_and_is_forgotten() -> None:
    hive = Hive(A)
    hive.submit()
    hive.gone()
    assert [type(command) for command in hive.last] == [RaiseAlarm, BreakStream, ForgetWorker]
    assert len(hive.swarm.fleet) == 0
    assert hive.gone() == []


def test_a_worker_that_ends_as_asked_raises_none() -> None:
    hive = Hive(A)
    hive.stop()
    hive.gone()
    assert hive.last == [ForgetWorker(A)]


def test_an_id_that_comes_back_after_it_was_forgotten_has_empty_books() -> None:
    hive = Hive(A, B)
    hive.submit(2)
    hive.gone(A)
    hive.register(A)
    assert hive.worker(A).running == {}
    hive.cut("t1")
    assert [(start.task_id, start.worker_id) for start in hive.all(StartStream)] == [("t1", B)]
    assert (hive.worker(A).running, hive.worker(A).backlog) == ({}, 0.0)
