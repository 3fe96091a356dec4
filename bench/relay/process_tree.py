"""What a router costs the machine: the CPU time and memory of its processes, and who else used its core."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

MIB = 1024 * 1024
ROUTER_CORE = 0
LOAD_CORE = 1
STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class MemoryMib:
    """Resident memory of a process tree: ``pss`` counts a shared page once, ``rss`` once per process."""

    rss: float
    pss: float


class ProcessTree:
    """A router's root process and everything it started."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)

    def processes(self) -> list[psutil.Process]:
        """Those alive now, the root first."""
        return [self.root, *self.root.children(recursive=True)]

    def cpu_s(self) -> float:
        """User and system time of the tree, children that have ended included."""
        return sum(sum(process.cpu_times()[:4]) for process in self.processes())

    def memory_mib(self) -> MemoryMib:
        """Resident memory of the whole tree now."""
        infos = [process.memory_full_info() for process in self.processes()]
        return MemoryMib(sum(info.rss for info in infos) / MIB, sum(info.pss for info in infos) / MIB)

    def listening_on(self, port: int) -> ProcessTree:
        """The part that serves the port: a command that only waits for its server is not counted with it."""
        for process in self.processes():
            for connection in process.net_connections(kind="tcp4"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return ProcessTree(process.pid)
        raise ValueError(f"no process below {self.root.pid} listens on port {port}")

    def stop(self) -> None:
        """SIGTERM to the root, SIGKILL to what is left after a grace period."""
        processes = self.processes() if self.root.is_running() else []
        if processes:
            self.root.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(processes, timeout=STOP_TIMEOUT_S)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started inside runs on ``core`` alone; the caller goes back to its own core afterwards."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def has_both_cores() -> bool:
    """Whether this process may run on the router's core and on the load's core, and pin itself at all (Linux)."""
    return sys.platform == "linux" and {ROUTER_CORE, LOAD_CORE} <= os.sched_getaffinity(0)


def set_niceness(niceness: int) -> None:
    """Gives this process, and what it starts, a niceness; below 0 only root may.

    Linux weighs whole sessions against one another (autogroups), so the session's own niceness is set as well.
    """
    os.setpriority(os.PRIO_PROCESS, 0, niceness)
    autogroup = Path("/proc/self/autogroup")
    if autogroup.exists():
        autogroup.write_text(str(niceness), encoding="ascii")


def core_busy_s(core: int) -> float:
    """Seconds the core has spent on anything since boot, time stolen by the hypervisor included."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) / ticks_per_s
    raise ValueError(f"/proc/stat knows no core {core}")
