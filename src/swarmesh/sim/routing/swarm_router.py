"""The swarm's own core as a router: what it decides in a queen, it decides here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from swarmesh.core.commands import Command, FailTask, PreemptStream, StartStream
from swarmesh.core.events import StreamBegan, StreamEnded, TaskSubmitted, Ticked, WorkerRegistered, WorkerWaggled
from swarmesh.core.ids import LOCAL_HOST, ModelName, TaskId, WorkerId
from swarmesh.core.ledger import CHARS_PER_TOKEN
from swarmesh.core.policies import PolicyName
from swarmesh.core.swarm import Swarm
from swarmesh.sim.routing.engine import Engine, Job
from swarmesh.sim.routing.request import Request
from swarmesh.sim.routing.router import Order, Refuse, Start, Stop

MODEL: Final = ModelName("model")
WAGGLE_MS: Final = 30_000


class SwarmRouter:
    """Events for the core from what happens at the engines, and orders from its commands.

    Clients set no bound on the length of an answer, so the core knows no more of it than others do.
    """

    def __init__(self, engines: Sequence[Engine], policy: PolicyName, seed: int) -> None:
        self.swarm = Swarm(policy=policy, seed=seed)
        self._engines = engines
        self._attempts: dict[int, int] = {}
        self._sent_ms: dict[int, int] = {}
        self._timed: set[int] = set()
        self._waggled_ms = 0
        for worker, engine in enumerate(engines):
            self.swarm.handle(_registration(worker, engine.model.slots), 0)

    def arrived(self, request: Request, now_ms: float) -> list[Order]:
        """Submit it."""
        task = TaskSubmitted(
            task_id=_task_id(request.number),
            model=MODEL,
            priority=request.priority,
            key_id=request.key_id,
            prompt_chars=request.prompt_tokens * CHARS_PER_TOKEN,
            max_tokens=0,
            resumable=True,
            prefix=request.blocks,
        )
        return self._orders(self.swarm.handle(task, int(now_ms)), int(now_ms))

    def first_token(self, job: Job, worker: int, now_ms: float) -> list[Order]:  # noqa: ARG002 - the core knows who
        """The core hears of it at once if it asked for that, else when the stream ends."""
        if job.number not in self._timed:
            return []
        event = StreamBegan(_task_id(job.number), self._attempts[job.number])
        return self._orders(self.swarm.handle(event, int(now_ms)), int(now_ms))

    def ended(self, job: Job, worker: int, now_ms: float) -> list[Order]:  # noqa: ARG002 - the core knows who had it
        """Report the end as a queen does who has read the engine's last words."""
        event = StreamEnded(
            task_id=_task_id(job.number),
            attempt=self._attempts[job.number],
            completion_tokens=job.output_tokens,
            prompt_tokens=job.prompt_tokens,
            cached_tokens=job.cached_tokens,
            first_token_ms=int(job.first_token_ms) - self._sent_ms[job.number],
        )
        return self._orders(self.swarm.handle(event, int(now_ms)), int(now_ms))

    def passed(self, now_ms: float) -> list[Order]:
        """Tick, and waggle when it is time."""
        at_ms = int(now_ms)
        commands = self.swarm.handle(Ticked(), at_ms)
        if at_ms - self._waggled_ms >= WAGGLE_MS:
            self._waggled_ms = at_ms
            for worker, engine in enumerate(self._engines):
                commands += self.swarm.handle(_waggle(worker, engine), at_ms)
        return self._orders(commands, at_ms)

    def _orders(self, commands: list[Command], at_ms: int) -> list[Order]:
        orders: list[Order] = []
        for command in commands:
            match command:
                case StartStream():
                    number = _number(command.task_id)
                    self._attempts[number], self._sent_ms[number] = command.attempt, at_ms
                    if command.timed:
                        self._timed.add(number)
                    orders.append(Start(number, _worker(command.worker_id)))
                case PreemptStream():
                    orders.append(Stop(_number(command.task_id), _worker(command.worker_id)))
                case FailTask():
                    orders.append(Refuse(_number(command.task_id), command.error.code))
                case _:  # Workers neither break nor spawn here, and no task is durable.
                    raise AssertionError(f"the core asks for {command}")
        return orders


def _registration(worker: int, slots: int) -> WorkerRegistered:
    return WorkerRegistered(
        worker_id=_worker_id(worker),
        model=MODEL,
        backend="sim",
        host=LOCAL_HOST,
        location=str(LOCAL_HOST),
        slots=slots,
        ready=True,
    )


def _waggle(worker: int, engine: Engine) -> WorkerWaggled:
    return WorkerWaggled(
        worker_id=_worker_id(worker),
        ready=True,
        load_ratio=engine.running / engine.model.slots,
        vram_used_mib=0,
        quality=1.0,
        engine_pid=0,
        slots=engine.model.slots,
    )


def _task_id(number: int) -> TaskId:
    return TaskId(str(number))


def _number(task_id: TaskId) -> int:
    return int(task_id)


def _worker_id(worker: int) -> WorkerId:
    return WorkerId(f"worker-{worker}")


def _worker(worker_id: WorkerId) -> int:
    return int(worker_id.removeprefix("worker-"))
