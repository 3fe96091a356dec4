"""The whole control plane as one pure machine: an event and the time go in, commands come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from swarmesh.core.admission import QUEUE_MAX_PER_KEY
from swarmesh.core.commands import Command, RaiseAlarm
from swarmesh.core.dispatch import Dispatcher
from swarmesh.core.events import (
    Event,
    HostDrainRequested,
    HostLost,
    HostProbed,
    KeyLimited,
    KeyRevoked,
    LoadTimeKnown,
    ModelScaled,
    ScalingPaused,
    SitesFound,
    SpawnFailed,
    SpawnProgressed,
    SpawnRequested,
    StreamBegan,
    StreamBroke,
    StreamEnded,
    StreamProgressed,
    TaskCancelled,
    TaskSubmitted,
    Ticked,
    WorkerAlarmed,
    WorkerFellSilent,
    WorkerGone,
    WorkerHeard,
    WorkerRegistered,
    WorkerStopRequested,
    WorkerWaggled,
)
from swarmesh.core.fleet import Fleet
from swarmesh.core.hosts import Hosts
from swarmesh.core.ids import ModelName, WorkerId
from swarmesh.core.memory import MemoryBooks
from swarmesh.core.policies import PolicyName
from swarmesh.core.roster import Roster
from swarmesh.core.routing import NO_POLICIES, Router
from swarmesh.core.scaling import Scaler
from swarmesh.core.script import Script, ScriptFailedError
from swarmesh.core.script_guard import Scripted


class Swarm:
    """All mutable state of the control plane. One thread calls `handle`; others may only read.

    Time is an int in ms from any steady origin, never smaller than at the call before.

    Args:
        amnesty_until_ms: Until then no worker is declared dead for being silent: who has just woken has heard nobody.
        preemption: Whether tasks of high priority may take the slots of those of low priority.
        policy: How workers are chosen for models that ``policies`` does not name.
        seed: Of what little is left to chance; equal seeds and events give equal commands.
        script: Asked before the built-in rules.
    """

    def __init__(
        self,
        *,
        queue_max_per_key: int = QUEUE_MAX_PER_KEY,
        amnesty_until_ms: int = 0,
        preemption: bool = True,
        policy: PolicyName = PolicyName.SWARM,
        policies: Mapping[ModelName, PolicyName] = NO_POLICIES,
        seed: int = 0,
        script: Script | None = None,
    ) -> None:
        self.fleet = Fleet()
        self.memory = MemoryBooks()
        self.scripted = Scripted(script)
        self.router = Router(self.fleet, policy=policy, policies=policies, seed=seed, scripted=self.scripted)
        self.dispatcher = Dispatcher(
            self.fleet,
            self.router,
            queue_max_per_key=queue_max_per_key,
            preemption=preemption,
            scripted=self.scripted,
        )
        self.roster = Roster(self.fleet, self.memory, self.dispatcher, amnesty_until_ms=amnesty_until_ms)
        self.scaler = Scaler(self.fleet, self.memory, self.dispatcher, self.roster, self.scripted)
        self.dispatcher.admission.supply = self.scaler
        self.hosts = Hosts(self.fleet, self.roster, self.dispatcher)

    def set_policy(self, model: ModelName | None, policy: PolicyName | None) -> None:
        """Choose workers by another rule from now on: for one model (None for that of all), or for all others."""
        self.router.set_policy(model, policy)

    def set_script(self, script: Script | None) -> None:
        """Ask this script before the built-in rules from now on, or none."""
        self.scripted.use(script)

    def handle(  # noqa: C901, PLR0912, PLR0915 - one case per kind of fact, one line each; splitting would hide the list
        self, event: Event, now_ms: int
    ) -> list[Command]:
        """Take one fact in and return what is to be done about it, in order."""
        out: list[Command] = []
        match event:  # The most frequent first: matching is sequential.
            case TaskSubmitted():
                self.dispatcher.submitted(event, now_ms, out)
            case StreamEnded():
                self.dispatcher.ended(event.bounded(), now_ms, out)
            case WorkerWaggled():
                self.roster.waggled(event, now_ms, out)
                if self.scaler.is_loading(event.worker_id):
                    self.scaler.reported(event.worker_id, now_ms, out)
            case StreamBegan():
                self.dispatcher.began(event, now_ms)
            case StreamBroke():
                self.dispatcher.broke(event, now_ms, out)
            case StreamProgressed():
                self.dispatcher.progressed(event, now_ms, out)
            case TaskCancelled():
                self.dispatcher.cancelled(event, now_ms, out)
            case Ticked():
                self.roster.look_at_leases(now_ms, out)
                self.dispatcher.lose_patience(now_ms, out)
                self.scaler.look(now_ms, out)
            case WorkerRegistered():
                self.roster.registered(event, now_ms, out)
                if self.scaler.is_loading(event.worker_id):
                    self.scaler.reported(event.worker_id, now_ms, out)
            case WorkerAlarmed():
                self.roster.alarmed(event, out)
                self.scaler.troubled(event.worker_id, event.message)
            case WorkerFellSilent():
                self.roster.fell_silent(event, now_ms, out)
            case WorkerHeard():
                self.roster.heard(event, now_ms, out)
            case WorkerStopRequested():
                self.roster.stop_requested(event, now_ms, out)
            case WorkerGone():
                worker = self.fleet.get(event.worker_id)
                self.roster.gone(event, out)
                self.scaler.gone(worker, event.reason, now_ms, out)
            case HostProbed():
                self.memory.probed(event)
            case HostDrainRequested():
                self.hosts.drain_requested(event, now_ms, out)
            case HostLost():
                self.hosts.lost(event, now_ms, out)
            case SpawnRequested():
                self.roster.spawn_requested(event, now_ms, out)
            case SpawnProgressed():
                self.roster.spawn_progressed(event)
                self.scaler.progressed(event.worker_id, now_ms)
            case SpawnFailed():
                worker = self.fleet.get(event.worker_id)
                self.roster.spawn_failed(event, out)
                self.scaler.gone(worker, event.message, now_ms, out)
            case KeyLimited():
                self.dispatcher.limits.limited(event, now_ms)
            case KeyRevoked():
                self.dispatcher.limits.revoked(event, now_ms)
            case SitesFound():
                self.scaler.sites_found(event, now_ms, out)
            case ModelScaled():
                self.scaler.scaled(event, now_ms, out)
            case ScalingPaused():
                self.scaler.paused(event)
            case LoadTimeKnown():
                self.scaler.load_time_known(event)
            case _:
                assert_never(event)
        if self.dispatcher.queue.freed:
            self.dispatcher.serve_freed(now_ms, out)
        if self.scripted.is_off and (alarm := self.scripted.take_alarm()) is not None:
            out.append(RaiseAlarm(WorkerId(""), ScriptFailedError.code, alarm))
        return out
