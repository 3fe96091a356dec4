"""Memory of NVIDIA GPUs as their driver's own library tells it: sooner than its tool does, and for single processes.

The library is initialised for each look and let go of after it, so that no child process inherits a state of it. Where
there is no such library, or the driver does not answer, there is no such GPU; nobody is bothered with that.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import threading
from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

from swarmesh.hosts.host import GpuFacts
from swarmesh.wire.spec import Backend

LOOK_TIMEOUT_S: Final = 5.0
"""A driver that hangs is given up; the look's thread stays behind."""
LOOKS_MAX: Final = 4
"""Looks at once, those given up included, so that a driver that hangs does not gather threads without end."""
LIBRARY: Final = "libnvidia-ml.so.1"
"""Comes with the driver."""
MIB: Final = 1024 * 1024

T = TypeVar("T")
_looks = threading.BoundedSemaphore(LOOKS_MAX)


async def find_nvidia_gpus() -> list[GpuFacts]:
    """Every NVIDIA GPU whose memory is known; none where the driver does not answer within `LOOK_TIMEOUT_S`."""
    return await _beside(nvidia_gpus) or []


async def process_memory(pids: Callable[[], Collection[int]]) -> int | None:
    """MiB that processes hold on all NVIDIA GPUs together; None where that cannot be told.

    Inside a container it often cannot: the driver knows processes by the numbers they have outside.

    Args:
        pids: Names the processes; called beside the loop, because reading them takes time.
    """
    return await _beside(lambda: process_memory_mib(pids()))


def nvidia_gpus() -> list[GpuFacts]:
    """As `find_nvidia_gpus`, blocking."""
    return _look(lambda nvml: [gpu for index, device in _devices(nvml) for gpu in _facts(nvml, index, device)])


def process_memory_mib(pids: Collection[int]) -> int | None:
    """As `process_memory`, blocking."""
    held = _look(lambda nvml: [mib for _, device in _devices(nvml) for mib in _held_bytes(nvml, device, pids)])
    return sum(held) // MIB if held else None


def _look(read: Callable[[Any], list[T]]) -> list[T]:
    """What ``read`` finds with the library; nothing where there is none, or it fails, for whatever reason."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return []
    nvml: Any = importlib.import_module("pynvml")  # Not above: it is large, and useless without a driver.
    try:
        nvml.nvmlInit()
        try:
            return read(nvml)
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError:
        return []


def _devices(nvml: Any) -> list[tuple[int, Any]]:
    devices = []
    for index in range(nvml.nvmlDeviceGetCount()):
        with contextlib.suppress(nvml.NVMLError):  # One that has fallen off its bus does not hide the others.
            devices.append((index, nvml.nvmlDeviceGetHandleByIndex(index)))
    return devices


def _facts(nvml: Any, index: int, device: Any) -> list[GpuFacts]:
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
        name = str(nvml.nvmlDeviceGetName(device))
    except nvml.NVMLError:
        return []
    return [GpuFacts(index, name, Backend.CUDA, memory.total // MIB, memory.free // MIB)]


def _held_bytes(nvml: Any, device: Any, pids: Collection[int]) -> list[int]:
    held: dict[int, int] = {}
    # Engines that compute by way of a graphics driver stand in the other list, some in both.
    for running in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        with contextlib.suppress(nvml.NVMLError):
            for process in running(device):
                if process.pid in pids and process.usedGpuMemory is not None:
                    held[process.pid] = max(held.get(process.pid, 0), process.usedGpuMemory)
    return list(held.values())


async def _beside(look: Callable[[], T]) -> T | None:
    """What a blocking look finds, from a thread that nobody waits for at the end; None when it takes too long."""
    if not _looks.acquire(blocking=False):
        return None
    loop = asyncio.get_running_loop()
    found: asyncio.Future[T] = loop.create_future()

    def tell(result: T) -> None:
        if not found.done():
            found.set_result(result)

    def run() -> None:
        try:
            result = look()
        finally:
            _looks.release()
        with contextlib.suppress(RuntimeError):  # The loop has ended meanwhile.
            loop.call_soon_threadsafe(tell, result)

    threading.Thread(target=run, name="nvml", daemon=True).start()
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            return await found
    except TimeoutError:
        return None
