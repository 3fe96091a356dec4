"""A checker that never complains checks nothing: each is shown a state it must refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swarmesh.core.commands import (
    BreakStream,
    CancelStream,
    Command,
    FailTask,
    ForgetWorker,
    PreemptStream,
    RaiseAlarm,
    SpawnWorker,
    StartStream,
    StopWorker,
)
from swarmesh.core.decision import Decision
from swarmesh.core.errors import RustbeeLostError
from swarmesh.core.events import (
    Event,
    GpuMemory,
    HostDrainRequested,
    HostLost,
    HostProbed,
    SpawnRequested,
    TaskCancelled,
    TaskSubmitted,
    Ticked,
    WorkerAlarmed,
    WorkerFellSilent,
    WorkerRegistered,
)
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import HostName, KeyId, ModelName, Priority, TaskId, WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.core.swarm import Swarm
from swarmesh.sim.checkers import InvariantBrokenError
from swarmesh.sim.clock import Clock
from swarmesh.sim.result import percentile
from swarmesh.sim.watch import Watch

BEE, OAK, QWEN, ADA = WorkerId("bee"), HostName("oak"), ModelName("qwen"), KeyId("ada")
RUNS, WAITS = TaskId("runs"), TaskId("waits")
DECISION = Decision(WAITS, "least-work", BEE, 0.0, 1, ())


class Scene:
    """One worker with one slot, one task that runs and one that waits."""

    def __init__(self) -> None:
        self.swarm = Swarm()
        self.watch = Watch(self.swarm, amnesty_until_ms=10)
        self.tell(HostProbed(OAK, 10_000, 10_000))
        self.tell(WorkerRegistered(BEE, QWEN, "cpu", OAK, "unix:/w", 1, ready=True))
        for task_id, priority in ((RUNS, Priority.MEDIUM), (WAITS, Priority.HIGH)):
            self.tell(TaskSubmitted(task_id, QWEN, priority, ADA, 40, 10))
        self.watch.full()

    def tell(self, event: Event) -> None:
        self.watch.before(event)
        self.watch.step(event, self.swarm.handle(event, 1), 1)

    def bee(self) -> Worker:
        worker = self.swarm.fleet.get(BEE)
        assert worker is not None
        return worker


def leak_a_charge(scene: Scene) -> None:
    del scene.swarm.dispatcher.tasks[RUNS]
    del scene.watch.open[RUNS]


def drift(scene: Scene) -> None:
    scene.bee().backlog += 0.5


def leave_dust(scene: Scene) -> None:
    for task_id in (WAITS, RUNS):
        scene.tell(TaskCancelled(task_id))
    scene.bee().backlog = 1e-9


def charge_twice(scene: Scene) -> None:
    scene.tell(WorkerRegistered(WorkerId("other"), ModelName("demo"), "cpu", OAK, "unix:/o", 1, ready=True))
    other = scene.swarm.fleet.get(WorkerId("other"))
    assert other is not None
    other.running, other.backlog = dict(scene.bee().running), scene.bee().backlog


def idle(scene: Scene) -> None:
    scene.bee().slots = 2


def lose_a_waiting_task(scene: Scene) -> None:
    scene.swarm.dispatcher.queue.remove(scene.swarm.dispatcher.tasks[WAITS])


def forget_a_task(scene: Scene) -> None:
    scene.swarm.dispatcher.queue.remove(scene.swarm.dispatcher.tasks.pop(WAITS))


def miscount_a_key(scene: Scene) -> None:
    scene.swarm.dispatcher.queue._per_key[ADA] = 7


def promise_too_much(scene: Scene) -> None:
    books = scene.swarm.memory.of_host(OAK)
    assert books is not None
    books.ram.reserved[BEE] = 1


def change_an_attempt(scene: Scene) -> None:
    scene.swarm.dispatcher.tasks[RUNS].attempt = 9


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (leak_a_charge, "charged for runs: over"),
        (drift, "has backlog"),
        (leave_dust, "is empty and has backlog"),
        (charge_twice, "runs on 2 workers"),
        (idle, "1 slots free and waits waits"),
        (lose_a_waiting_task, "queued tasks and the queue differ"),
        (forget_a_task, "not the open ones"),
        (miscount_a_key, "key ada counts 7 tasks and has 1"),
        (promise_too_much, r"oak has promised {} and booked {'bee': 1}"),
        (change_an_attempt, "by history"),
    ],
)
def test_a_spoiled_state_is_refused(spoil: Callable[[Scene], None], words: str) -> None:
    scene = Scene()
    spoil(scene)
    with pytest.raises(InvariantBrokenError, match=words):
        scene.watch.full()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (StartStream(RUNS, 2, BEE, QWEN, 0, DECISION), "starts a task that runs or is over"),
        (StartStream(TaskId("x"), 1, BEE, QWEN, 0, DECISION), "starts a task that runs or is over"),
        (StartStream(WAITS, 1, WorkerId("x"), QWEN, 0, DECISION), "names a worker nobody knows"),
        (StartStream(WAITS, 1, BEE, ModelName("demo"), 0, DECISION), "goes to a worker of qwen"),
        (StartStream(WAITS, 0, BEE, QWEN, 0, DECISION), "follows attempt 0"),
        (StartStream(WAITS, 5, BEE, QWEN, 0, DECISION), "follows attempt 0"),
        (PreemptStream(WAITS, 1, BEE), "takes the slot of a task that has none"),
        (PreemptStream(RUNS, 1, BEE), "takes the slot of Followed"),
        (RaiseAlarm(BEE, "lease_expired", "m"), "during the amnesty"),
        (BreakStream(WAITS, 1, BEE, "c", "m"), "breaks a stream that is not there"),
        (BreakStream(RUNS, 2, BEE, "c", "m"), "breaks a stream that is not there"),
        (CancelStream(RUNS, 1, BEE), "stops a stream that somebody waits for"),
        (FailTask(TaskId("x"), RustbeeLostError()), "ends a task that runs or is over"),
        (FailTask(RUNS, RustbeeLostError()), "ends a task that runs or is over"),
        (StopWorker(BEE, OAK, direct=False), "stops"),
        (ForgetWorker(BEE), "forgets a known worker"),
    ],
)
def test_a_command_that_cannot_be_right_is_refused(told: Command, words: str) -> None:
    with pytest.raises(InvariantBrokenError, match=words):
        Scene().watch.step(Ticked(), [told], 1)


@pytest.mark.parametrize("status", [WorkerStatus.DRAINING, WorkerStatus.DEAD, WorkerStatus.STARTING])
def test_a_start_on_a_worker_that_does_not_serve_is_refused(status: WorkerStatus) -> None:
    scene = Scene()
    scene.bee().status = status
    with pytest.raises(InvariantBrokenError, match="goes to"):
        scene.watch.step(Ticked(), [StartStream(WAITS, 1, BEE, QWEN, 0, DECISION)], 1)


def test_a_start_on_a_worker_whose_last_word_was_an_alarm_is_refused() -> None:
    scene = Scene()
    scene.watch._follow_event(WorkerAlarmed(BEE, "engine_died", "signal 9"))
    scene.watch._follow_event(TaskCancelled(WAITS))
    scene.watch._follow_event(TaskSubmitted(WAITS, QWEN, Priority.HIGH, ADA, 40, 10))
    with pytest.raises(InvariantBrokenError, match="not ready"):
        scene.watch._follow_command(StartStream(WAITS, 1, BEE, QWEN, 0, DECISION))


def test_a_less_urgent_start_while_a_more_urgent_task_waits_is_refused() -> None:
    scene = Scene()
    low = TaskId("low")
    scene.tell(TaskSubmitted(low, QWEN, Priority.LOW, ADA, 40, 10))
    scene.bee().slots = 2
    with pytest.raises(InvariantBrokenError, match=r"low \(low\) was started while waits waits"):
        scene.watch._follow_command(StartStream(low, 1, BEE, QWEN, 0, DECISION))


def test_a_start_after_too_many_moves_is_refused() -> None:
    scene = Scene()
    scene.bee().slots = 2
    scene.watch.open[WAITS].moves = 4
    with pytest.raises(InvariantBrokenError, match="moves the task more than 3 times"):
        scene.watch._follow_command(StartStream(WAITS, 1, BEE, QWEN, 0, DECISION))


def test_a_start_where_the_answer_will_be_the_same_again_is_refused() -> None:
    scene = Scene()
    scene.bee().slots = 2
    scene.watch.open[WAITS].barred.add(BEE)
    with pytest.raises(InvariantBrokenError, match="will be the same again"):
        scene.watch._follow_command(StartStream(WAITS, 1, BEE, QWEN, 0, DECISION))


def test_a_start_on_a_silent_worker_is_refused() -> None:
    scene = Scene()
    scene.bee().slots = 2
    scene.watch.before(WorkerFellSilent(BEE, "nothing for 5 s"))
    with pytest.raises(InvariantBrokenError, match="goes to a silent worker"):
        scene.watch._follow_command(StartStream(WAITS, 1, BEE, QWEN, 0, DECISION))


def test_a_start_on_a_worker_of_a_lost_host_is_refused() -> None:
    scene = Scene()
    scene.bee().slots = 2
    scene.watch.before(HostLost(OAK, "ssh ended"))
    with pytest.raises(InvariantBrokenError, match="goes to a silent worker"):
        scene.watch._follow_command(StartStream(WAITS, 1, BEE, QWEN, 0, DECISION))


def test_a_drain_that_passes_a_worker_over_is_refused() -> None:
    with pytest.raises(InvariantBrokenError, match="does not end with its host"):
        Scene().watch.step(HostDrainRequested(OAK, 1_000), [], 1)


def test_a_drain_that_breaks_off_what_nobody_else_can_go_on_with_is_refused() -> None:
    scene = Scene()
    scene.bee().stop_at_ms = 1_000
    with pytest.raises(InvariantBrokenError, match="which could have ended"):
        scene.watch.step(HostDrainRequested(OAK, 1_000), [BreakStream(RUNS, 1, BEE, "c", "m")], 1)


def test_a_stop_of_a_worker_that_still_has_time_is_refused() -> None:
    scene = Scene()
    scene.bee().stop_at_ms = 1_000
    with pytest.raises(InvariantBrokenError, match="which still has time"):
        scene.watch.step(Ticked(), [StopWorker(BEE, OAK, direct=False)], 999)


@pytest.mark.parametrize(
    ("need_mib", "gpus", "given", "words"),
    [
        (9_201, (), (), "9200 MiB usable and 9201 MiB promised"),
        (951, (0, 1), (0,), "950 MiB usable and 951 MiB promised"),
        (2_851, (0, 1), (0, 1), "2850 MiB usable and 2851 MiB promised"),
        (10, (0,), (), "was not asked for"),
        (10, (), (1,), "was not asked for"),
        (10, (0,), (1,), "was not asked for"),
    ],
)
def test_a_promise_that_cannot_be_kept_or_was_not_asked_for_is_refused(
    need_mib: int, gpus: tuple[int, ...], given: tuple[int, ...], words: str
) -> None:
    scene = Scene()
    scene.tell(HostProbed(OAK, 10_000, 10_000, (GpuMemory(0, 1_000, 1_000), GpuMemory(1, 2_000, 2_000))))
    asked = SpawnRequested(BEE, QWEN, "cuda", OAK, 1, need_mib, gpus)
    with pytest.raises(InvariantBrokenError, match=words):
        scene.watch.step(asked, [SpawnWorker(BEE, OAK, given)], 1)


def test_more_deaths_on_one_signal_than_a_third_of_the_fleet_are_refused() -> None:
    scene = Scene()
    for _ in range(2):
        scene.watch.before(WorkerFellSilent(BEE, "nothing for 5 s"))
        alarm = RaiseAlarm(BEE, "rustbee_silent", "nothing for 5 s")
        if not scene.watch._deaths._uncertain_ms:
            scene.watch.step(Ticked(), [alarm], 20)
    with pytest.raises(InvariantBrokenError, match="2 workers declared dead within 60000 ms on one signal, 1 may"):
        scene.watch.step(Ticked(), [alarm], 21)


def test_two_suspects_on_one_worker_are_refused() -> None:
    scene = Scene()
    scene.tell(WorkerRegistered(BEE, QWEN, "cpu", OAK, "unix:/w", 2, ready=True))
    for task_id in scene.bee().running:
        scene.swarm.dispatcher.tasks[task_id].kills = 1
    with pytest.raises(InvariantBrokenError, match="bee runs 2 suspects"):
        scene.watch.full()


def test_an_urgent_task_that_waits_for_one_that_should_give_way_is_refused() -> None:
    scene = Scene()
    runs = scene.swarm.dispatcher.tasks[RUNS]
    runs.band, runs.resumable = Priority.LOW, True
    with pytest.raises(InvariantBrokenError, match="waits waits while runs runs on bee"):
        scene.watch.full()


def test_a_preempted_task_that_is_passed_for_too_long_is_refused() -> None:
    scene = Scene()
    low = TaskId("low")
    scene.tell(TaskSubmitted(low, QWEN, Priority.LOW, ADA, 40, 10))
    scene.watch._preempted.add(low)
    scene.watch.open[low].preempted_ms = 1
    other = TaskSubmitted(TaskId("other"), QWEN, Priority.LOW, ADA, 40, 10)
    scene.tell(other)
    scene.watch._now_ms = 303_001
    scene.swarm.dispatcher.queue.remove(scene.swarm.dispatcher.tasks[WAITS])
    scene.bee().slots = 2
    with pytest.raises(InvariantBrokenError, match="passes low, preempted too long ago"):
        scene.watch._follow_command(StartStream(other.task_id, 1, BEE, QWEN, 0, DECISION))


def test_tasks_that_wait_in_another_order_than_they_came_in_are_refused() -> None:
    scene = Scene()
    later = TaskId("later")
    scene.tell(TaskSubmitted(later, QWEN, Priority.HIGH, ADA, 40, 10))
    scene.watch.order_kept([WAITS, later])
    with pytest.raises(InvariantBrokenError, match="high tasks of qwen of ada wait in the order"):
        scene.watch.order_kept([later, WAITS])


def test_time_never_goes_back() -> None:
    with pytest.raises(InvariantBrokenError, match="time went back from 1 to 0 ms"):
        Scene().watch.step(Ticked(), [], 0)


def test_rest_wants_every_task_ended() -> None:
    scene = Scene()
    with pytest.raises(InvariantBrokenError, match="2 tasks never ended"):
        scene.watch.rest()
    for task_id in (WAITS, RUNS):
        scene.tell(TaskCancelled(task_id))
    scene.watch.rest()


def test_the_clock_jumps_and_keeps_the_order_of_one_moment() -> None:
    clock, seen = Clock(), []
    for delay_ms, name in ((5, "late"), (0, "now"), (5, "later"), (-3, "past is now")):
        clock.after(delay_ms, lambda name=name: seen.append((clock.now_ms, name)))
    while clock.advance():
        pass
    assert seen == [(0, "now"), (0, "past is now"), (5, "late"), (5, "later")]


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 51.0), (0.99, 100.0), (1.0, 100.0)])
def test_percentiles_are_of_the_values_themselves(share: float, value: float) -> None:
    assert percentile(list(range(100, 0, -1)), share) == value
    assert percentile([], share) == 0.0
