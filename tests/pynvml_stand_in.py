"""Stands in for the module `pynvml` and the driver behind it, on machines without an NVIDIA GPU.

It has the few functions that Swarmesh uses, with the shapes and errors of the real ones, and minds that it is
initialised when they are called.
"""
# ruff: noqa: N802 - the real module's names

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from swarmesh.hosts import nvml

MIB = 1024 * 1024


class NVMLError(Exception):
    """As the real one."""


@dataclass
class Gpu:
    """What the driver would say; None where it would say that it does not know."""

    total_mib: int | None = 0
    free_mib: int = 0
    computing: dict[int, int | None] = field(default_factory=dict)
    drawing: dict[int, int | None] = field(default_factory=dict)
    lost: bool = False


class PynvmlStandIn:
    """Put in the place of the module by `install`.

    Attributes:
        balance: How often it was initialised and not let go of.
        looks: How often it was initialised at all.
    """

    NVMLError = NVMLError

    def __init__(self, *gpus: Gpu, works: bool = True) -> None:
        self.gpus = gpus
        self.works = works
        self.balance = 0
        self.looks = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> PynvmlStandIn:
        monkeypatch.setitem(sys.modules, "pynvml", self)
        monkeypatch.setattr(nvml, "LIBRARY", None)  # This program itself: there is something to be loaded.
        return self

    def nvmlInit(self) -> None:
        self.looks += 1
        if not self.works:
            raise NVMLError("driver/library version mismatch")
        self.balance += 1

    def nvmlShutdown(self) -> None:
        assert self.balance > 0
        self.balance -= 1

    def nvmlDeviceGetCount(self) -> int:
        assert self.balance > 0
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:
        if self.gpus[index].lost:
            raise NVMLError("GPU is lost")
        return self.gpus[index]

    def nvmlDeviceGetName(self, _gpu: Gpu) -> str:
        return "NVIDIA Stand-in"

    def nvmlDeviceGetMemoryInfo(self, gpu: Gpu) -> SimpleNamespace:
        assert self.balance > 0
        if gpu.total_mib is None:
            raise NVMLError("not supported")
        return SimpleNamespace(total=gpu.total_mib * MIB, free=gpu.free_mib * MIB)

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: Gpu) -> list[SimpleNamespace]:
        return self._processes(gpu.computing)

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu: Gpu) -> list[SimpleNamespace]:
        return self._processes(gpu.drawing)

    def _processes(self, held: dict[int, int | None]) -> list[SimpleNamespace]:
        assert self.balance > 0
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=mib * MIB if mib is not None else None) for pid, mib in held.items()
        ]
