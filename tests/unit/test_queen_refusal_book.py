"""The book of refusals: bounded, and what would have helped."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from core_hive import Hive
from swarmesh.core import errors
from swarmesh.core.errors import NotFoundError, QueueFullError, SwarmeshError
from swarmesh.core.events import ModelScaled, ScalingPaused, TaskSubmitted
from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId
from swarmesh.core.refusals import kept_from_all
from swarmesh.core.scale_bounds import Bounds
from swarmesh.core.scale_sites import BARRED
from swarmesh.core.script import Facts, Hook
from swarmesh.core.swarm import Swarm
from swarmesh.queen.refusal_book import WORDS_MAX, RefusalBook, Refused
from swarmesh.queen.spawning import OTHER_GPUS
from swarmesh.queen.would_let_in import WORKERS_NAMED_MAX, would_let_in

ASKED = TaskSubmitted(TaskId("t"), ModelName("m"), Priority.HIGH, KeyId("k"), 10, 5, prefix=(1, 2, 3))


class NoScript:
    """A script that is never asked."""

    name = "mine.star"
    hooks: frozenset[Hook] = frozenset()

    def admit(self, _task: Facts) -> str | None:
        raise AssertionError

    def score(self, _task: Facts, _workers: Sequence[Facts]) -> Sequence[float | None]:
        raise AssertionError

    def place(self, _model: Facts, _hosts: Sequence[Facts]) -> Sequence[float | None]:
        raise AssertionError

    def scale(self, _model: Facts, _stats: Facts) -> int | None:
        raise AssertionError


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
    sentences = would_let_in(refused(kind()), Swarm(), 0)
    assert sentences
    assert all(sentences)


def test_the_time_to_come_again_is_told_first() -> None:
    first, *others = would_let_in(refused(QueueFullError(retry_after_s=5)), Swarm(), 0)
    assert first == "to come again after 5 s"
    assert others


def test_what_each_worker_lacks() -> None:
    hive = Hive()
    for number in range(WORKERS_NAMED_MAX + 2):
        hive.register(f"w{number:02d}", model="m")
    sentences = would_let_in(refused(errors.NoStableRustbeesError()), hive.swarm, hive.now_ms)
    assert sentences[0] == "w00 with a free slot"
    assert sentences[WORKERS_NAMED_MAX] == "or any of 2 more"
    assert not any("swarmscale" in sentence for sentence in sentences), "there are rustbees"
    nobody = would_let_in(refused(errors.NoRustbeesAvailableError()), Swarm(), 0)
    assert any("swarmesh swarmscale set m" in sentence for sentence in nobody)


@pytest.mark.parametrize(
    ("every", "own", "resume"),
    [
        (True, False, "'swarmesh swarmscale resume' goes on"),
        (False, True, "'swarmesh swarmscale resume m' goes on"),
        (True, True, "'swarmesh swarmscale resume' and 'swarmesh swarmscale resume m' go on"),
    ],
)
def test_while_scaling_is_paused_its_end_would_have_helped(*, every: bool, own: bool, resume: str) -> None:
    hive = Hive()
    hive.tell(ModelScaled(ModelName("m"), Bounds(0, 1, paused=own)))
    hive.tell(ScalingPaused(every))
    sentences = would_let_in(refused(errors.NoRustbeesAvailableError()), hive.swarm, hive.now_ms)
    assert f"paused: {resume}" in sentences
    assert not any("swarmscale set" in sentence for sentence in sentences)


def test_where_a_script_keeps_it_from_hosts_the_script_is_named() -> None:
    swarm = Swarm()
    swarm.set_script(NoScript())
    barred = refused(errors.ModelCannotBePlacedError(f"no rustbee of 'm' could be started: localhost: {BARRED}"))
    first, *others = would_let_in(barred, swarm, 0)
    assert first == "policy script 'mine.star' letting it onto a host, or no script: swarmesh policy deactivate"
    assert not any("quantisation" in each or "room" in each for each in others), "it would be kept away all the same"
    also_full = refused(errors.ModelCannotBePlacedError(f"localhost: {BARRED}; mac: needs 9 MiB and has 1 MiB free"))
    sentences = would_let_in(also_full, swarm, 0)
    assert any("swarmesh explain placement m shows" in sentence for sentence in sentences)
    assert any("quantisation" in sentence for sentence in sentences)
    full = would_let_in(refused(errors.ModelCannotBePlacedError("no host is connected")), swarm, 0)
    assert not any("script" in sentence for sentence in full)


def test_whose_words_a_scripts_refusal_has() -> None:
    hive = Hive("a")
    hive.submit("t")
    ours = would_let_in(refused(kept_from_all("mine.star", hive.task("t"))), Swarm(), 0)
    its = would_let_in(refused(errors.PolicyRefusedError("policy script 'mine.star': not now")), Swarm(), 0)
    assert ours[0] == "a task that the policy script wants on some rustbee"
    assert its[0] == "a task that the policy script lets in: the words above are the script's own"


def test_what_is_not_known_goes_by_its_hint() -> None:
    assert would_let_in(refused(NotFoundError(hint="Look there.")), Swarm(), 0) == ("Look there.",)


def test_a_key_finds_its_own_refusals_only() -> None:
    book = RefusalBook()
    book.add(ASKED, SwarmeshError("no"))
    book.add_unread(TaskId("unread"), SwarmeshError("no"), KeyId("k"))
    book.add_unread(TaskId("nobodys"), SwarmeshError("no"))
    mine = [book.find(TaskId(name), KeyId("k")) is not None for name in ("t", "unread", "nobodys")]
    assert mine == [True, True, False]
    assert [book.find(TaskId(name), KeyId("other")) for name in ("t", "unread")] == [None, None]


def test_where_a_gpu_is_missing_another_type_would_have_helped_and_no_room() -> None:
    lacking = f"no rustbee of 'm' could be started: localhost: has no cuda GPU{OTHER_GPUS}none"
    sentences = would_let_in(refused(errors.ModelCannotBePlacedError(lacking)), Swarm(), 0)
    assert "swarmesh swarmscale set m --type auto" in sentences[0]
    assert "swarmesh spawn rustbee --modelcell m" in sentences[1]
    assert not any("quantisation" in each or "room" in each for each in sentences)
    also_full = f"{lacking}; mac: needs 9 MiB and has 1 MiB free"
    sentences = would_let_in(refused(errors.ModelCannotBePlacedError(also_full)), Swarm(), 0)
    assert any("quantisation" in each for each in sentences)
