"""``agent.json``: what an agent says about its processes, for everybody on its machine who has to find or end them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from swarmesh.config.home import write_private

FILE_NAME: Final = "agent.json"


class AgentFile(msgspec.Struct, frozen=True, kw_only=True):
    """One agent. Process times are Unix seconds as the system has them; ``boot_id`` is the machine's present boot.

    Attributes:
        nonce: Drawn by the agent at its start, as in its registration; empty until it runs.
        engine_pid: 0 while there is no engine.
    """

    rustbee_id: str
    modelcell: str
    pid: int
    started_at: float
    boot_id: str
    socket_path: str
    engine_socket_path: str
    nonce: str = ""
    backend: str = ""
    engine_pid: int = 0
    engine_started_at: float = 0.0

    def write(self, work_dir: Path) -> None:
        """Put it into the worker's directory, whole or not at all."""
        write_private(work_dir / FILE_NAME, msgspec.json.encode(self))


def read_agent_file(work_dir: Path) -> AgentFile | None:
    """The file of one worker; None when there is none that can be read."""
    try:
        return msgspec.json.decode((work_dir / FILE_NAME).read_bytes(), type=AgentFile)
    except (OSError, msgspec.DecodeError):
        return None
