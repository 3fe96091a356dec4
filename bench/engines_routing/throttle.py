"""Shares of the processor for single processes, by Linux's control groups of either version."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final, Self

PERIOD_US: Final = 50_000
"""How often a share is handed out. Longer loses less at the edges, and lets a pause fall between two tokens."""
AHEAD: Final = 16
"""So many times the weight of others: what a process gets is then its share, and not what others leave of it."""
ROOTS: Final = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/cpu,cpuacct"), Path("/sys/fs/cgroup"))
EMPTY_TIMEOUT_S: Final = 5.0
LOOK_S: Final = 0.05


class CpuShares:
    """A context manager: groups made by it are taken away again, which gives their processes the whole machine back.

    Raises:
        OSError: At once, when no such group can be made here; the text says why.
    """

    def __init__(self) -> None:
        self._groups: list[Path] = []
        self._root = _writable_root()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for group in self._groups:
            _take_away(group, self._root)

    def limit(self, pid: int, cores: float) -> None:
        """Let this process and its threads have no more than so much of one core."""
        group = self._root / f"swarmesh-bench-{os.getpid()}-{pid}"
        group.mkdir()
        self._groups.append(group)
        _set(group, cores)
        (group / "cgroup.procs").write_text(str(pid), encoding="ascii")


def unavailable() -> str:
    """Why processes cannot be given a share here; empty when they can."""
    try:
        with CpuShares():
            return ""
    except OSError as error:
        return str(error)


def _writable_root() -> Path:
    reasons = []
    for root in ROOTS:
        probe = root / f"swarmesh-bench-{os.getpid()}"
        try:
            probe.mkdir()
        except OSError as error:
            reasons.append(f"{root}: {error.strerror}")
            continue
        try:
            _set(probe, 1.0)
        except OSError as error:
            reasons.append(f"{root}: {error.strerror}")
        else:
            return root
        finally:
            probe.rmdir()
    raise OSError(f"no control group with a processor quota can be made ({'; '.join(reasons)})")


def _set(group: Path, cores: float) -> None:
    quota_us = round(PERIOD_US * cores)
    if (group / "cpu.max").exists():
        settings = {"cpu.max": f"{quota_us} {PERIOD_US}", "cpu.weight": str(100 * AHEAD)}
    else:
        # Missing in a group without the processor's controller; opening them to write is refused there, as it should.
        settings = {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota_us)}
        settings["cpu.shares"] = str(1_024 * AHEAD)
    for name, value in settings.items():
        (group / name).write_text(value, encoding="ascii")


def _take_away(group: Path, root: Path) -> None:
    for pid in (group / "cgroup.procs").read_text(encoding="ascii").split():
        with contextlib.suppress(ProcessLookupError):
            (root / "cgroup.procs").write_text(pid, encoding="ascii")
    give_up_s = time.monotonic() + EMPTY_TIMEOUT_S
    while True:
        try:
            group.rmdir()
        except OSError:
            # A process that has just ended holds its group until somebody has waited for it.
            if time.monotonic() > give_up_s:
                raise
            time.sleep(LOOK_S)
        else:
            return
