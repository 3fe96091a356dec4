"""A policy script in the core: what it decides, and what happens when it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from swarmesh.core.commands import Command, FailTask, PreemptStream, RaiseAlarm, StartStream
from swarmesh.core.events import KeyLimited, StreamEnded, TaskSubmitted, Ticked, WorkerRegistered, WorkerWaggled
from swarmesh.core.ids import HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.look_ahead import SCRIPT_KINDS_MAX
from swarmesh.core.model_book import LINEAR_MAX
from swarmesh.core.patience import PATIENCE_MS
from swarmesh.core.routing import SCRIPT_CANDIDATES_MAX
from swarmesh.core.script import Facts, Hook, ScriptFailedError
from swarmesh.core.script_asks import AGAIN_MS
from swarmesh.core.script_guard import FAILURES_MAX, Scripted
from swarmesh.core.swarm import Swarm

QWEN = ModelName("qwen")
LOW, MEDIUM, HIGH = Priority.LOW, Priority.MEDIUM, Priority.HIGH
Score = Callable[[Facts, Facts], object]


class Say:
    """A script of Python functions."""

    name = "mine.star"

    def __init__(
        self,
        score: Score | None = None,
        admit: Callable[[Facts], object] | None = None,
        scale: Callable[[Facts, Facts], object] | None = None,
    ) -> None:
        told = {Hook.SCORE: score, Hook.ADMIT: admit, Hook.SCALE: scale, Hook.PLACE: score}
        self.hooks = frozenset(hook for hook, function in told.items() if function is not None)
        self._score, self._admit, self._scale = score, admit, scale
        self.asked: list[int] = []

    def admit(self, task: Facts) -> str | None:
        assert self._admit is not None
        return self._admit(task)  # type: ignore[return-value]

    def score(self, task: Facts, workers: Sequence[Facts]) -> Sequence[float | None]:
        assert self._score is not None
        self.asked.append(len(workers))
        return [self._score(task, worker) for worker in workers]  # type: ignore[misc]

    def place(self, model: Facts, hosts: Sequence[Facts]) -> Sequence[float | None]:
        return self.score(model, hosts)

    def scale(self, model: Facts, stats: Facts) -> int | None:
        assert self._scale is not None
        return self._scale(model, stats)  # type: ignore[return-value]


def fails(*_: Facts) -> float:
    raise ScriptFailedError("division by zero in line 3")


class Hive:
    """A swarm with a script."""

    def __init__(self, script: Say | None, *names: str, slots: int = 2) -> None:
        self.swarm = Swarm(script=script)
        self.now_ms = 1_000
        for name in names:
            known = WorkerRegistered(WorkerId(name), QWEN, "cpu", HostName("oak"), "unix:/w", slots, ready=True)
            self.swarm.handle(known, self.now_ms)
            self.swarm.handle(WorkerWaggled(WorkerId(name), True, 0.0, 0, 1.0, 7, slots), self.now_ms)

    def submit(self, name: str, priority: Priority = MEDIUM, key: str = "k") -> list[Command]:
        event = TaskSubmitted(TaskId(name), QWEN, priority, KeyId(key), 100, 10, resumable=True)
        return self.swarm.handle(event, self.now_ms)

    def end(self, name: str) -> list[Command]:
        task = self.swarm.dispatcher.tasks[TaskId(name)]
        return self.swarm.handle(StreamEnded(TaskId(name), task.attempt, 5), self.now_ms)


def starts(commands: list[Command]) -> list[tuple[str, str]]:
    return [(each.task_id, each.worker_id) for each in commands if isinstance(each, StartStream)]


def test_the_highest_score_wins_and_the_decision_says_whose_it_is() -> None:
    hive = Hive(Say(lambda _, worker: {"a": 1.0, "b": 3, "c": 2.0}[str(worker["id"])]), "a", "b", "c")
    (start,) = hive.submit("t")
    assert isinstance(start, StartStream)
    decision = start.decision
    assert (decision.policy, decision.chosen, decision.reason, decision.better) == (
        "script mine.star",
        "b",
        "script",
        "higher",
    )
    assert [(each.worker_id, each.score) for each in decision.candidates] == [("b", 3.0), ("c", 2.0), ("a", 1.0)]
    assert dict(decision.candidates[0].parts)["speed"] > 0
    assert decision.in_words().startswith("script mine.star chose b of 3 (none vetoed): the script gave it the highest")


def test_equal_scores_go_as_the_built_in_rule_would() -> None:
    hive = Hive(Say(lambda *_: 1.0), "a", "b", slots=8)
    assert [starts(hive.submit(f"t{number}"))[0][1] for number in range(4)] == ["a", "b", "a", "b"]


def test_a_veto_keeps_a_task_from_a_worker_and_all_vetoes_let_it_wait() -> None:
    night = True
    hive = Hive(
        Say(lambda task, worker: None if worker["id"] == "a" or (night and task["key"] == "x") else 0.0), "a", "b"
    )
    (start,) = hive.submit("t")
    assert isinstance(start, StartStream)
    assert (start.worker_id, start.decision.vetoes) == ("b", (("policy", 1),))
    assert starts(hive.submit("waits", key="x")) == []
    assert starts(hive.submit("overtakes")) == [("overtakes", "b")]
    hive.end("t")
    assert hive.swarm.dispatcher.queue.has(QWEN)
    night = False
    hive.now_ms += AGAIN_MS
    assert starts(hive.swarm.handle(Ticked(), hive.now_ms)) == [("waits", "b")]


def test_a_reserved_slot_is_left_for_tasks_of_high_priority() -> None:
    script = Say(lambda task, worker: None if worker["slots_free"] == 1 and task["priority"] != "high" else 1.0)
    hive = Hive(script, "a", slots=2)
    assert starts(hive.submit("one")) == [("one", "a")]
    assert starts(hive.submit("two")) == []
    assert starts(hive.submit("urgent", HIGH)) == [("urgent", "a")]


def test_a_slot_is_reserved_also_where_every_rustbee_has_but_one() -> None:
    hive = Hive(
        Say(lambda task, worker: None if worker["all_slots_free"] == 1 and task["priority"] != "high" else 1.0),
        *("a", "b"),
        slots=1,
    )
    assert starts(hive.submit("one")) == [("one", "a")]
    assert starts(hive.submit("two")) == []
    assert starts(hive.submit("urgent", HIGH)) == [("urgent", "b")]
    assert hive.submit("more", HIGH) == [], "nobody is preempted: 'one' is of medium priority"
    assert starts(hive.end("urgent")) == [("more", "b")]


def test_a_task_that_is_kept_from_everybody_fails_in_the_end_and_says_so() -> None:
    hive = Hive(Say(lambda task, _: None if task["key"] == "x" else 1.0), "a", slots=1)
    hive.submit("runs")
    hive.submit("kept", key="x")
    hive.now_ms += PATIENCE_MS + 1
    assert [each for each in hive.swarm.handle(Ticked(), hive.now_ms) if isinstance(each, FailTask)] == []
    hive.end("runs")
    (failed,) = [each for each in hive.swarm.handle(Ticked(), hive.now_ms) if isinstance(each, FailTask)]
    assert (failed.task_id, failed.error.code) == ("kept", "policy_refused")
    assert "'mine.star' keeps this task from every rustbee of 'qwen'" in failed.error.message


def test_nobody_is_preempted_where_the_script_would_not_let_the_task_go() -> None:
    hive = Hive(Say(lambda task, _: None if task["key"] == "x" else 1.0), "a", slots=1)
    hive.submit("low", LOW)
    assert hive.submit("urgent", HIGH, key="x") == []
    assert any(isinstance(each, PreemptStream) for each in hive.submit("other", HIGH))


def test_of_many_workers_the_script_is_asked_about_the_best() -> None:
    script = Say(lambda *_: 1.0)
    hive = Hive(script, *(f"w{number}" for number in range(LINEAR_MAX + SCRIPT_CANDIDATES_MAX)))
    assert starts(hive.submit("t"))
    assert 0 < script.asked[-1] <= SCRIPT_CANDIDATES_MAX


def test_who_is_not_let_in_is_told_why() -> None:
    hive = Hive(Say(admit=lambda task: "no guests at night" if task["key"] == "guest" else None), "a")
    (refused,) = hive.submit("t", key="guest")
    assert isinstance(refused, FailTask)
    error = refused.error
    assert (error.code, error.status) == ("policy_refused", 403)
    assert error.message == "policy script 'mine.star': no guests at night"
    assert starts(hive.submit("u")) == [("u", "a")]
    event = TaskSubmitted(TaskId("v"), QWEN, MEDIUM, KeyId("guest"), 100, 10)
    asked_before = hive.swarm.dispatcher.refusal(event, hive.now_ms)
    assert asked_before is not None
    assert asked_before.code == "policy_refused"


def test_what_was_let_in_before_is_not_refused() -> None:
    hive = Hive(Say(admit=lambda _: "closed"), "a")
    event = TaskSubmitted(TaskId("t"), QWEN, MEDIUM, KeyId("k"), 100, 10, durable=True, accepted=True)
    assert any(isinstance(each, StartStream) for each in hive.swarm.handle(event, hive.now_ms))


def test_a_task_that_was_checked_a_moment_ago_is_not_asked_about_again() -> None:
    asked: list[object] = []
    hive = Hive(Say(admit=lambda task: asked.append(task["id"])), "a")
    event = TaskSubmitted(TaskId("t"), QWEN, MEDIUM, KeyId("k"), 100, 10, durable=True)
    assert hive.swarm.dispatcher.refusal(event, hive.now_ms) is None
    assert starts(hive.swarm.handle(msgspec.structs.replace(event, checked=True), hive.now_ms)) == [("t", "a")]
    assert asked == ["t"]


def test_limits_hold_for_a_task_that_was_checked_a_moment_ago() -> None:
    hive = Hive(Say(admit=lambda _: None), "a")
    hive.swarm.handle(KeyLimited(KeyId("k"), concurrency=1), hive.now_ms)
    assert starts(hive.submit("t"))
    event = TaskSubmitted(TaskId("u"), QWEN, MEDIUM, KeyId("k"), 100, 10, checked=True)
    (refused,) = hive.swarm.handle(event, hive.now_ms)
    assert isinstance(refused, FailTask)
    assert refused.error.status == 429


def test_a_script_that_fails_is_turned_off_and_traffic_goes_on() -> None:
    hive = Hive(Say(fails, admit=lambda _: None), "a", "b", slots=8)
    alarms = []
    for number in range(FAILURES_MAX + 2):
        commands = hive.submit(f"t{number}")
        assert len(starts(commands)) == 1
        alarms += [each for each in commands if isinstance(each, RaiseAlarm)]
    (alarm,) = alarms
    assert (alarm.worker_id, alarm.code) == ("", "policy_script_failed")
    assert alarm.message == (
        "policy script 'mine.star' was turned off: score failed 3 times in a row, "
        "last because: division by zero in line 3"
    )
    assert hive.swarm.scripted.is_off
    hive.swarm.set_script(Say(lambda _, worker: 1.0 if worker["id"] == "b" else 0.0))
    assert starts(hive.submit("t")) == [("t", "b")]
    hive.swarm.set_script(None)
    (start,) = hive.submit("u")
    assert isinstance(start, StartStream)
    assert start.decision.policy == "swarm"


@pytest.mark.parametrize("answer", ["high", True, float("nan"), float("inf"), [1.0]])
def test_a_score_that_is_none_counts_as_a_failure(answer: object) -> None:
    scripted = Scripted(Say(lambda *_: answer))
    assert scripted.score({}, [{}, {}]) is None
    assert scripted.failures == 1
    assert "is no score" in scripted.last_error


@pytest.mark.parametrize("answer", [-1, 1.5, True, "two"])
def test_a_number_of_workers_that_is_none_counts_as_a_failure(answer: object) -> None:
    scripted = Scripted(Say(scale=lambda *_: answer))
    assert scripted.scale({}, {}) is None
    assert scripted.failures == 1


def test_failures_in_a_row_are_counted_for_each_function() -> None:
    answers: list[float | None] = [None, 1.0, None, None, None]

    def sometimes(*_: Facts) -> float:
        answer = answers.pop(0)
        return fails() if answer is None else answer

    scripted = Scripted(Say(sometimes, admit=lambda _: None))
    for _ in range(4):
        scripted.score({}, [{}])
        scripted.admit({})
    assert (scripted.is_off, scripted.failures, scripted.take_alarm()) == (False, 3, None)
    scripted.score({}, [{}])
    assert scripted.is_off
    assert not scripted.has(Hook.ADMIT)
    assert scripted.take_alarm() is not None
    assert scripted.take_alarm() is None


def test_a_failure_is_counted_for_what_failed_not_for_what_was_asked_when_it_showed() -> None:
    late = ScriptFailedError("score took too long")
    late.hook = Hook.SCORE
    answers: list[bool] = [True, False] * FAILURES_MAX

    def admit(_task: Facts) -> None:
        if answers.pop(0):
            raise late

    scripted = Scripted(Say(lambda *_: 1.0, admit=admit))
    for _ in range(2 * FAILURES_MAX - 1):
        assert not scripted.is_off
        scripted.admit({})
    assert scripted.is_off
    assert "score failed 3 times in a row" in (scripted.take_alarm() or "")
    assert scripted.last_error == "score: score took too long"


def test_scores_must_be_as_many_as_candidates() -> None:
    class Short(Say):
        def score(self, task: Facts, workers: Sequence[Facts]) -> Sequence[float | None]:
            return [1.0]

    scripted = Scripted(Short(lambda *_: 1.0))
    assert scripted.score({}, [{}, {}]) is None
    assert scripted.last_error == "score: 1 scores for 2 candidates, wanted one for each"


def test_those_that_a_script_keeps_waiting_hide_nobody_behind_them_for_ever() -> None:
    held = {f"held-{number}" for number in range(2 * SCRIPT_KINDS_MAX)}
    hive = Hive(Say(lambda task, _: None if task["key"] in held else 1.0), "a", slots=1)
    hive.submit("first")
    for key in sorted(held):
        hive.submit(key, key=key)
    hive.submit("second", key="free")
    begun = starts(hive.end("first"))
    for _ in range(3):
        begun += starts(hive.swarm.handle(Ticked(), hive.now_ms))
    assert begun == [("second", "a")]
