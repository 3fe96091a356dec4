"""This machine as one on which the remote command runs, in a home of its own: all of a host but SSH."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts.remote_command import REMOTE_COMMAND
from swarmesh.hosts.remote_process import RemoteProcess


class ShellHere:
    """See `swarmesh.hosts.remote_process.RemoteShell`."""

    def __init__(self, user_home: Path, **environment: str) -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(user_home),
            "TMPDIR": tempfile.gettempdir(),
            **environment,
        }

    async def start(self, order: Mapping[str, Any]) -> RemoteProcess:
        return await RemoteProcess.start(["/bin/sh", "-c", REMOTE_COMMAND], order, ended, self._environment)


def ended(code: int, said: str) -> SwarmeshError:
    return SwarmeshError(f"it ended with {code}: {said}")
