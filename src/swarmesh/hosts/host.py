"""Where workers run: one machine behind one small interface.

Any method of a host that is not this machine may raise ``HostUnreachableError`` (see `swarmesh.hosts.ssh_errors`).
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from swarmesh.hosts.agent_file import AgentFile
from swarmesh.wire.spec import Backend, WorkerSpec


class GpuFacts(msgspec.Struct, frozen=True):
    """One GPU; MiB. ``free_mib`` equals the host's available memory where the two share it (Metal)."""

    index: int
    name: str
    backend: Backend
    total_mib: int
    free_mib: int


class HostLayout(msgspec.Struct, frozen=True, kw_only=True):
    """Where things lie on a machine; absolute paths there, see `swarmesh.config.home.Home`."""

    root: str
    workers_dir: str
    sockets_dir: str
    queen_file: str


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is and has; MiB. Inside a container with a memory limit, the limit counts.

    Attributes:
        llama_server: Path of a llama-server that can be run there; empty when there is none.
        llama_server_set: What its owner has set as llama-server, to be used for everything; may be missing.
        threads: What its owner has set for engines there; 0 for no wish.
        disk_free_mib: Where its home is.
    """

    name: str
    total_mib: int
    available_mib: int
    cpu_cores: int
    layout: HostLayout
    gpus: tuple[GpuFacts, ...] = ()
    llama_server: str = ""
    llama_server_set: str = ""
    threads: int = 0
    disk_free_mib: int = 0
    system: str = ""
    machine: str = ""
    python: str = ""
    version: str = ""
    boot_id: str = ""


class SpawnedAgent(msgspec.Struct, frozen=True):
    """An agent's process; ``started_at`` (Unix seconds) and ``boot_id`` tell it from a later one of the same pid."""

    worker_id: str
    pid: int
    started_at: float
    boot_id: str


class Host(Protocol):
    """One machine. Every method may be called again after the caller was restarted: agents outlive their queen."""

    @property
    def name(self) -> str:
        """Its name in the swarm."""

    async def probe(self) -> HostFacts:
        """Measure memory and GPUs now. A GPU tool that is missing, fails or hangs means: no such GPU."""

    async def spawn(self, spec: WorkerSpec) -> SpawnedAgent:
        """Start an agent that outlives the caller; it registers with the queen by itself.

        Raises:
            ConflictError: A worker of that id is alive.
            EngineStartError: The process could not be started.
        """

    async def stop(self, worker_id: str, grace_s: float) -> None:
        """Ask an agent to end, kill it and its engine after the grace; harmless when it has ended."""

    async def wait_exit(self, worker_id: str) -> None:
        """Return when the agent has ended; at once when there is none. Works for agents of an earlier queen."""

    async def workers(self) -> list[AgentFile]:
        """Agents alive on this machine. What dead ones left (engines, sockets) is cleared away."""

    async def tail(self, worker_id: str, lines_max: int = 20) -> str:
        """Last lines of a worker's logs, for a start that failed; empty when there are none."""

    async def reach(self, worker_id: str, location: str) -> str:
        """Where a worker that listens at ``location`` on that machine is reached from this one.

        Raises:
            SwarmeshError: The machine cannot be reached now.
        """

    async def let_go(self, worker_id: str) -> None:
        """Give up the way to a worker that is gone; harmless when there is none."""
