"""The book of decisions: bounded, oldest out first, and what became of each attempt."""

from __future__ import annotations

from swarmesh.core.commands import CancelStream, FailTask, PreemptStream, StartStream
from swarmesh.core.decision import Decision
from swarmesh.core.errors import RustbeeLostError
from swarmesh.core.events import StreamBroke, StreamEnded
from swarmesh.core.ids import Blame, KeyId, ModelName, TaskId, WorkerId
from swarmesh.queen.decision_book import ATTEMPTS_MAX, DecisionBook, Outcome

BEE = WorkerId("rustbee-1")


def start(task: str, attempt: int = 1) -> StartStream:
    decision = Decision(TaskId(task), "swarm", BEE, 0.0, 1, ())
    return StartStream(TaskId(task), attempt, BEE, ModelName("m"), 0, decision)


def outcomes(book: DecisionBook, task: str) -> list[Outcome]:
    return [attempt.outcome for attempt in book.find(task)]


def test_an_attempt_has_one_end() -> None:
    book = DecisionBook()
    task = TaskId("t")
    book.started(start("t"))
    assert outcomes(book, "t") == [Outcome.RUNNING]
    book.broke(StreamBroke(task, 1, Blame.WORKER, "engine_crashed", "it aborted"))
    book.took_back(CancelStream(task, 1, BEE))
    book.started(start("t", 2))
    book.ended(StreamEnded(task, 1))
    book.took_back(PreemptStream(task, 2, BEE))
    book.started(start("t", 3))
    book.ended(StreamEnded(task, 3, 5, 9, cached_tokens=4, first_token_ms=70))
    book.broke(StreamBroke(task, 3, Blame.WORKER, "late", "late"))
    assert outcomes(book, "t") == [Outcome.BROKE, Outcome.PREEMPTED, Outcome.ENDED]
    first, _, last = book.find("t")
    assert first.why == "engine_crashed: it aborted"
    assert last.report == StreamEnded(task, 3, 5, 9, 4, 70)
    assert last.error == ""
    book.failed(FailTask(task, RustbeeLostError("gone")))
    assert last.error == "rustbee_lost: gone"


def test_the_oldest_tasks_are_forgotten_first_and_all_their_attempts_with_them() -> None:
    book = DecisionBook(decisions_max=4)
    for name in ("a", "b", "c"):
        book.started(start(name))
    book.started(start("a", 2))
    assert len(book) == 4
    book.started(start("d"))
    assert len(book) == 4
    assert book.find("b") == []
    assert [len(outcomes(book, name)) for name in ("c", "a", "d")] == [1, 2, 1]
    assert len(book._order) <= len(book)
    book.started(start("e"))
    book.started(start("f"))
    assert book.find("a") == [], "c went first, then a with both its attempts"
    assert len(book) == 3


def test_one_task_does_not_fill_the_book() -> None:
    book = DecisionBook(decisions_max=1000)
    book.started(start("other"))
    for attempt in range(1, ATTEMPTS_MAX + 50):
        book.started(start("t", attempt))
    assert len(book) == ATTEMPTS_MAX + 1
    assert len(outcomes(book, "t")) == ATTEMPTS_MAX
    assert len(book._order) == len(book), "nothing that was cut is kept elsewhere"
    alone = DecisionBook(decisions_max=3)
    for attempt in range(1, 10):
        alone.started(start("t", attempt))
    assert alone.find("t"), "the task that is decided about is never forgotten"


def test_an_answer_has_a_name_of_its_own() -> None:
    book = DecisionBook()
    for name in ("a", "b", "c"):
        book.started(start(name))
        book.ended(StreamEnded(TaskId(name), 1), "" if name == "c" else "chatcmpl-123")
    assert [attempt.task_id for attempt in book.find("chatcmpl-123")] == ["b"], "some servers number from 1 on"
    assert book.find("nobody") == book.find("") == []
    assert book.latest(TaskId("nobody")) is None


def test_what_was_never_started_is_nobodys_business() -> None:
    book = DecisionBook()
    book.ended(StreamEnded(TaskId("t"), 1))
    book.took_back(CancelStream(TaskId("t"), 0, None))
    book.failed(FailTask(TaskId("t"), RustbeeLostError("gone")))
    assert len(book) == 0


def test_a_task_may_be_tried_more_often_than_is_kept_while_others_come_and_go() -> None:
    book, number = DecisionBook(decisions_max=200), 0
    for attempt in range(1, ATTEMPTS_MAX + 100):
        book.started(start("long", attempt))
        for _ in range(10):
            number += 1
            book.started(start(f"other-{number}"))
    assert book.find("long")[-1].number == ATTEMPTS_MAX + 99
    assert len(book) <= 200


def test_a_key_finds_its_own_tasks_only() -> None:
    book = DecisionBook()
    ada, bob = KeyId("ada"), KeyId("bob")
    for name, key in (("a", ada), ("b", bob)):
        book.started(start(name), key)
        book.ended(StreamEnded(TaskId(name), 1), "chatcmpl-1")
    book.started(start("nobodys"))
    assert [attempt.task_id for attempt in book.find("a", ada)] == ["a"]
    assert book.find("a", bob) == book.find("nobodys", bob) == []
    assert [attempt.task_id for attempt in book.find("chatcmpl-1", ada)] == ["a"], "two servers may give one name"
    assert [attempt.task_id for attempt in book.find("chatcmpl-1")] == ["b"]
