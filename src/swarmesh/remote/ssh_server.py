"""The process of sshd that carries this connection, which is its parent."""

from __future__ import annotations

import os
import signal
from typing import Final

import psutil

from swarmesh.hosts.process_identity import ProcessIdentity, identify

NAMES: Final = frozenset({"sshd", "sshd-session"})


class SshServer:
    """Remembers the parent of its start: a process whose parent has died gets another, which may be sshd as well."""

    def __init__(self) -> None:
        self._process = _own_sshd(os.getppid())

    def end(self) -> bool:
        """End the connection with everything that is forwarded through it; False when it is none of sshd's.

        What is at its other end is not asked: this is for a network that carries nothing any more.
        """
        if self._process is None or os.getppid() != self._process.pid:
            return False
        return self._process.send(signal.SIGTERM)


def _own_sshd(pid: int) -> ProcessIdentity | None:
    if pid <= 1:
        return None
    try:
        process = psutil.Process(pid)
        if process.name() not in NAMES or process.uids().real != os.getuid():
            return None
    except psutil.Error:
        return None
    return identify(pid)
