"""Decisions on record: all of few, a sample of many, and never in anybody's way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from core_hive import Hive
from scale_bed import ScaleBed
from swarmesh.core.decision import Decision
from swarmesh.core.errors import QueueFullError, StoreError
from swarmesh.core.events import TaskSubmitted
from swarmesh.core.ids import KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.script import Facts, Hook
from swarmesh.core.script_facts import model_facts, task_facts
from swarmesh.core.task import Task
from swarmesh.queen import decision_record
from swarmesh.queen.decision_record import CPU_SHARE, DAY_MS, PENDING_MAX, DecisionRecorder, Sampler
from swarmesh.store.memory import MemoryStore
from swarmesh.store.records import DecisionRecord
from swarmesh.store.store import DECISIONS_KEPT

Until = Callable[..., Awaitable[Any]]

TASK = Task(TaskId("t"), ModelName("m"), Priority.HIGH, KeyId("k"), False, 400, 50, 1_000, Priority.HIGH)
DECISION = Decision(TASK.task_id, "swarm", WorkerId("rustbee-1"), 0.0, 2, ())


class Candidates:
    """Knows two workers."""

    def __init__(self) -> None:
        self.asked = 0

    def script_facts(self, task: Task, now_ms: int) -> Sequence[Facts]:
        self.asked += 1
        return [{"id": "rustbee-1", "score": 1.0}, {"id": "rustbee-2", "score": 2.0}]


class Failing(MemoryStore):
    """A store that fails as long as it is told to."""

    fails = True

    async def append_decisions(self, records: Sequence[DecisionRecord]) -> None:
        if self.fails:
            raise StoreError("no room")
        await super().append_decisions(records)


class Strict:
    """A script that lets nobody in."""

    name = "strict"
    hooks = frozenset({Hook.ADMIT})

    def admit(self, task: Facts) -> str | None:
        return f"not {task['id']}"

    def score(self, task: Facts, workers: Sequence[Facts]) -> Sequence[float | None]:
        raise AssertionError("it has no such function")

    def place(self, model: Facts, hosts: Sequence[Facts]) -> Sequence[float | None]:
        raise AssertionError("it has no such function")

    def scale(self, model: Facts, stats: Facts) -> int | None:
        raise AssertionError("it has no such function")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def recorder(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> DecisionRecorder:
    monkeypatch.setattr(decision_record, "FLUSH_S", 0.001)
    return DecisionRecorder(Candidates(), store)


async def kept(store: MemoryStore) -> list[tuple[str, Any]]:
    return [(each.kind, msgspec.json.decode(each.facts)) for each in await store.decisions(0)]


async def test_what_a_script_would_have_been_told_is_kept(recorder: DecisionRecorder, store: MemoryStore) -> None:
    recorder.let_in(TASK, None, 2_000)
    recorder.chose(TASK, DECISION, 2_000)
    recorder.placed(model_facts(ModelName("m")), [{"name": "mac"}], "mac")
    recorder.scaled(model_facts(ModelName("m")), {"load_ratio": 0.9}, 3)
    await recorder.close()
    task = dict(task_facts(TASK, 2_000))
    model = dict(model_facts(ModelName("m")))
    assert await kept(store) == [
        ("admit", {"task": task, "refused": None, "words": ""}),
        (
            "score",
            {
                "task": task,
                "workers": [{"id": "rustbee-1", "score": 1.0}, {"id": "rustbee-2", "score": 2.0}],
                "chosen": "rustbee-1",
                "policy": "swarm",
            },
        ),
        ("place", {"model": model, "hosts": [{"name": "mac"}], "chosen": "mac"}),
        ("scale", {"model": model, "stats": {"load_ratio": 0.9}, "chosen": 3}),
    ]
    assert all(each.at_ms > 1_600_000_000_000 for each in await store.decisions(0)), "on the clock of the wall"


async def test_a_refusal_says_what_it_was(recorder: DecisionRecorder, store: MemoryStore) -> None:
    recorder.let_in(TASK, QueueFullError("too many"), 2_000)
    await recorder.close()
    ((_, told),) = await kept(store)
    assert (told["refused"], told["words"]) == ("queue_full", "too many")


async def test_records_are_written_by_themselves(recorder: DecisionRecorder, store: MemoryStore, until: Until) -> None:
    for second in range(5):
        recorder.let_in(TASK, None, 1_000 * second + 10_000)

    async def count() -> bool:
        return len(await store.decisions(0)) == 5

    await until(count)
    recorder.let_in(TASK, None, 100_000)
    await recorder.close()
    assert len(await store.decisions(0)) == 6


async def test_a_store_that_fails_costs_only_its_records(monkeypatch: pytest.MonkeyPatch, until: Until) -> None:
    monkeypatch.setattr(decision_record, "FLUSH_S", 0.001)
    store = Failing()
    recorder = DecisionRecorder(Candidates(), store)
    recorder.let_in(TASK, None, 10_000)
    await until(lambda: not recorder._pending)
    store.fails = False
    recorder.let_in(TASK, None, 20_000)
    await recorder.close()
    assert len(await store.decisions(0)) == 1


async def test_what_waits_to_be_written_is_bounded(
    recorder: DecisionRecorder, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_record, "OTHER_SHARE", 1_000)
    recorder._others = Sampler(1e9)
    for _ in range(PENDING_MAX + 10):
        recorder.scaled({}, {}, 1)
    await recorder.close()
    assert len(await store.decisions(0)) == PENDING_MAX


async def test_facts_are_collected_only_when_one_is_due(store: MemoryStore) -> None:
    candidates = Candidates()
    recorder = DecisionRecorder(candidates, store)
    for _ in range(100):
        recorder.chose(TASK, DECISION, 5_000)
    assert candidates.asked <= 2, "within one millisecond"
    await recorder.close()


def test_few_are_all_taken() -> None:
    sampler = Sampler(per_day=10_000)
    now_ms = 0
    for _ in range(2_000):
        now_ms += 15_000
        assert sampler.due_ms <= now_ms
        sampler.took(now_ms, cost_ms=0.02)


@pytest.mark.parametrize(("cost_ms", "turns"), [(0.0, 1), (0.02, 1), (0.5, 9)])
def test_of_many_no_more_than_a_day_keeps(cost_ms: float, turns: int) -> None:
    sampler = Sampler(per_day=DECISIONS_KEPT)
    taken = now_ms = 0
    while now_ms < DAY_MS:
        now_ms = max(now_ms, sampler.due_ms)
        sampler.took(now_ms, cost_ms, turns)
        taken += turns
    assert DECISIONS_KEPT * 0.9 < taken < DECISIONS_KEPT * 1.1 + 2 * turns


def test_they_never_take_more_than_their_share_of_time() -> None:
    sampler = Sampler(per_day=1e9)
    taken_ms = 0.0
    for now_ms in range(60_000):
        if now_ms >= sampler.due_ms:
            sampler.took(now_ms, cost_ms=0.1)
            taken_ms += 0.1
    assert taken_ms / 60_000 <= CPU_SHARE * 1.05


async def test_a_swarm_tells_its_witness_before_the_books_change(store: MemoryStore) -> None:
    hive = Hive("w", slots=2)
    recorder = DecisionRecorder(hive.swarm.router, store)
    hive.swarm.dispatcher.witness = recorder
    hive.submit("t")
    hive.submit("unknown", model="nobody")
    await recorder.close()
    (_, admitted), (_, scored) = await kept(store)
    assert admitted["task"]["id"] == scored["task"]["id"] == "t"
    assert scored["chosen"] == "w"
    (worker,) = scored["workers"]
    assert (worker["id"], worker["slots_used"], worker["slots_free"]) == ("w", 0, 2)
    assert scored["task"]["attempt"] == 1


async def test_a_durable_task_is_told_of_once(store: MemoryStore) -> None:
    hive = Hive("w")
    recorder = DecisionRecorder(hive.swarm.router, store)
    hive.swarm.dispatcher.witness = recorder
    asked = TaskSubmitted(TaskId("t"), ModelName("qwen"), Priority.HIGH, KeyId("k"), 1, 1, durable=True)
    assert hive.swarm.dispatcher.refusal(asked, hive.now_ms) is None
    hive.tell(asked)
    hive.now_ms += 10_000
    hive.swarm.set_script(Strict())
    again = msgspec.structs.replace(asked, task_id=TaskId("u"))
    assert hive.swarm.dispatcher.refusal(again, hive.now_ms) is not None
    await recorder.close()
    told = [(facts["task"]["id"], facts["refused"]) for kind, facts in await kept(store) if kind == "admit"]
    assert told == [("t", None), ("u", "policy_refused")]


async def test_a_swarm_tells_its_witness_where_and_how_many(store: MemoryStore) -> None:
    bed = ScaleBed("oak", "mac")
    recorder = DecisionRecorder(bed.swarm.router, store)
    bed.swarm.dispatcher.witness = recorder
    bed.settle().scale("a", 0, 2)
    bed.submit("a")
    bed.run_until(lambda: bed.serving("a"))
    bed.run(400_000)
    assert not bed.workers("a"), "nobody asked any more"
    await recorder.close()
    told = await kept(store)
    (placed,) = [facts for kind, facts in told if kind == "place"]
    assert placed["chosen"] in {"oak", "mac"}
    assert {host["name"] for host in placed["hosts"]} == {"oak", "mac"}
    assert {"vote_proximity", "score", "free_mib"} <= set(placed["hosts"][0])
    assert placed["model"] == {"name": "a", "workers": 0, "min_workers": 0, "max_workers": 2}
    up, down = [facts for kind, facts in told if kind == "scale"]
    assert (up["chosen"], up["stats"]["waiting"], up["model"]["workers"]) == (1, 1, 0)
    assert (down["chosen"], down["stats"]["target"], down["model"]["workers"]) == (0, 0, 1)
