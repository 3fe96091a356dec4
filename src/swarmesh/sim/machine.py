"""A virtual worker: its speed, its streams, its waggles, and the ways in which it fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Final, Protocol

from swarmesh.core.events import Event, WorkerAlarmed, WorkerRegistered, WorkerWaggled
from swarmesh.core.ids import HostName, ModelName, WorkerId
from swarmesh.sim.clock import Action, Clock
from swarmesh.sim.workload import Request

NEVER_MS: Final = 1 << 60
PREFILL_TOKENS_PER_S: Final = 600
DECODE_TOKENS_PER_S: Final = 30
"""Medians; one machine is easily three times as fast as another."""
SPEED_SIGMA: Final = 0.5
SLOTS: Final = (1, 2, 4, 8)
LOADING_MS: Final = (1_000, 20_000)
NEED_MIB: Final = 4_000
ALARM_MS: Final = (20, 500)
"""Until the agent notices that its engine is dead and the queen hears of it."""


class Condition(StrEnum):
    """What a machine is really doing, whatever the swarm believes."""

    OFF = "off"
    LOADING = "loading"
    READY = "ready"
    HUNG = "hung"


@dataclass(slots=True, eq=False)
class Stream:
    """One attempt at a request on one machine.

    Attributes:
        first_token_ms: When its first token reaches the client; `NEVER_MS` while that is not to be.
    """

    request: Request
    attempt: int
    worker_id: WorkerId
    first_token_ms: int = NEVER_MS


class World(Protocol):
    """What a machine can reach of the world around it."""

    clock: Clock

    def tell(self, event: Event) -> None:
        """Let the queen know a fact."""

    def asked_interval_ms(self, worker_id: WorkerId) -> int | None:
        """The queen's answer to a waggle; None asks for a registration."""

    def finish(self, stream: Stream) -> None:
        """The stream reached its end mark."""

    def cut(self, stream: Stream) -> None:
        """The stream's connection closed without an end mark."""


@dataclass(slots=True, eq=False)
class Machine:
    """One worker process and the engine it owns."""

    worker_id: WorkerId
    model: ModelName
    host: HostName
    slots: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    loading_ms: int
    world: World
    condition: Condition = Condition.OFF
    stall_ms: int = 0
    offered_slots: int = 0
    streams: set[Stream] = field(default_factory=set)
    _life: int = 0

    def service_ms(self, prompt_tokens: float, output_tokens: float) -> float:
        """How long a stream of that size takes here."""
        return 1_000 * (prompt_tokens / self.prefill_tokens_per_s + output_tokens / self.decode_tokens_per_s)

    def boot(self) -> None:
        """Start the process: it registers, loads its model and waggles from now on."""
        self._life += 1
        self._load(self.loading_ms)
        self.register()
        self._waggle_later()

    def register(self) -> None:
        """Introduce itself to the queen, for the first time or again."""
        ready = self.condition is Condition.READY
        where = f"unix:/{self.worker_id}"
        self.world.tell(
            WorkerRegistered(self.worker_id, self.model, "cpu", self.host, where, self.offered_slots, ready)
        )

    def accept(self, stream: Stream) -> None:
        """Run a stream; one that is not ready refuses the connection, a hung one never answers."""
        if self.condition is Condition.HUNG:
            self.streams.add(stream)
        elif self.condition is not Condition.READY:
            self.world.cut(stream)
        else:
            self.streams.add(stream)
            request = stream.request
            first_ms = self.service_ms(request.prompt_tokens, 1)
            stream.first_token_ms = self.world.clock.now_ms + round(first_ms)
            total_ms = self.service_ms(request.prompt_tokens, request.output_tokens)
            self.world.clock.after(total_ms, lambda: self._finished(stream))

    def drop(self, stream: Stream) -> None:
        """The connection is closed from the other side; the slot is free at once."""
        self.streams.discard(stream)

    def crash(self, restart_ms: int, alarm_ms: int) -> None:
        """The engine dies; the agent cries for help and starts it again."""
        self._lose_streams()
        self._load(restart_ms)
        alarm = WorkerAlarmed(self.worker_id, "engine_died", "signal 9", returning=True)
        self._later(alarm_ms, lambda: self.world.tell(alarm))

    def end(self) -> None:
        """The whole process is gone, now and for good."""
        self._life += 1
        self.condition = Condition.OFF
        self._lose_streams()

    def hang(self, wake_ms: int) -> None:
        """Fall silent without closing anything; after ``wake_ms`` the process is started anew."""
        self._life += 1
        self.condition = Condition.HUNG
        for stream in self.streams:
            if stream.first_token_ms > self.world.clock.now_ms:
                stream.first_token_ms = NEVER_MS
        self._later(wake_ms, self._wake)

    def _wake(self) -> None:
        self._lose_streams()
        self.boot()

    def _load(self, loading_ms: int) -> None:
        self.condition = Condition.LOADING
        self._later(loading_ms, self._loaded)

    def _loaded(self) -> None:
        self.condition = Condition.READY

    def _lose_streams(self) -> None:
        lost = sorted(self.streams, key=lambda stream: stream.request.task.task_id)
        self.streams.clear()
        for stream in lost:
            self.world.cut(stream)

    def _finished(self, stream: Stream) -> None:
        if stream in self.streams and self.condition is Condition.READY:
            self.streams.remove(stream)
            self.world.finish(stream)

    def _waggle_later(self) -> None:
        interval_ms = self.world.asked_interval_ms(self.worker_id)
        if interval_ms is None:
            self.register()
            interval_ms = self.world.asked_interval_ms(self.worker_id) or 0
        stall_ms, self.stall_ms = self.stall_ms, 0
        self._later(interval_ms + stall_ms, self._waggle)

    def _waggle(self) -> None:
        load_ratio = min(1.0, len(self.streams) / max(1, self.offered_slots))
        ready = self.condition is Condition.READY
        self.world.tell(WorkerWaggled(self.worker_id, ready, load_ratio, NEED_MIB, 1.0, 1, self.offered_slots))
        self._waggle_later()

    def _later(self, delay_ms: float, action: Action) -> None:
        # What an earlier life had planned does not happen in the next one.
        life = self._life
        self.world.clock.after(delay_ms, lambda: action() if life == self._life else None)


def draw_machine(rng: Random, world: World, worker_id: WorkerId, model: ModelName, host: HostName) -> Machine:
    """A machine of random size and speed."""
    slots = rng.choice(SLOTS)
    return Machine(
        worker_id=worker_id,
        model=model,
        host=host,
        slots=slots,
        offered_slots=slots,
        prefill_tokens_per_s=PREFILL_TOKENS_PER_S * rng.lognormvariate(0.0, SPEED_SIGMA),
        decode_tokens_per_s=DECODE_TOKENS_PER_S * rng.lognormvariate(0.0, SPEED_SIGMA),
        loading_ms=rng.randint(*LOADING_MS),
        world=world,
    )
