"""What a figure means nothing without: the machine, the versions, the command and the day."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import psutil

from .installs import REPOSITORY

GIT_TIMEOUT_S = 10


def describe(command: str, date: str, niceness: int) -> dict[str, str]:
    """The machine and the run, as label and text."""
    libraries = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("uvloop", "msgspec", "httptools"))
    return {
        "Date": date,
        "Command": command,
        "Commit": _commit(),
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "Memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "System": f"{_distribution()}, Linux {platform.release()}",
        "Python": f"{platform.python_version()}, {libraries}",
        "Niceness": str(niceness),
        "Load average before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _commit() -> str:
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return commit + (" with changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],  # noqa: S607 - the git of whoever runs the benchmark
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=GIT_TIMEOUT_S,
        check=True,
    )
    return done.stdout.strip()
