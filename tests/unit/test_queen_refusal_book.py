"""The book of refusals: bounded, and what would have helped."""

from __future__ import annotations

import msgspec
import pytest

from core_hive import Hive
from swarmesh.core import errors
from swarmesh.core.errors import NotFoundError, QueueFullError, SwarmeshError
from swarmesh.core.events import TaskSubmitted
from swarmesh.core.fleet import Fleet
from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId
from swarmesh.queen.refusal_book import WORDS_MAX, RefusalBook, Refused
from swarmesh.queen.would_let_in import WORKERS_NAMED_MAX, would_let_in

ASKED = TaskSubmitted(TaskId("t"), ModelName("m"), Priority.HIGH, KeyId("k"), 10, 5, prefix=(1, 2, 3))


def refused(error: SwarmeshError) -> Refused:
    book = RefusalBook()
    book.add(ASKED, error)
    found = book.find(ASKED.task_id)
    assert found is not None
    return found


def test_a_refusal_is_kept_as_it_was_told() -> None:
    kept = refused(QueueFullError("too many", retry_after_s=5))
    assert (kept.code, kept.status, kept.message, kept.retry_after_s) == ("queue_full", 429, "too many", 5)
    assert kept.hint == QueueFullError.default_hint
    assert kept.submitted == msgspec.structs.replace(ASKED, prefix=())
    assert kept.at_s > 0
    assert len(refused(SwarmeshError("x" * 10_000)).message) == WORDS_MAX


def test_the_oldest_are_forgotten_first_and_one_task_counts_once() -> None:
    book = RefusalBook(refusals_max=2)
    for name in ("a", "b", "a", "c"):
        book.add_unread(TaskId(name), SwarmeshError("no"))
    assert book.find(TaskId("b")) is None
    assert [book.find(TaskId(name)) is not None for name in ("a", "c")] == [True, True]
    assert len(book) == 2


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SwarmeshError)],
)
def test_something_would_help_whatever_it_was(kind: type[SwarmeshError]) -> None:
    sentences = would_let_in(refused(kind()), Fleet())
    assert sentences
    assert all(sentences)


def test_the_time_to_come_again_is_told_first() -> None:
    first, *others = would_let_in(refused(QueueFullError(retry_after_s=5)), Fleet())
    assert first == "to come again after 5 s"
    assert others


def test_what_each_worker_lacks() -> None:
    hive = Hive()
    for number in range(WORKERS_NAMED_MAX + 2):
        hive.register(f"w{number:02d}", model="m")
    sentences = would_let_in(refused(errors.NoStableRustbeesError()), hive.swarm.fleet)
    assert sentences[0] == "w00 with a free slot"
    assert sentences[WORKERS_NAMED_MAX] == "or any of 2 more"
    assert not any("swarmscale" in sentence for sentence in sentences), "there are rustbees"
    nobody = would_let_in(refused(errors.NoRustbeesAvailableError()), Fleet())
    assert any("swarmesh swarmscale set m" in sentence for sentence in nobody)


def test_what_is_not_known_goes_by_its_hint() -> None:
    assert would_let_in(refused(NotFoundError(hint="Look there.")), Fleet()) == ("Look there.",)


def test_a_key_finds_its_own_refusals_only() -> None:
    book = RefusalBook()
    book.add(ASKED, SwarmeshError("no"))
    book.add_unread(TaskId("unread"), SwarmeshError("no"), KeyId("k"))
    book.add_unread(TaskId("nobodys"), SwarmeshError("no"))
    mine = [book.find(TaskId(name), KeyId("k")) is not None for name in ("t", "unread", "nobodys")]
    assert mine == [True, True, False]
    assert [book.find(TaskId(name), KeyId("other")) for name in ("t", "unread")] == [None, None]
