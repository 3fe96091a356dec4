"""What one API key may have at once and in a minute."""

from __future__ import annotations

import pytest

from core_hive import HIGH, LOW, Hive
from swarmesh.core.commands import FailTask, StartStream
from swarmesh.core.errors import KeyConcurrencyError, KeyTokensError
from swarmesh.core.events import KeyLimited, KeyRevoked, StreamEnded, TaskCancelled
from swarmesh.core.ids import KeyId, TaskId
from swarmesh.core.limits import MINUTE_MS, RETRY_AFTER_S_MAX, REVOKED_KEPT_MS, RUN_MS_DEFAULT, KeyBook

TASK_TOKENS = 20
"""What a task of `Hive.submit` is expected to take: 40 characters to read, 10 tokens to write."""


def limited(hive: Hive, concurrency: int = 0, tokens_per_minute: int = 0, key: str = "ada") -> Hive:
    hive.tell(KeyLimited(KeyId(key), concurrency, tokens_per_minute))
    return hive


def book(hive: Hive, key: str = "ada") -> KeyBook:
    return hive.swarm.dispatcher.limits.of(KeyId(key))


def end(hive: Hive, name: str, tokens: int, attempt: int = 1) -> list[tuple[str, str, int]]:
    hive.tell(StreamEnded(TaskId(name), attempt, tokens))
    return hive.starts()


def submit_all(hive: Hive, *names: str, durable: bool = False) -> list[str]:
    """Those of them that were not refused."""
    for name in names:
        hive.submit(name, durable=durable)
    return [name for name in names if hive.is_open(name)]


# At once


def test_interactive_tasks_over_the_limit_are_refused_whether_slots_are_free_or_not() -> None:
    hive = limited(Hive("a", slots=8), 2)
    assert submit_all(hive, "t1", "t2", "t3") == ["t1", "t2"]
    error = hive.failure()
    assert isinstance(error, KeyConcurrencyError)
    assert (error.code, error.status, error.type) == ("key_concurrency", 429, "rate_limit_error")
    assert error.message == "2 tasks of this key are under way, and it may have 2 at once"
    assert error.retry_after_s == -(-RUN_MS_DEFAULT // 2 // 1_000)
    hive.submit("other", key="bob")
    assert hive.is_open("other")


def test_those_that_wait_count_too() -> None:
    hive = limited(Hive("a"), 2)
    assert submit_all(hive, "t1", "t2", "t3") == ["t1", "t2"]
    assert hive.waiting() == ["t2"]
    end(hive, "t1", 5)
    assert submit_all(hive, "t4", "t5") == ["t4"]


@pytest.mark.parametrize("how", ["end", "cancel", "fail"])
def test_a_place_is_free_again_however_a_task_ends(how: str) -> None:
    hive = limited(Hive("a", slots=8), 1)
    hive.submit("t1")
    {"end": hive.end, "cancel": hive.cancel, "fail": lambda name: hive.cut(name, resumable=False)}[how]("t1")
    assert (book(hive).taken, book(hive).running) == (0, 0)
    assert submit_all(hive, "t2") == ["t2"]


def test_when_to_come_again_follows_how_long_tasks_of_the_key_run() -> None:
    hive = limited(Hive("a", slots=8), 1)
    for number in range(40):
        hive.submit(f"t{number}")
        hive.now_ms += 42_000
        end(hive, f"t{number}", 5)
    hive.submit("runs")
    hive.submit("refused")
    assert hive.failure().retry_after_s == 42
    for number in range(40):
        hive.end("runs") if not number else None
        hive.submit(f"long{number}")
        hive.now_ms += 10_000_000
        end(hive, f"long{number}", 5)
    hive.submit("last")
    hive.submit("refused")
    assert hive.failure().retry_after_s == RETRY_AFTER_S_MAX


def test_durable_tasks_wait_and_block_nobody() -> None:
    hive = limited(Hive("a", slots=3), 1)
    assert submit_all(hive, "d1", "d2", "d3", durable=True) == ["d1", "d2", "d3"]
    assert (hive.running("a"), hive.waiting()) == (["d1"], ["d2", "d3"])
    hive.submit("b1", key="bob")
    hive.submit("b2", key="bob")
    hive.submit("b3", key="bob")
    assert (hive.running("a"), hive.waiting()) == (["d1", "b1", "b2"], ["b3", "d2", "d3"])
    assert end(hive, "d1", 5) == [("b3", "a", 1)], "a turn is a turn: bob's came first"
    hive.cancel("b1")
    assert hive.starts() == [("d2", "a", 1)]
    hive.end("b2")
    assert hive.starts() == []
    hive.end("d2")
    assert hive.starts() == [("d3", "a", 1)]


def test_an_interactive_task_that_waits_keeps_its_place_from_durable_ones() -> None:
    hive = limited(Hive("a"), 2)
    hive.submit("d1", durable=True)
    hive.submit("i1")
    assert submit_all(hive, "d2", durable=True) == ["d2"]
    hive.register("b", slots=4)
    assert (hive.running("a"), hive.running("b"), hive.waiting()) == (["d1"], ["i1"], ["d2"])
    assert submit_all(hive, "i2") == []


def test_a_place_that_is_freed_serves_another_model() -> None:
    hive = limited(Hive("a"), 1)
    hive.register("b", model="demo")
    hive.submit("q", durable=True)
    hive.submit("d", model="demo", durable=True)
    assert (hive.running("b"), hive.waiting("demo")) == ([], ["d"])
    assert end(hive, "q", 5) == [("d", "b", 1)]


def test_limits_may_change_while_tasks_wait() -> None:
    hive = limited(Hive("a", slots=4), 1)
    submit_all(hive, "d1", "d2", "d3", durable=True)
    limited(hive, 2)
    assert hive.starts() == [("d2", "a", 1)]
    limited(hive, 1)
    hive.end("d1")
    assert hive.starts() == []
    limited(hive)
    assert hive.starts() == [("d3", "a", 1)]
    assert submit_all(hive, "i1", "i2", "i3") == ["i1", "i2", "i3"]


def test_a_durable_task_that_moves_gives_its_place_up_and_comes_back_to_it() -> None:
    hive = limited(Hive("a", "b"), 1)
    submit_all(hive, "d1", "d2", durable=True)
    hive.cut("d1")
    assert (hive.starts(), hive.waiting()) == ([("d1", "b", 2)], ["d2"])
    assert (book(hive).taken, book(hive).running) == (1, 1)


def test_a_preempted_task_whose_place_was_taken_waits_for_it() -> None:
    hive = limited(Hive("a", slots=2), 2)
    hive.submit("low1", priority=LOW, durable=True)
    hive.submit("low2", priority=LOW, durable=True)
    hive.submit("urgent", priority=HIGH, durable=True)
    assert (hive.preempted(), hive.waiting()) == ([], ["urgent"]), "it is held, so it takes nobody's slot"
    hive.submit("bob", priority=HIGH, key="bob")
    assert hive.preempted() == ["low2", "low1"], "the place of the one is free for the urgent one"
    assert (hive.running("a"), hive.waiting()) == (["bob", "urgent"], ["low1", "low2"])
    limited(hive, 1)
    hive.end("bob")
    assert (hive.running("a"), hive.waiting()) == (["urgent"], ["low1", "low2"])
    hive.end("urgent")
    assert hive.starts() == [("low1", "a", 2)]


def test_the_tasks_of_a_queen_before_this_one_are_counted() -> None:
    hive = limited(Hive("a", slots=4), 1)
    hive.accept("d1", attempts=1, running_on="a")
    hive.accept("d2")
    assert (hive.running("a"), hive.waiting()) == (["d1"], ["d2"])


# In a minute


def test_tokens_are_taken_by_prediction_and_put_right_at_the_end() -> None:
    hive = limited(Hive("a", slots=8), tokens_per_minute=100)
    assert submit_all(hive, "t1", "t2", "t3", "t4", "t5", "t6") == ["t1", "t2", "t3", "t4", "t5"]
    error = hive.failure()
    assert isinstance(error, KeyTokensError)
    assert (error.code, error.status) == ("key_tokens", 429)
    assert error.message == "this key may use 100 tokens per minute and has 0 left, and this task may take 20"
    assert error.retry_after_s == 12
    end(hive, "t1", 2)
    assert book(hive).left == TASK_TOKENS - 2
    end(hive, "t2", 200)
    assert book(hive).left == 2 * TASK_TOKENS - 202
    assert book(hive).tokens == 202


def test_who_comes_when_told_is_let_in() -> None:
    hive = limited(Hive("a", slots=8), tokens_per_minute=100)
    submit_all(hive, *(f"t{number}" for number in range(6)))
    wait_s = hive.failure().retry_after_s
    assert wait_s is not None
    hive.now_ms += (wait_s - 1) * 1_000
    hive.submit("early")
    assert hive.failure().retry_after_s == 1
    hive.now_ms += 1_000
    assert submit_all(hive, "late", "later") == ["late"]


def test_a_bucket_holds_one_minute() -> None:
    hive = limited(Hive("a", slots=80), tokens_per_minute=100)
    hive.now_ms += 100 * MINUTE_MS
    names = [f"t{number}" for number in range(9)]
    assert submit_all(hive, *names) == names[:5]


def test_a_task_larger_than_the_bucket_goes_when_it_is_full() -> None:
    hive = limited(Hive("a", slots=8), tokens_per_minute=15)
    assert submit_all(hive, "large", "next") == ["large"]
    assert book(hive).left == 15 - TASK_TOKENS
    assert hive.failure().retry_after_s == 80
    hive.now_ms += 80_000
    assert submit_all(hive, "next") == ["next"]


def test_what_never_ran_gives_its_tokens_back() -> None:
    hive = limited(Hive("a"), tokens_per_minute=100)
    submit_all(hive, "runs", "waits")
    hive.cancel("waits")
    assert book(hive).left == 100 - TASK_TOKENS
    hive.cancel("runs")
    assert book(hive).left == 100 - TASK_TOKENS, "nobody knows what it had"


def test_durable_tasks_wait_for_tokens() -> None:
    hive = limited(Hive("a", slots=8), tokens_per_minute=2 * TASK_TOKENS)
    submit_all(hive, "d1", "d2", "d3", "d4", durable=True)
    assert hive.running("a") == ["d1", "d2"]
    hive.submit("other", key="bob")
    assert hive.running("a") == ["d1", "d2", "other"]
    hive.wait(29_000)
    assert hive.waiting() == ["d3", "d4"]
    hive.wait(1_000)
    assert hive.waiting() == ["d4"]
    end(hive, "d1", 0)
    assert hive.waiting() == ["d4"], "an engine that does not say what it used has used what was foreseen"
    end(hive, "d2", 1)
    assert hive.waiting() == ["d4"]
    end(hive, "d3", 1)
    assert hive.waiting() == []


def test_a_task_that_moves_has_paid_already() -> None:
    hive = limited(Hive("a", "b"), tokens_per_minute=TASK_TOKENS)
    hive.submit("d1", durable=True)
    hive.cut("d1")
    assert hive.starts() == [("d1", "b", 2)]
    assert book(hive).left == 0


def test_a_new_limit_starts_with_a_full_bucket_and_an_equal_one_changes_nothing() -> None:
    hive = limited(Hive("a", slots=8), tokens_per_minute=100)
    submit_all(hive, "t1")
    limited(hive, 5, 100)
    assert book(hive).left == 100 - TASK_TOKENS
    limited(hive, 5, 200)
    assert book(hive).left == 200


def test_usage_is_counted_for_keys_without_limits() -> None:
    hive = Hive("a", slots=2)
    submit_all(hive, "t1", "t2", "t3")
    end(hive, "t1", 7)
    assert (book(hive).tokens, book(hive).running, book(hive).taken) == (7, 2, 2)
    assert book(hive, "nobody") == KeyBook()


def test_refusals_leave_nothing_behind() -> None:
    hive = limited(Hive("a"), 1, 1_000)
    submit_all(hive, "t1", "t2")
    hive.submit("unknown", model="none", durable=True)
    assert {command.task_id for command in hive.all(FailTask)} == {"unknown"}
    hive.end("t1")
    assert (book(hive).taken, book(hive).running) == (0, 0)
    hive.submit("t3")
    assert hive.only(StartStream).task_id == "t3"


# Hanging up


def hang_up(hive: Hive, name: str, shown_tokens: int) -> None:
    hive.tell(TaskCancelled(TaskId(name), shown_tokens))


def test_hanging_up_before_the_end_saves_nothing() -> None:
    hive = limited(Hive("a", slots=8), tokens_per_minute=100)
    hive.submit("t1")
    hang_up(hive, "t1", 490)
    assert book(hive).left == 100 - 500, "40 characters read, and what was shown"
    assert book(hive).tokens == 500
    assert submit_all(hive, "t2") == []
    assert isinstance(hive.failure(), KeyTokensError)


def test_who_hangs_up_early_has_paid_what_was_foreseen() -> None:
    hive = limited(Hive("a", slots=8), tokens_per_minute=100)
    hive.submit("t1")
    hang_up(hive, "t1", 3)
    assert book(hive).left == 100 - TASK_TOKENS, "nobody knows what the engine had written beyond that"
    assert book(hive).tokens == 13


def test_what_was_shown_counts_where_the_engine_counted_nothing() -> None:
    hive = limited(Hive("a", slots=8), tokens_per_minute=1_000)
    submit_all(hive, "t1", "t2", "t3")
    hive.tell(StreamEnded(TaskId("t1"), 1, shown_tokens=290))
    assert (book(hive).left, book(hive).tokens) == (1_000 - 2 * TASK_TOKENS - 300, 300)
    hive.tell(StreamEnded(TaskId("t2"), 1, 5, 10, shown_tokens=290))
    assert book(hive).tokens == 315, "what the engine says goes before what was seen"
    hive.tell(StreamEnded(TaskId("t3"), 1, 0, 10, shown_tokens=4))
    assert book(hive).tokens == 329
    assert book(hive).left == 1_000 - 300 - 15 - TASK_TOKENS


def test_a_key_without_limits_has_what_it_was_shown_in_its_books() -> None:
    hive = Hive("a", slots=2)
    hive.submit("t1")
    hang_up(hive, "t1", 90)
    assert (book(hive).tokens, book(hive).left) == (100, 0)


# Revoked


def revoke(hive: Hive, key: str = "ada") -> None:
    hive.tell(KeyRevoked(KeyId(key)))


def books(hive: Hive) -> set[str]:
    limits = hive.swarm.dispatcher.limits
    return set(limits._books) | set(limits._revoked)


def test_the_book_of_a_revoked_key_is_forgotten() -> None:
    hive = limited(Hive("a", slots=8), 2, 100)
    submit_all(hive, "t1")
    hive.submit("other", key="bob")
    end(hive, "t1", 5)
    revoke(hive)
    hive.tick(REVOKED_KEPT_MS - 1)
    assert book(hive).concurrency == 2
    hive.tick(1)
    assert books(hive) == {"bob"}


def test_until_then_the_limits_hold_for_what_was_at_the_door_already() -> None:
    hive = limited(Hive("a", slots=8), 1)
    revoke(hive)
    assert submit_all(hive, "t1", "t2") == ["t1"]
    hive.tick(REVOKED_KEPT_MS)
    assert books(hive) == {"ada"}, "t1 runs"
    end(hive, "t1", 5)
    hive.tick()
    assert books(hive) == set()


def test_it_is_kept_while_anything_of_the_key_runs_or_waits() -> None:
    hive = limited(Hive("a", slots=8), 1)
    assert submit_all(hive, "d1", "d2", durable=True) == ["d1", "d2"]
    hive.submit("i1", key="bob")
    revoke(hive)
    hive.wait(REVOKED_KEPT_MS)
    assert hive.waiting() == ["d2"], "what was accepted goes on, within the limits"
    end(hive, "d1", 5)
    hive.tick()
    assert (hive.waiting(), book(hive).running) == ([], 1)
    hive.end("d2")
    hive.tick()
    assert books(hive) == {"bob"}
    limited(hive, 1, key="bob")
    hive.gone("a")
    hive.submit("d3", key="bob", durable=True, known=True)
    revoke(hive, "bob")
    hive.cancel("i1")
    hive.wait(REVOKED_KEPT_MS)
    assert (hive.waiting(), books(hive)) == (["d3"], {"bob"})
    hive.cancel("d3")
    hive.tick()
    assert books(hive) == set()


def test_a_key_that_asked_for_nothing_leaves_nothing_behind() -> None:
    hive = Hive("a")
    revoke(hive, "nobody")
    hive.tick(REVOKED_KEPT_MS)
    assert books(hive) == set()
