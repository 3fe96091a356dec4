"""A process and all its descendants: what they hold and what they use."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Final

import psutil

MIB: Final = 1024 * 1024
MEMBERS_MAX: Final = 256
"""Of one family; what has more is counted in part."""


def memory_mib(pid: int) -> int:
    """Resident memory of the family; 0 when it has ended."""
    return sum(_resident_bytes(member) for member in family(pid)) // MIB


def cpu_s(pid: int) -> float:
    """Processor time of the family so far, the ended children that were waited for included."""
    return sum(_cpu_s(member) for member in family(pid))


def suspended(pid: int) -> bool:
    """Whether a signal has stopped it, as SIGSTOP does; one that a debugger holds is not."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def family(pid: int) -> list[psutil.Process]:
    """The process and its descendants; none when it has ended."""
    try:
        head = psutil.Process(pid)
        return [head, *(_descendants(pid) if _kernel_lists_children() else head.children(recursive=True))]
    except psutil.Error:
        return []


def _descendants(pid: int) -> list[psutil.Process]:
    # Without the kernel's own lists every process of the machine has to be read, as psutil does, which on a busy one
    # holds up the agent's loop.
    found: list[psutil.Process] = []
    waiting = [pid]
    while waiting and len(found) < MEMBERS_MAX:
        children = _children(waiting.pop())
        waiting += children
        found += [process for child in children if (process := _process(child)) is not None]
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    # The process, or one of its threads, may end between two reads; then there is no more to learn of it.
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text(encoding="ascii").split())
    return found


@functools.cache
def _kernel_lists_children() -> bool:
    return any(Path("/proc/self/task").glob("*/children"))


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
