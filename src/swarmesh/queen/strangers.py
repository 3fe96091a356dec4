"""Agents that live on a host and could not be taken over: shown to people, who can at least have them stopped."""

from __future__ import annotations

import time
from typing import Final

import msgspec
import structlog

from swarmesh.core.errors import SwarmeshError
from swarmesh.core.ids import WorkerId
from swarmesh.core.liveness import WorkerStatus
from swarmesh.hosts.agent_file import AgentFile
from swarmesh.hosts.host import Host
from swarmesh.wire.errors import ErrorBody
from swarmesh.wire.views import RustbeeView

NOT_ADOPTED: Final = "not_adopted"
END_GRACE_S: Final = 5.0
"""What it gets to end its engine by itself."""

log = structlog.get_logger("strangers")


class Stranger(msgspec.Struct, frozen=True):
    """One of them, as its host describes it, and why it was not taken over."""

    agent: AgentFile
    host: str
    reason: str


class Strangers:
    """Those of all hosts, by id."""

    def __init__(self) -> None:
        self._known: dict[WorkerId, Stranger] = {}

    def met(self, agent: AgentFile, host: str, reason: str) -> None:
        """It is there, and does not let itself be taken over."""
        self._known[WorkerId(agent.rustbee_id)] = Stranger(agent, host, reason)

    async def end(self, worker_id: WorkerId, host: Host) -> None:
        """Have it ended by its host."""
        try:
            await host.stop(worker_id, END_GRACE_S)
        except (SwarmeshError, OSError) as error:
            log.warning("not_stopped", rustbee_id=worker_id, error=str(error))
        else:
            self.forget(worker_id)

    def forget(self, worker_id: WorkerId) -> None:
        """It has ended, or is one of ours now."""
        self._known.pop(worker_id, None)

    def forget_host(self, host: str) -> None:
        """Its host is looked at anew, or is gone."""
        for worker_id in self.on_host(host):
            del self._known[worker_id]

    def get(self, worker_id: WorkerId) -> Stranger | None:
        """One of them."""
        return self._known.get(worker_id)

    def on_host(self, host: str) -> list[WorkerId]:
        """Those of one host."""
        return [worker_id for worker_id, stranger in self._known.items() if stranger.host == host]

    def views(self) -> list[RustbeeView]:
        """As people see them."""
        return [stranger_view(stranger) for stranger in self._known.values()]


def stranger_view(stranger: Stranger) -> RustbeeView:
    """One row of the list."""
    agent = stranger.agent
    return RustbeeView(
        rustbee_id=agent.rustbee_id,
        modelcell=agent.modelcell,
        backend=agent.backend,
        host=stranger.host,
        location=f"unix:{agent.socket_path}",
        status=WorkerStatus.SUSPECT.value,
        load=0.0,
        slots=0,
        slots_busy=0,
        vram_used=0,
        quality=0.0,
        uptime_s=max(0.0, round(time.time() - agent.started_at, 3)),
        pid=agent.pid,
        engine_pid=agent.engine_pid,
        next_waggle=0.0,
        error=ErrorBody(NOT_ADOPTED, stranger.reason, hint=f"'swarmesh rustbees stop {agent.rustbee_id}' ends it."),
    )
