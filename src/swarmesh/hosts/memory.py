"""How much memory this machine has for workers."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psutil

MIB: Final = 1024 * 1024
CGROUP_DIR: Final = Path("/sys/fs/cgroup")


def memory_mib(cgroup_dir: Path = CGROUP_DIR) -> tuple[int, int]:
    """Total and available MiB; the smaller of what the machine has and what its control group may use."""
    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    limit, used = _read(cgroup_dir / "memory.max"), _read(cgroup_dir / "memory.current")
    if limit is not None and used is not None:
        total, available = min(total, limit), min(available, max(0, limit - used))
    return total // MIB, available // MIB


def _read(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() else None
