"""What an engine holds of GPUs, looked at now and then, so that a report never waits for a driver."""

from __future__ import annotations

import asyncio
from typing import Final

from swarmesh.engines import process_family
from swarmesh.hosts.nvml import process_memory
from swarmesh.wire.spec import Backend

LOOK_INTERVAL_S: Final = 10.0
"""Loaded models do not grow by much; sooner costs a driver's initialisation each time."""
FRUITLESS_LOOKS_MAX: Final = 3
"""In a row, then it is taken for something that cannot be told here."""
COUNTED_BACKENDS: Final = frozenset({Backend.CUDA, Backend.VULKAN})
"""Those that may compute on a GPU whose driver counts by process."""


class GpuMemory:
    """The last figure of one engine.

    Attributes:
        mib: On all GPUs together; None while it is not known, or is not to be known.
    """

    def __init__(self) -> None:
        self.mib: int | None = None

    async def follow(self, pid: int) -> None:
        """Keep the figure of this process and its children fresh until cancelled, or until it cannot be told."""
        fruitless = 0
        try:
            while fruitless < FRUITLESS_LOOKS_MAX:
                self.mib = await process_memory(lambda: {member.pid for member in process_family.family(pid)})
                fruitless = fruitless + 1 if self.mib is None else 0
                await asyncio.sleep(LOOK_INTERVAL_S)
        finally:
            self.mib = None
