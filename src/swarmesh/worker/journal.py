"""The agent's own log: one JSON object per line and fact."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from swarmesh.engines.bounded_log import BoundedLog


class Journal:
    """Facts in a file that cannot fill a disk. What is written must not hold a secret or a prompt."""

    def __init__(self, path: Path) -> None:
        self._log = BoundedLog(path)

    def write(self, event: str, **facts: Any) -> None:
        """Add a fact; its time is added here."""
        self._log.write(msgspec.json.encode({"at": round(time.time(), 3), "event": event, **facts}) + b"\n")
