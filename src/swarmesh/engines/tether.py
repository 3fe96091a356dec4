"""An engine must not outlive its agent, however that one dies: it would hold memory that nobody can use or free."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def tie_to_parent(parent_pid: int) -> None:
    """Let the kernel kill this process when its parent dies (Linux; survives exec); end now if it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit("the agent is gone")


def end_with_stdin() -> threading.Thread:
    """End this process when its standard input ends, which the parent holds open; works on every system."""
    thread = threading.Thread(target=_wait_for_end, name="tether", daemon=True)
    thread.start()
    return thread


def _wait_for_end() -> None:
    while os.read(0, 4096):
        continue
    os._exit(0)


def main(argv: list[str]) -> None:
    """``python -m swarmesh.engines.tether PARENT_PID PROGRAM ARGS…``: become the program, tied to the parent."""
    parent_pid, program, *arguments = argv
    tie_to_parent(int(parent_pid))
    os.umask(0o077)
    os.execv(program, [program, *arguments])  # noqa: S606 - an argument list of the agent's own making


if __name__ == "__main__":
    main(sys.argv[1:])
