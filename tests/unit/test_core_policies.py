"""What each policy prefers, by its own formula."""

from __future__ import annotations

import pytest

from swarmesh.core.decision import Decision
from swarmesh.core.fleet import Fleet, Worker
from swarmesh.core.ids import HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.policies import DESCRIPTIONS, STABLE_CALM_MS, STABLE_UPTIME_MS, UNKNOWN_LOAD, PolicyName
from swarmesh.core.routing import Router
from swarmesh.core.task import Task

QWEN = ModelName("qwen")
HIGH, MEDIUM, LOW = Priority
NOW_MS = 10_000_000


def a_worker(
    name: str, *, busy: int = 0, slots: int = 4, up_ms: int = 0, proximity: float = 0.5, reported: bool = True
) -> Worker:
    worker = Worker(
        WorkerId(name), QWEN, "cpu", HostName("oak"), "", slots, False, NOW_MS - up_ms, WorkerStatus.HEALTHY
    )
    worker.running = {TaskId(f"{name}-{number}"): 100.0 for number in range(busy)}
    worker.backlog, worker.proximity, worker.reported = 100.0 * busy, proximity, reported
    return worker


def a_task(name: str = "t", *, priority: Priority = MEDIUM, prefix: tuple[int, ...] = (), chars: int = 400) -> Task:
    task = Task(TaskId(name), QWEN, priority, KeyId("k"), False, chars, 5, 0, priority)
    task.prefix = prefix
    return task


def a_router(policy: PolicyName, *workers: Worker) -> Router:
    fleet = Fleet()
    for worker in workers:
        fleet.add(worker)
    return Router(fleet, policy=policy)


def choose(policy: PolicyName, *workers: Worker, priority: Priority = MEDIUM) -> Decision:
    return a_router(policy, *workers).choose(a_task(priority=priority), NOW_MS)


def order(decision: Decision) -> list[str]:
    return [candidate.worker_id for candidate in decision.candidates]


def test_each_policy_is_described_and_names_its_decisions() -> None:
    assert DESCRIPTIONS.keys() == set(PolicyName)
    assert not any("R-" in words for words in DESCRIPTIONS.values()), "requirements mean nothing to whoever reads it"
    for policy in PolicyName:
        decision = choose(policy, a_worker("a"), a_worker("b", busy=4))
        assert (decision.policy, decision.chosen, decision.vetoes) == (policy, "a", (("busy", 1),))
        assert decision.in_words().startswith(f"{policy} chose a of 2 (1 busy): nobody else was free for it")
        assert decision.candidates[0].parts


def test_foraging_takes_the_least_loaded_by_share_of_slots() -> None:
    wide, small = a_worker("wide", busy=3, slots=16), a_worker("small", busy=1, slots=2)
    decision = choose(PolicyName.FORAGING, small, wide)
    assert order(decision) == ["wide", "small"]
    assert decision.candidates[0].score == 3 / 16


@pytest.mark.parametrize("how", ["reported", "trail"])
def test_foraging_avoids_the_depleted_and_takes_them_when_nobody_else_is_free(how: str) -> None:
    poor, loaded = a_worker("poor"), a_worker("loaded", busy=3)
    if how == "reported":
        poor.quality = 0.4
    else:
        poor.trail.broke(NOW_MS)
        poor.trail.broke(NOW_MS)
    assert order(choose(PolicyName.FORAGING, poor, loaded)) == ["loaded", "poor"]
    assert choose(PolicyName.FORAGING, poor).chosen == "poor"


@pytest.mark.parametrize("policy", [PolicyName.FORAGING, PolicyName.NEST_SITE])
def test_an_unknown_load_is_not_zero(policy: PolicyName) -> None:
    unknown, quarter = a_worker("unknown", reported=False), a_worker("quarter", busy=1)
    decision = choose(policy, unknown, quarter)
    assert order(decision) == ["quarter", "unknown"]
    assert dict(decision.candidates[1].parts)["load"] == UNKNOWN_LOAD
    assert choose(policy, unknown, a_worker("full", busy=3)).chosen == "unknown"


def test_the_swarm_does_not_take_an_unknown_load_for_none() -> None:
    assert choose(PolicyName.SWARM, a_worker("unknown", reported=False), a_worker("idle")).chosen == "idle"


@pytest.mark.parametrize(
    ("busy", "proximity", "cached_blocks", "score"),
    [
        (0, 0.5, 0, 0.4 + 0.15 + 0.15),
        (2, 1.0, 0, 0.2 + 0.3 + 0.15),
        (3, 0.0, 4, 0.1 + 0.0 + 0.3),
        (1, 0.5, 2, 0.3 + 0.15 + 0.3 * 0.75),
    ],
)
def test_nest_site_votes_are_those_of_the_founding_document(
    busy: int, proximity: float, cached_blocks: int, score: float
) -> None:
    prefix = (1, 2, 3, 4)
    worker, others = a_worker("w", busy=busy, proximity=proximity), [a_worker(name, busy=4) for name in "xyz"]
    router = a_router(PolicyName.NEST_SITE, worker, *others)
    router.choose(a_task(), NOW_MS)
    book = router.book_of(QWEN)
    assert book is not None
    book.prefixes.insert(worker.worker_id, prefix[:cached_blocks])
    decision = router.choose(a_task(prefix=prefix, chars=4 * 512), NOW_MS)
    assert decision.better == "higher"
    assert decision.cost == pytest.approx(score)


def test_division_of_labour_sends_each_priority_to_another_worker() -> None:
    old = a_worker("old", up_ms=9 * STABLE_UPTIME_MS, busy=2)
    stable = a_worker("stable", up_ms=2 * STABLE_UPTIME_MS)
    young = a_worker("young", up_ms=1_000, busy=1)
    chosen = {
        priority: choose(PolicyName.DIVISION_OF_LABOUR, old, stable, young, priority=priority).chosen
        for priority in Priority
    }
    assert chosen == {HIGH: "old", MEDIUM: "stable", LOW: "young"}


def test_a_worker_that_broke_a_stream_is_not_stable_for_a_while() -> None:
    broken, other = (
        a_worker("broken", up_ms=2 * STABLE_UPTIME_MS),
        a_worker("other", up_ms=2 * STABLE_UPTIME_MS, busy=3),
    )
    router = a_router(PolicyName.DIVISION_OF_LABOUR, broken, other)
    router.broke(broken, NOW_MS)
    assert router.choose(a_task(), NOW_MS).chosen == "other"
    assert router.choose(a_task(), NOW_MS + STABLE_CALM_MS).chosen == "broken"


def test_a_worker_becomes_stable_by_growing_old() -> None:
    young = a_worker("young", up_ms=1_000)
    router = a_router(PolicyName.DIVISION_OF_LABOUR, young, a_worker("old", up_ms=STABLE_UPTIME_MS, busy=2))
    assert router.choose(a_task(), NOW_MS).chosen == "old"
    assert router.choose(a_task(), NOW_MS + STABLE_UPTIME_MS).chosen == "young"


@pytest.mark.parametrize(
    ("priority", "reason"),
    [(HIGH, "no_experienced_rustbees"), (MEDIUM, "no_stable_rustbees"), (LOW, "no_rustbees_available")],
)
def test_division_of_labour_says_what_is_missing(priority: Priority, reason: str) -> None:
    decision = choose(PolicyName.DIVISION_OF_LABOUR, a_worker("a", busy=4), priority=priority)
    assert (decision.chosen, decision.reason) == (None, reason)
    assert choose(PolicyName.SWARM, a_worker("a", busy=4), priority=priority).reason == "no_rustbees_available"


def test_round_robin_asks_each_in_turn_whatever_it_does() -> None:
    workers = [a_worker("a", busy=3), a_worker("b"), a_worker("c", busy=1)]
    router = a_router(PolicyName.ROUND_ROBIN, *workers)
    chosen = []
    for number in range(6):
        decision = router.choose(a_task(f"t{number}"), NOW_MS)
        worker = next(worker for worker in workers if worker.worker_id == decision.chosen)
        worker.last_chosen = number + 1
        worker.slots += 1
        router.dispatched(worker, a_task(f"t{number}"), NOW_MS)
        chosen.append(worker.worker_id)
    assert chosen == ["a", "b", "c"] * 2


def test_a_policy_of_a_model_wins_over_that_of_the_swarm_and_both_can_be_changed() -> None:
    fleet = Fleet()
    fleet.add(a_worker("a"))
    router = Router(fleet, policy=PolicyName.FORAGING, policies={QWEN: PolicyName.ROUND_ROBIN})
    assert router.choose(a_task(), NOW_MS).policy == "round-robin"
    router.set_policy(None, PolicyName.SWARM)
    assert router.choose(a_task(), NOW_MS).policy == "round-robin"
    router.set_policy(QWEN, PolicyName.NEST_SITE)
    assert router.choose(a_task(), NOW_MS).policy == "nest-site"
    assert router.policy_of(ModelName("other")) is PolicyName.SWARM
    router.set_policy(QWEN, None)
    assert router.choose(a_task(), NOW_MS).policy == "swarm"
    router.set_policy(QWEN, None)
    router.set_policy(None, None)
    assert router.policy_of(QWEN) is PolicyName.SWARM
