"""GPUs and memory of a machine, as its tools tell them."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmesh.hosts.gpus import find_gpus, read_nvidia, read_rocm
from swarmesh.hosts.host import GpuFacts
from swarmesh.hosts.memory import memory_mib
from swarmesh.wire.spec import Backend


def test_nvidia_lines_become_gpus_and_complaints_do_not() -> None:
    text = "0, NVIDIA H200, 143771, 143167\nUnable to determine the device handle\n1, Tesla T4, 15360, [N/A]\n"
    assert read_nvidia(text) == [GpuFacts(0, "NVIDIA H200", Backend.CUDA, 143771, 143167)]
    assert read_nvidia("") == []


def test_rocm_json_becomes_gpus() -> None:
    text = (
        '{"card0": {"Card Series": "Radeon", "VRAM Total Memory (B)": "17163091968",'
        ' "VRAM Total Used Memory (B)": "1048576"}, "system": {"Driver version": "6.1"}}'
    )
    assert read_rocm(text) == [GpuFacts(0, "Radeon", Backend.ROCM, 16368, 16367)]
    assert read_rocm("WARNING: no GPUs") == []


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)


async def test_the_vendors_tools_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "nvidia-smi", "echo '1, NVIDIA A10, 24564, 24000'")
    program(tmp_path, "rocm-smi", "echo broken; exit 3")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert await find_gpus(100, 50) == (GpuFacts(1, "NVIDIA A10", Backend.CUDA, 24564, 24000),)


async def test_a_tool_that_hangs_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "nvidia-smi", "exec /bin/sleep 60")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("swarmesh.hosts.gpus.TOOL_TIMEOUT_S", 0.05)
    assert await find_gpus(100, 50) == ()


async def test_apples_gpus_share_the_hosts_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert await find_gpus(16000, 9000) == (GpuFacts(0, "Apple GPU", Backend.METAL, 16000, 9000),)


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    whole_total_mib, _ = memory_mib(tmp_path)
    (tmp_path / "memory.max").write_text(f"{512 * 2**20}\n")
    (tmp_path / "memory.current").write_text(f"{500 * 2**20}\n")
    assert memory_mib(tmp_path) == (512, 12)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_mib(tmp_path)[0] == whole_total_mib
