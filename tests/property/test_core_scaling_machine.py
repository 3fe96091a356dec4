"""Whatever owners, clients and machines do: bounds, memory and running tasks are respected, nobody waits for ever."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scale_bed import Kind, ScaleBed
from swarmesh.core.commands import Command, SpawnWorker, StopWorker
from swarmesh.core.events import SpawnProgressed, WorkerFellSilent, WorkerHeard, WorkerStopRequested
from swarmesh.core.fleet import Worker
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.core.scale_action import DRAIN_GRACE_MS
from swarmesh.core.scale_view import ScaleDecision, ScaleKind

MODELS = ("a", "b", "c")
HOSTS = ("elm", "oak")
WAIT_MS_MAX = 2_400_000
CALM_MS = 900_000
models = st.sampled_from(MODELS)
hosts = st.sampled_from(HOSTS)


class ScalingMachine(RuleBasedStateMachine):
    """A bed whose commands are checked as they come."""

    @initialize(memory=st.tuples(st.integers(2_500, 7_000), st.integers(2_500, 9_000)))
    def begin(self, memory: tuple[int, int]) -> None:
        self.bed = ScaleBed(elm=memory[0], oak=memory[1])
        self.bed.watch = self._watch
        self.by_hand: set[str] = set()
        self.asked_at_ms: dict[str, int] = {}
        self.submitted_at_ms: dict[str, int] = {}
        self.seen: dict[str, ScaleDecision | None] = {}
        self.paused = False
        self.adopted = 0
        for model, need_mib in zip(MODELS, (2_000, 3_500, 5_000), strict=True):
            self.bed.kinds[model] = Kind(need_mib=need_mib, load_ms=3_000)

    @rule(model=models, low=st.integers(0, 2), more=st.integers(0, 3), paused=st.sampled_from([False] * 5 + [True]))
    def set_bounds(self, model: str, low: int, more: int, *, paused: bool) -> None:
        self.bed.scale(model, low, max(1, low + more), paused=paused)

    @rule(model=models)
    def lower_bounds_under_load(self, model: str) -> None:
        self.bed.kinds[model].task_ms = 30_000
        self.bed.scale(model, 2, 4)
        self.bed.run(60_000)
        self.submit(model, 5, durable=True)
        self.bed.run(2_000)
        self.bed.scale(model, 0, 1)
        self.bed.run(2_000)

    @rule(low=st.integers(0, 1))
    def set_bounds_of_all(self, low: int) -> None:
        self.bed.scale("", low, 2)

    @rule(model=st.sampled_from(["", *MODELS]))
    def take_bounds_away(self, model: str) -> None:
        self.bed.unscale(model)

    @rule()
    def pause_or_resume(self) -> None:
        self.paused = not self.paused
        self.bed.pause(paused=self.paused)

    @rule(model=models, count=st.integers(1, 12), durable=st.booleans())
    def submit(self, model: str, count: int, *, durable: bool) -> None:
        for _ in range(count):
            name = self.bed.submit(model, durable=durable)
            if not durable:
                self.submitted_at_ms[name] = self.bed.now_ms

    @rule(for_ms=st.sampled_from([100, 700, 3_000, 15_000, 60_000, 400_000]))
    def wait(self, for_ms: int) -> None:
        self.bed.run(for_ms)

    @rule(model=models, task_ms=st.sampled_from([500, 4_000, 30_000]), load_ms=st.sampled_from([500, 9_000, 50_000]))
    def change_kind(self, model: str, task_ms: int, load_ms: int) -> None:
        self.bed.kinds[model].task_ms, self.bed.kinds[model].load_ms = task_ms, load_ms

    @rule(model=models, trouble=st.sampled_from(["fails", "hangs", "dies", ""]))
    def make_trouble(self, model: str, trouble: str) -> None:
        kind = self.bed.kinds[model]
        kind.fails = "it does not start" if trouble == "fails" else ""
        kind.hangs = trouble == "hangs"
        kind.dies_after_ms = 1_500 if trouble == "dies" else 0

    @rule(host=hosts, trouble=st.sampled_from(["down", "unusable", "draining", ""]))
    def trouble_host(self, host: str, trouble: str) -> None:
        machine = self.bed.machines[host]
        machine.down = "the connection broke" if trouble == "down" else ""
        machine.facts = {"usable": trouble != "unusable", "draining": trouble == "draining"}

    @rule(answers=st.booleans())
    def lose_answers(self, *, answers: bool) -> None:
        self.bed.answers_seeks = answers

    @precondition(lambda self: self.bed.alive)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        self.bed.end_worker(data.draw(st.sampled_from(sorted(self.bed.alive))), "killed")

    @precondition(lambda self: self.bed.alive)
    @rule(data=st.data(), grace_ms=st.sampled_from([0, 60_000]))
    def stop_by_hand(self, data: st.DataObject, grace_ms: int) -> None:
        worker_id = data.draw(st.sampled_from(sorted(self.bed.alive)))
        self.by_hand.add(worker_id)
        self.bed.handle(WorkerStopRequested(WorkerId(worker_id), grace_ms))

    @precondition(lambda self: self.bed.alive)
    @rule(data=st.data(), heard=st.booleans())
    def go_silent(self, data: st.DataObject, *, heard: bool) -> None:
        worker_id = WorkerId(data.draw(st.sampled_from(sorted(self.bed.alive))))
        self.bed.handle(WorkerHeard(worker_id) if heard else WorkerFellSilent(worker_id, "nothing heard"))

    @precondition(lambda self: self.bed.spawned)
    @rule()
    def progress(self) -> None:
        self.bed.handle(SpawnProgressed(WorkerId(self.bed.spawned[-1])))

    @rule(model=models, host=hosts)
    def adopt(self, model: str, host: str) -> None:
        pools = self.bed.swarm.memory.free(HostName(host))
        if pools and pools[0].free_mib >= self.bed.kinds[model].need_mib:
            self.adopted += 1
            self.bed.adopt(f"adopted{self.adopted}", model, host)

    @invariant()
    def no_memory_is_promised_twice(self) -> None:
        for host in HOSTS:
            books = self.bed.swarm.memory.of_host(HostName(host))
            for pool in books.pools() if books is not None else []:
                assert sum(pool.reserved.values()) <= pool.usable_mib

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        for name, at_ms in list(self.submitted_at_ms.items()):
            if name in self.bed.done or name in self.bed.failed:
                del self.submitted_at_ms[name]
            else:
                assert self.bed.now_ms - at_ms < WAIT_MS_MAX, f"{name} waits since {at_ms}"

    def teardown(self) -> None:
        """When all is well again everything that waits is served or told why not."""
        if not hasattr(self, "bed"):
            return
        bed = self.bed
        bed.pause(paused=False)
        bed.answers_seeks = True
        for machine in bed.machines.values():
            machine.down, machine.facts = "", {}
        for kind in bed.kinds.values():
            kind.fails, kind.hangs, kind.dies_after_ms, kind.task_ms = "", False, 0, 500
        for worker_id in list(bed.alive):
            bed.handle(WorkerHeard(WorkerId(worker_id)))
        bed.run(CALM_MS)
        for model in bed_models(bed):
            stats = bed.swarm.scaler.state_of(model, bed.now_ms).stats
            if stats.waiting and not stats.serving + stats.starting:
                places = self._places(model)
                assert not places, f"{stats.waiting} tasks of {model} wait although {places} could be made free"
        left = [name for name in self.submitted_at_ms if name not in bed.done and name not in bed.failed]
        assert not left, f"{left} were never told anything"

    def _places(self, model: ModelName) -> list[str]:
        """The hosts with room for a worker of it, beside the workers that nobody may let go for it."""
        books = self.bed.swarm.scaler._books
        if books.is_paused(books.of_model[model]):
            return []
        return [host for host in HOSTS if self._free_at_most_mib(host, model) >= self.bed.kinds[model].need_mib]

    def _free_at_most_mib(self, host: str, newcomer: ModelName) -> int:
        swarm, books = self.bed.swarm, self.bed.swarm.scaler._books
        pools = swarm.memory.of_host(HostName(host))
        assert pools is not None
        here = [worker for worker in swarm.fleet if worker.host == host]
        kept_mib = 0
        for model in {worker.model for worker in here}:
            state = books.of_model.get(model)
            spare = books.present(model) - state.bounds.min_workers if state is not None and state.bounds else 0
            if state is None or books.is_paused(state) or model == newcomer:
                spare = 0
            count = sum(worker.model == model for worker in here)
            kept_mib += max(0, count - max(0, spare)) * self.bed.kinds[model].need_mib
        return sum(pool.usable_mib for pool in pools.pools()) - kept_mib

    def _watch(self, commands: list[Command]) -> None:
        swarm = self.bed.swarm
        for command in commands:
            if isinstance(command, SpawnWorker):
                worker = swarm.fleet.get(command.worker_id)
                assert worker is not None
                state = swarm.scaler.state_of(worker.model, self.bed.now_ms)
                assert state.bounds is not None
                assert len(self.bed.workers(worker.model)) <= state.bounds.max_workers
            if isinstance(command, StopWorker):
                self._check_stop(command)
        for model in bed_models(self.bed):
            self._check_history(model)
        for worker in swarm.fleet:
            if worker.stop_at_ms and str(worker.worker_id) not in self.asked_at_ms:
                self.asked_at_ms[str(worker.worker_id)] = self.bed.now_ms
                self._check_drain(worker)
        loading = [
            worker_id
            for state in swarm.scaler._books.of_model.values()
            if state.action is not None
            for worker_id in state.action.starts
        ]
        assert sorted(loading) == sorted(swarm.scaler._moves.starts.loading)

    def _check_stop(self, command: StopWorker) -> None:
        worker = self.bed.swarm.fleet.get(command.worker_id)
        worker_id = str(command.worker_id)
        if worker is None or worker_id in self.by_hand or not worker.running:
            return
        assert self.bed.now_ms - self.asked_at_ms.get(worker_id, self.bed.now_ms) >= DRAIN_GRACE_MS

    def _check_drain(self, worker: Worker) -> None:
        if not worker.running or str(worker.worker_id) in self.by_hand:
            return
        done = self.bed.swarm.scaler.state_of(worker.model, self.bed.now_ms).history
        rules = [decision.rule for decision in done if worker.worker_id in decision.workers and decision.kind == "down"]
        assert rules == ["room"], f"{worker.worker_id} was busy and had to go by {rules}"

    def _check_history(self, model: ModelName) -> None:
        state = self.bed.swarm.scaler.state_of(model, self.bed.now_ms)
        last = state.history[0] if state.history else None
        if last is not None and last is not self.seen.get(model) and last.kind is ScaleKind.DOWN:
            assert state.bounds is not None
            assert last.target >= state.bounds.min_workers
            for worker_id in last.workers:
                worker = self.bed.swarm.fleet.get(worker_id)
                assert worker is None or not worker.direct
        self.seen[model] = last


def bed_models(bed: ScaleBed) -> list[ModelName]:
    """Those of which anything is known."""
    scaler = bed.swarm.scaler
    return list(dict.fromkeys([*scaler.models(), *scaler._books.of_model]))


TestScaling = ScalingMachine.TestCase
TestScaling.settings = settings(max_examples=20, stateful_step_count=40, deadline=None)
