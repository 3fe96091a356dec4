"""Why a task is not taken in or not gone on with: the codes, and the words that say what would help."""

from __future__ import annotations

import pytest

from core_hive import HIGH, LOW, MEDIUM, Hive
from swarmesh.core.errors import NoRustbeesAvailableError
from swarmesh.core.events import StreamBroke
from swarmesh.core.ids import Blame, Priority, TaskId
from swarmesh.core.patience import PATIENCE_MS
from swarmesh.core.refusals import MOVES_MAX, RETRY_AFTER_S

CODES = [
    (HIGH, "no_experienced_rustbees", "experienced "),
    (MEDIUM, "no_stable_rustbees", "stable "),
    (LOW, "no_rustbees_available", ""),
]


@pytest.mark.parametrize(("priority", "code", "wanted"), CODES)
def test_the_code_says_what_the_priority_asks_for_when_somebody_serves_the_model(
    priority: Priority, code: str, wanted: str
) -> None:
    hive = Hive("a", "b")
    hive.submit("t", priority=priority)
    hive.submit("on-b", priority=HIGH)
    hive.cut("t", final=True)
    hive.gone("b")
    hive.tick(0)
    hive.tick(PATIENCE_MS)
    hive.waggle("a")
    hive.tick(1)
    error = hive.failure()
    assert (error.code, error.status, error.retry_after_s) == (code, 503, RETRY_AFTER_S)
    assert error.message == f"no {wanted}rustbee serves 'qwen': a is healthy and failed this task"
    assert error.hint == "'swarmesh spawn rustbee --modelcell qwen' starts one."
    assert isinstance(error, NoRustbeesAvailableError)


@pytest.mark.parametrize("priority", Priority)
def test_when_nobody_serves_the_model_there_are_no_rustbees_for_any_priority(priority: Priority) -> None:
    hive = Hive("a")
    hive.alarm("a")
    hive.submit("t", priority=priority)
    error = hive.failure()
    assert (error.code, error.retry_after_s) == ("no_rustbees_available", RETRY_AFTER_S)
    assert error.message == "no rustbee serves 'qwen': a is dead"


def test_a_model_that_could_be_served_has_no_states_to_tell() -> None:
    hive = Hive()
    hive.submit("t", known=True)
    assert hive.failure().message == "no rustbee serves 'qwen'"


def test_the_words_name_silence() -> None:
    hive = Hive("a", "b")
    hive.stop("a", 60_000)
    hive.silent("b")
    hive.submit("t")
    hive.tick(0)
    hive.tick(PATIENCE_MS + 1)
    words = hive.failure().message
    assert words.endswith("serves 'qwen': a is draining, b is dead and silent")


@pytest.mark.parametrize("priority", Priority)
def test_a_full_queue_says_how_full_it_is(priority: Priority) -> None:
    hive = Hive("a", queue_max_per_key=1)
    hive.submit("runs", resumable=False)
    hive.submit("waits")
    hive.submit("t", priority=priority)
    assert hive.failure().message == "1 task of this key waits already, the most one key may have"
    assert hive.failure().retry_after_s == RETRY_AFTER_S


def test_accepted_tasks_and_those_put_back_are_not_refused_for_a_full_queue() -> None:
    hive = Hive("a", "b", queue_max_per_key=1)
    for name in ("t1", "t2", "waits"):
        hive.submit(name)
    hive.alarm("a", returning=True)
    hive.cut_as_asked()
    hive.accept("kept")
    assert hive.waiting() == ["t1", "waits", "kept"]


@pytest.mark.parametrize(
    ("code", "expected"), [("context_too_long", "task_refused"), ("resume_diverged", "resume_diverged")]
)
def test_a_task_at_fault_keeps_the_message_of_who_found_out(code: str, expected: str) -> None:
    hive = Hive("a", "b")
    hive.submit("t")
    hive.cut("t", code=code, blame=Blame.TASK)
    assert (hive.failure().code, hive.failure().message) == (expected, "the connection closed")
    assert hive.worker("a").status == "healthy"


@pytest.mark.parametrize("durable", [False, True])
def test_an_answer_that_cannot_be_gone_on_with_ends_whoever_asked_for_it(*, durable: bool) -> None:
    hive = Hive("a", "b")
    hive.submit("t", durable=durable)
    hive.cut("t", resumable=False)
    assert hive.failure().message == (
        "the connection closed (stream_cut, attempt 1); part of the answer was sent and cannot be gone on with"
    )


def test_a_stopped_worker_does_not_make_an_answer_resumable() -> None:
    hive = Hive("a", "b")
    hive.submit("t")
    hive.stop("a")
    hive.cut_as_asked(resumable=False)
    assert hive.failures() == {"t": "rustbee_lost"}


def test_the_last_move_is_counted_with_its_attempt() -> None:
    hive = Hive(*"abcdef")
    hive.accept("t", attempts=10)
    for _ in range(MOVES_MAX + 1):
        hive.cut("t")
    assert hive.failure().message == (
        "the connection closed (stream_cut, attempt 14); given up after 4 rustbees failed it"
    )


def test_a_durable_task_that_every_worker_there_is_would_answer_the_same_ends() -> None:
    hive = Hive("a", "b")
    hive.submit("t", durable=True)
    hive.cut("t", final=True)
    hive.cut("t", final=True)
    assert hive.failure().message.endswith("no other rustbee serves 'qwen'")


def test_a_prompt_beyond_the_context_has_a_way_on() -> None:
    hive = Hive("a")
    hive.submit("t")
    said = "the request exceeds the available context size, try increasing it"
    hive.tell(StreamBroke(TaskId("t"), 1, Blame.TASK, "task_refused", said))
    error = hive.failure()
    assert (error.code, error.message) == ("task_refused", said)
    assert "swarmesh swarmscale set NAME --context N" in error.hint
