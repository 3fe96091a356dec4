"""What the process of a script may not do, from the moment it reads the script.

Starlark itself offers no files, no network and no other processes; these limits hold where its implementation has a
flaw, and they are the only ones on memory: one expression can ask for any amount of it at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
import signal
import sys
from pathlib import Path
from typing import Final

MEMORY_MIB: Final = 64
"""For the script, above what its process has before it reads one."""
LOAD_S_MAX: Final = 5.0
ASK_S_MAX: Final = 1.0
"""After so long the kernel ends the process, whatever it computes and whoever still waits for it."""
_PAGE_BYTES: Final = resource.getpagesize()
_BARE_MIB: Final = 192
"""What a process may have in all where the system does not say what it has already."""
_PR_SET_NO_NEW_PRIVS: Final = 38


def confine() -> None:
    """No new files, processes or rights, no core dump, and memory within bounds.

    On macOS the bounds on memory are weak: the kernel takes note of them and grants more all the same. There the time
    limits end what grows.
    """
    total_bytes, data_bytes = _memory_bytes()
    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_CORE):
        _limit(kind, 0)
    _limit(resource.RLIMIT_AS, total_bytes + MEMORY_MIB * 1024 * 1024)
    _limit(resource.RLIMIT_DATA, data_bytes + MEMORY_MIB * 1024 * 1024)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def end_after(seconds: float) -> None:
    """Let the kernel end this process unless it is called again in time; 0 takes that back.

    Native code that computes without end asks nobody whether it may, and its queen may be gone.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit(kind: int, most: int) -> None:
    # A limit that was lower already stays, and a system that knows no such limit goes without.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(kind, (most, most))


def _memory_bytes() -> tuple[int, int]:
    """Address space and data of this process now."""
    try:
        fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return _BARE_MIB * 1024 * 1024, _BARE_MIB * 1024 * 1024
    return int(fields[0]) * _PAGE_BYTES, int(fields[5]) * _PAGE_BYTES
