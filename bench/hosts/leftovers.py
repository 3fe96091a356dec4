"""What is on the machines of a swarm: processes, sockets and files, so that two moments can be compared."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
import psutil

from .bed import Machine, login_home
from .swarm import Swarm

SETTLE_S: Final = 5.0
"""How long after the queen says that all is over something may still be about to go."""
LOOK_S: Final = 0.2
KEPT: Final = re.compile(r"/rustbees/[^/]+/(agent|engine)\.(log|out)[.\d]*$|/__pycache__/")
"""Logs of workers that have ended are kept on purpose, the last few; and Python keeps what it compiled."""
WORKER: Final = "swarmesh.worker"
MIB: Final = 1024 * 1024


class Kind(StrEnum):
    """Of what is counted."""

    PROCESS = "processes"
    SOCKET = "sockets"
    FILE = "files"


Things = Counter[tuple[Kind, str]]


def present(swarm: Swarm) -> Things:
    """Everything now, on the queen's machine and on every host."""
    found: Things = Counter((Kind.PROCESS, f"here: {_shown(process)}") for process in _here(swarm))
    for directory in (swarm.home / "rustbees", swarm.home / "run"):
        for path in directory.rglob("*") if directory.is_dir() else ():
            if not path.is_dir():
                found[_thing("s" if path.is_socket() else "f", str(path), "here")] += 1
    for name, machine in swarm.machines.items():
        found.update((Kind.PROCESS, f"{name}: {command}") for command in machine.processes().values())
        found.update(_thing(line[0], line[2:], name) for line in _listed(machine))
    return Counter({thing: count for thing, count in found.items() if not KEPT.search(thing[1])})


def left(swarm: Swarm, before: Things) -> Things:
    """What is there beyond ``before``, once nothing more goes away by itself."""
    until_s = time.monotonic() + SETTLE_S
    while (more := present(swarm) - before) and time.monotonic() < until_s:
        time.sleep(LOOK_S)
    return more


def count(things: Things, kind: Kind) -> int:
    """Those of one kind."""
    return sum(number for (each, _), number in things.items() if each is kind)


def workers_memory_mib(swarm: Swarm) -> tuple[int, float]:
    """Workers that live, and the memory of their agents and engines together; a shared page counts once (PSS)."""
    roots = [process for process in _everywhere(swarm) if WORKER in _shown(process)]
    total_bytes = 0
    for root in roots:
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total_bytes += process.memory_full_info().pss
    return len(roots), total_bytes / MIB


def _everywhere(swarm: Swarm) -> Iterator[psutil.Process]:
    yield from _here(swarm)
    for machine in swarm.machines.values():
        yield from psutil.Process(machine.pid).children(recursive=True)


def _here(swarm: Swarm) -> set[psutil.Process]:
    """The queen's children, and whatever works in her home: agents may have outlived an earlier queen."""
    note = msgspec.json.decode((swarm.home / "queen.json").read_bytes(), type=dict[str, object])
    pid = note["pid"]
    assert isinstance(pid, int), "she wrote it"
    found = set(psutil.Process(pid).children(recursive=True))
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(swarm.home):
                found.add(process)
    return found


def _shown(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.NoSuchProcess:
        return "one that has just ended"


def _listed(machine: Machine) -> list[str]:
    kinds = ["(", "-type", "f", "-o", "-type", "s", ")"]
    return machine.inside("find", login_home(), "/tmp", *kinds, "-printf", r"%y %p\n").splitlines()


def _thing(kind: str, path: str, where: str) -> tuple[Kind, str]:
    return (Kind.SOCKET if kind == "s" else Kind.FILE), f"{where}: {path}"
