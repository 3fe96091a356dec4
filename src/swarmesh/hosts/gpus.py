"""Which GPUs a machine has, asked of their drivers, or of the vendors' own tools."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import shutil
import sys
from typing import Final

import msgspec

from swarmesh.hosts.host import GpuFacts
from swarmesh.hosts.nvml import find_nvidia_gpus
from swarmesh.wire.spec import Backend

TOOL_TIMEOUT_S: Final = 5.0
MIB: Final = 1024 * 1024

NVIDIA_QUERY: Final = (
    "nvidia-smi",
    "--query-gpu=index,name,memory.total,memory.free",
    "--format=csv,noheader,nounits",
)
ROCM_QUERY: Final = ("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json")


async def find_gpus(total_mib: int, available_mib: int) -> tuple[GpuFacts, ...]:
    """Every GPU a worker could use. The host's memory is passed in because Apple's GPUs share it."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return (GpuFacts(0, "Apple GPU", Backend.METAL, total_mib, available_mib),)
    nvidia, rocm = await asyncio.gather(_find_nvidia(), _ask(ROCM_QUERY))
    return (*nvidia, *read_rocm(rocm))


def read_nvidia(text: str) -> list[GpuFacts]:
    """Read lines of ``index, name, total MiB, free MiB``; a line that is none (a driver's complaint) is passed over."""
    gpus = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4 and fields[0].isdigit() and fields[2].isdigit() and fields[3].isdigit():
            gpus.append(GpuFacts(int(fields[0]), fields[1], Backend.CUDA, int(fields[2]), int(fields[3])))
    return gpus


def read_rocm(text: str) -> list[GpuFacts]:
    """Read the tool's JSON: an object of cards, each an object of texts."""
    try:
        cards = msgspec.json.decode(text.encode(), type=dict[str, dict[str, str]])
    except msgspec.DecodeError:
        return []
    gpus = []
    for name, card in cards.items():
        index, total, used = (
            name.removeprefix("card"),
            card.get("VRAM Total Memory (B)", ""),
            card.get("VRAM Total Used Memory (B)", ""),
        )
        if index.isdigit() and total.isdigit() and used.isdigit():
            shown = card.get("Card Series") or card.get("Card series") or "AMD GPU"
            gpus.append(GpuFacts(int(index), shown, Backend.ROCM, int(total) // MIB, (int(total) - int(used)) // MIB))
    return gpus


async def _find_nvidia() -> list[GpuFacts]:
    return await find_nvidia_gpus() or read_nvidia(await _ask(NVIDIA_QUERY))


async def _ask(query: tuple[str, ...]) -> str:
    tool = shutil.which(query[0])
    if tool is None:
        return ""
    try:
        process = await asyncio.create_subprocess_exec(
            tool,
            *query[1:],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(TOOL_TIMEOUT_S):
            answer, _ = await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return ""
    return answer.decode("utf-8", "replace") if process.returncode == 0 else ""
