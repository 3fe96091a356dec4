"""The log of running and recent tasks."""

from __future__ import annotations

import pytest

from swarmesh.core.errors import ConflictError, EngineError
from swarmesh.worker import token_log
from swarmesh.worker.errors import StaleAttemptError
from swarmesh.worker.token_log import TaskRecord, TokenLog


def ended(log: TokenLog, task_id: str, size_bytes: int = 4) -> TaskRecord:
    record = log.begin(task_id)
    record.end(b"x" * size_bytes, None)
    return record


def test_events_are_numbered_from_one_and_read_from_any_number() -> None:
    record = TaskRecord("t")
    assert (record.last_seq, record.after(0)) == (0, [])
    record.append(b"a")
    record.append(b"b")
    record.end(b"c", None)
    assert record.last_seq == 3
    assert record.after(0) == [b"a", b"b", b"c"]
    assert record.after(2) == [b"c"]
    assert record.after(3) == []


def test_a_number_that_was_never_reached_is_refused() -> None:
    record = TaskRecord("t")
    record.append(b"a")
    with pytest.raises(ConflictError, match="events 1 to 1; none can follow 2"):
        record.after(2)


def test_a_long_task_forgets_its_oldest_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_log, "TASK_BYTES_MAX", 10)
    record = TaskRecord("t")
    for number in range(6):
        record.append(b"%04d" % number)
    assert record.last_seq == 6
    assert record.after(4) == [b"0004", b"0005"]
    with pytest.raises(ConflictError, match="events 5 to 6"):
        record.after(3)


def test_an_attempt_that_takes_up_a_task_begins_behind_what_was_shown() -> None:
    record = TaskRecord("t", attempt=2, begun_after=4)
    assert (record.last_seq, record.after(4)) == (4, [])
    record.append(b"e")
    assert (record.last_seq, record.after(4), record.after(5)) == (5, [b"e"], [])
    with pytest.raises(ConflictError, match="taken up here after event 4; none can follow 3"):
        record.after(3)
    with pytest.raises(ConflictError, match="events 5 to 5; none can follow 6"):
        record.after(6)


def test_only_a_higher_attempt_takes_the_place_of_one_that_runs() -> None:
    log = TokenLog()
    first = log.begin("t", attempt=2, epoch=5)
    for attempt in (1, 2):
        with pytest.raises(StaleAttemptError, match=f"begun in epoch 5; attempt {attempt} came too late"):
            log.begin("t", attempt=attempt)
    assert log.get("t") is first
    second = log.begin("t", attempt=3)
    assert log.get("t") is second
    second.end(b"", None)
    assert log.begin("t", attempt=1).attempt == 1


def test_listeners_hear_of_every_change() -> None:
    record = TaskRecord("t")
    heard: list[tuple[int, bool, bool]] = []
    record.listeners.append(lambda: heard.append((record.last_seq, record.ended, record.error is not None)))
    record.append(b"a")
    record.end(b"b", EngineError("x"))
    assert heard == [(1, False, False), (2, True, True)]


def test_a_task_runs_once_at_a_time() -> None:
    log = TokenLog()
    record = log.begin("t")
    with pytest.raises(StaleAttemptError, match="attempt 0 of task t runs here"):
        log.begin("t")
    record.end(b"", None)
    assert log.begin("t") is not record
    assert log.get("t") is not record
    assert log.get("other") is None


def test_only_recent_tasks_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_log, "TASKS_MAX", 3)
    log = TokenLog()
    running = log.begin("running")
    for number in range(5):
        ended(log, f"t{number}")
    assert [log.get(f"t{number}") is not None for number in range(5)] == [False, False, True, True, True]
    assert log.get("running") is running


def test_ended_tasks_share_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_log, "LOG_BYTES_MAX", 100)
    log = TokenLog()
    for number in range(4):
        ended(log, f"t{number}", size_bytes=60)
    log.begin("next")
    assert [log.get(f"t{number}") is not None for number in range(4)] == [False, False, False, True]
