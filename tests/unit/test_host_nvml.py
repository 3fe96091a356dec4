"""Memory of NVIDIA GPUs. Most of it against a stand-in for the driver: see `pynvml_stand_in`."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pynvml_stand_in import Gpu, PynvmlStandIn
from swarmesh.hosts import nvml
from swarmesh.hosts.gpus import find_gpus
from swarmesh.hosts.host import GpuFacts
from swarmesh.wire.spec import Backend

Until = Callable[..., Awaitable[Any]]

NAME = "NVIDIA Stand-in"


def test_every_gpu_whose_memory_is_known_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = (Gpu(24_000, 23_000), Gpu(None), Gpu(lost=True), Gpu(8_000, 10))
    driver = PynvmlStandIn(*gpus).install(monkeypatch)
    assert nvml.nvidia_gpus() == [
        GpuFacts(0, NAME, Backend.CUDA, 24_000, 23_000),
        GpuFacts(3, NAME, Backend.CUDA, 8_000, 10),
    ]
    assert (driver.balance, driver.looks) == (0, 1)


def test_a_driver_that_fails_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = PynvmlStandIn(Gpu(24_000, 23_000), works=False).install(monkeypatch)
    assert nvml.nvidia_gpus() == []
    assert nvml.process_memory_mib({1}) is None
    assert driver.balance == 0


def test_a_failure_in_the_middle_lets_go_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = PynvmlStandIn(Gpu(24_000, 23_000)).install(monkeypatch)

    def fail() -> int:
        raise driver.NVMLError

    monkeypatch.setattr(driver, "nvmlDeviceGetCount", fail)
    assert nvml.nvidia_gpus() == []
    assert driver.balance == 0


def test_without_a_driver_the_large_module_is_not_even_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libthat-is-not-there.so.1")
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    assert nvml.nvidia_gpus() == []
    assert "pynvml" not in sys.modules


def test_the_real_module_has_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without a driver it says so in the way that is expected; on one with a driver it works."""
    module = importlib.import_module("pynvml")
    monkeypatch.setattr(nvml, "LIBRARY", None)
    for name in (name for name in vars(PynvmlStandIn) if name.startswith("nvml")):
        assert callable(getattr(module, name))
    assert all(gpu.total_mib >= gpu.free_mib >= 0 for gpu in nvml.nvidia_gpus())


def test_memory_of_processes_is_summed_over_gpus_and_counted_once_on_each(monkeypatch: pytest.MonkeyPatch) -> None:
    both_ways = Gpu(computing={10: 3_000, 11: 500, 99: 7}, drawing={10: 2_000, 98: 1})
    drawing = Gpu(drawing={10: 400})
    driver = PynvmlStandIn(both_ways, drawing, Gpu(lost=True)).install(monkeypatch)
    assert nvml.process_memory_mib({10, 11, 12}) == 3_900
    assert driver.balance == 0


@pytest.mark.parametrize("gpu", [Gpu(computing={99: 100}), Gpu(computing={10: None}), Gpu()])
def test_what_the_driver_does_not_know_is_not_zero(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    PynvmlStandIn(gpu).install(monkeypatch)
    assert nvml.process_memory_mib({10}) is None


async def test_looks_are_taken_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    PynvmlStandIn(Gpu(24_000, 23_000, computing={10: 300})).install(monkeypatch)
    asked_in: list[threading.Thread] = []

    def pids() -> set[int]:
        asked_in.append(threading.current_thread())
        return {10}

    assert await nvml.process_memory(pids) == 300
    assert asked_in != [threading.current_thread()]
    assert [gpu.total_mib for gpu in await nvml.find_nvidia_gpus()] == [24_000]


async def test_a_driver_that_hangs_is_given_up_and_gathers_no_threads(
    monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    driver = PynvmlStandIn(Gpu(24_000, 23_000)).install(monkeypatch)
    released = threading.Event()
    looking: list[threading.Thread] = []

    def hang() -> None:
        looking.append(threading.current_thread())
        released.wait()
        raise driver.NVMLError

    monkeypatch.setattr(driver, "nvmlInit", hang)
    monkeypatch.setattr(nvml, "LOOK_TIMEOUT_S", 0.01)
    try:
        for _ in range(nvml.LOOKS_MAX + 3):
            assert await nvml.find_nvidia_gpus() == []
        # A look is given up in time also where its thread has not had its turn yet.
        await until(lambda: len(looking) >= nvml.LOOKS_MAX, "every look has begun")
        assert all(thread.daemon for thread in looking)
    finally:
        released.set()
    for thread in [thread for thread in threading.enumerate() if thread.name == "nvml"]:
        thread.join()
    assert len(looking) == nvml.LOOKS_MAX
    monkeypatch.undo()
    PynvmlStandIn(Gpu(24_000, 23_000)).install(monkeypatch)
    assert len(await nvml.find_nvidia_gpus()) == 1


async def test_the_driver_is_asked_before_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '1, NVIDIA A10, 24564, 24000'\n")
    tool.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    PynvmlStandIn(Gpu(24_000, 23_000)).install(monkeypatch)
    assert await find_gpus(100, 50) == (GpuFacts(0, NAME, Backend.CUDA, 24_000, 23_000),)
    PynvmlStandIn(works=False).install(monkeypatch)
    assert await find_gpus(100, 50) == (GpuFacts(1, "NVIDIA A10", Backend.CUDA, 24564, 24000),)
