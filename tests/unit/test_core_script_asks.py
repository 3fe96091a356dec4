"""How often a script is asked about those that it keeps waiting, and what holds while it cannot answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from core_hive import HIGH, LOW, Hive
from swarmesh.core.commands import FailTask, StartStream
from swarmesh.core.events import KeyLimited, TaskSubmitted, Ticked
from swarmesh.core.exploration import DEADLINE_MS
from swarmesh.core.ids import KeyId, ModelName, TaskId
from swarmesh.core.patience import PATIENCE_MS
from swarmesh.core.routing import SCRIPT_CANDIDATES_MAX
from swarmesh.core.script import Facts, Hook, ScriptAwayError
from swarmesh.core.script_asks import AGAIN_MAX, AGAIN_MS, Asks


class Doorman:
    """Keeps the tasks of one key from every worker, or says nothing in time."""

    name = "doorman.star"
    hooks = frozenset({Hook.SCORE})

    def __init__(self, keeps: str = "x") -> None:
        self.keeps = keeps
        self.late = False
        self.asked = 0
        self.about: Counter[object] = Counter()

    def admit(self, _task: Facts) -> str | None:
        raise AssertionError

    def score(self, task: Facts, workers: Sequence[Facts]) -> Sequence[float | None]:
        self.asked += 1
        self.about[task["model"]] += 1
        if self.late:
            raise ScriptAwayError(self.name)
        if self.keeps and str(task["key"]).startswith(self.keeps):
            return [None] * len(workers)
        return [-float(place) for place in range(len(workers))]

    def place(self, _model: Facts, _hosts: Sequence[Facts]) -> Sequence[float | None]:
        raise AssertionError

    def scale(self, _model: Facts, _stats: Facts) -> int | None:
        raise AssertionError


def hive_with(script: Doorman, *names: str, **options: int) -> Hive:
    hive = Hive(*names, **options)
    hive.swarm.set_script(script)
    return hive


def wait(hive: Hive, for_ms: int) -> None:
    for _ in range(for_ms // 1_000):
        hive.now_ms += 1_000
        hive.tell(Ticked())


def test_the_same_is_asked_again_after_a_while_and_news_at_once() -> None:
    asks = Asks()
    assert asks.may_ask("kind", 1, 0)
    assert not asks.may_ask("kind", 1, AGAIN_MS - 1)
    assert asks.may_ask("kind", 2, AGAIN_MS - 1)
    assert not asks.may_ask("kind", 2, AGAIN_MS)
    assert asks.may_ask("kind", 2, 2 * AGAIN_MS - 1)


def test_so_much_is_asked_again_in_a_while() -> None:
    asks = Asks()
    kinds = range(AGAIN_MAX + 10)
    assert all(asks.may_ask(kind, 1, 0) for kind in kinds)
    assert sum(asks.may_ask(kind, 1, AGAIN_MS) for kind in kinds) == AGAIN_MAX


def test_no_model_is_forgotten_over_those_before_it() -> None:
    script, models = Doorman(), [f"m{number}" for number in range(40)]
    hive = hive_with(script)
    for model in models:
        hive.register(f"w-{model}", model=model)
        for key in "abcdefgh":
            hive.submit(f"{model}-{key}", model=model, key=f"{script.keeps}{key}", durable=True)
    script.about.clear()
    wait(hive, 10_000)
    assert set(script.about) == set(models)
    assert script.asked <= 40 * 8 * 2 + 10 * AGAIN_MAX


def test_reports_of_many_workers_are_no_reason_to_ask() -> None:
    script, names = Doorman(), [f"w{number}" for number in range(20)]
    hive = hive_with(script, *names)
    hive.submit("kept", key="x")
    script.asked = 0
    for _ in range(5):
        wait(hive, 1_000)
        for name in names:
            hive.waggle(name)
    assert script.asked <= 6


def test_a_late_answer_does_not_free_whom_the_script_has_kept() -> None:
    script = Doorman()
    hive = hive_with(script, "a", slots=2)
    hive.submit("kept", key="x")
    script.late = True
    wait(hive, 5_000)
    assert not hive.all(StartStream)
    hive.submit("new")
    assert [start.task_id for start in hive.all(StartStream)] == ["new"], "the built-in rule decides what it never saw"
    hive.swarm.set_script(None)
    wait(hive, 1_000)
    assert hive.swarm.dispatcher.tasks[TaskId("kept")].worker_id == "a"


def test_who_is_due_to_be_measured_has_the_first_rank() -> None:
    def measured(script: Doorman | None) -> bool:
        hive = Hive("a", "b", slots=4)
        hive.swarm.set_script(script)
        seen = set()
        for number in range(200):
            hive.submit(f"t{number}")
            (start,) = hive.all(StartStream)
            seen.add(start.worker_id)
            hive.end(f"t{number}")
            hive.now_ms += DEADLINE_MS // 50
        return seen == {"a", "b"}

    assert measured(None)
    assert measured(Doorman())


def test_of_more_workers_than_it_is_asked_about_nobody_says_that_it_keeps_a_task_from_all() -> None:
    for count, refused in ((3, True), (SCRIPT_CANDIDATES_MAX + 20, False)):
        hive = hive_with(Doorman(), *(f"w{number}" for number in range(count)))
        hive.submit("kept", key="x")
        failed = []
        for _ in range(PATIENCE_MS // 1_000 + 5):
            wait(hive, 1_000)
            failed += hive.all(FailTask)
        assert bool(failed) is refused


def test_the_bound_of_a_queue_holds_where_the_script_keeps_a_task_from_its_victims_slot() -> None:
    hive = hive_with(Doorman(keeps=""), "a", queue_max_per_key=2)
    hive.submit("low", priority=LOW, key="y")
    hive.swarm.set_script(Doorman())
    for name in ("1", "2"):
        assert not hive.submit(name, priority=HIGH, key="x", durable=True)
    assert [failed.error.code for failed in _failed(hive.submit("3", priority=HIGH, key="x", durable=True))] == [
        "queue_full"
    ]


def test_a_full_queue_is_told_before_a_task_is_stored_also_where_a_limit_holds_it() -> None:
    hive = Hive("a", slots=4, queue_max_per_key=1)
    hive.tell(KeyLimited(KeyId("ada"), concurrency=1))
    for name in ("runs", "waits", "too many"):
        hive.submit(name, durable=True)  # Asks before each whether it would be refused.
    assert hive.failure().code == "queue_full"


def test_what_was_asked_about_is_not_refused_for_those_that_came_meanwhile() -> None:
    hive = Hive("a", queue_max_per_key=1)
    hive.submit("runs")
    for name in ("b", "c"):
        event = TaskSubmitted(TaskId(name), ModelName("qwen"), LOW, KeyId("ada"), 40, 10, durable=True, checked=True)
        assert not _failed(hive.tell(event))


def _failed(commands: Sequence[object]) -> list[FailTask]:
    return [command for command in commands if isinstance(command, FailTask)]
