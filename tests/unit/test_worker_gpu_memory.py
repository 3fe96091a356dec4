"""What a worker says its engine holds, when that computes on a GPU. The driver is a stand-in: see `pynvml_stand_in`."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Collection

import pytest

from pynvml_stand_in import Gpu, PynvmlStandIn
from scripted_engine import ScriptedEngine
from swarmesh.engines.engine import EngineInfo
from swarmesh.hosts.nvml import process_memory
from swarmesh.wire.spec import Backend
from swarmesh.worker import gpu_memory
from swarmesh.worker.gpu_memory import FRUITLESS_LOOKS_MAX, GpuMemory
from swarmesh.worker.meter import Meter
from swarmesh.worker.supervisor import Supervisor

RESIDENT_MIB = 7
WAIT_S = 30


class Engine(ScriptedEngine):
    """Computes on what the test says, in this very process."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(pid=os.getpid())
        self.backend = backend

    async def start(self) -> EngineInfo:
        return EngineInfo(self.slots, 128, self.backend, self.pid)


class Scene:
    """Looks follow one another without a pause, and each of them, and each change of the engine, is noticed."""

    def __init__(self) -> None:
        self.happened = asyncio.Event()
        self.looks = 0
        self.running: asyncio.Task[None] | None = None

    async def look(self, pids: Callable[[], Collection[int]]) -> int | None:
        self.looks += 1
        self.happened.set()
        return await process_memory(pids)

    def supervise(self, backend: Backend) -> Supervisor:
        engine = Engine(backend)
        supervisor = Supervisor(lambda: engine, self, Meter())
        self.running = asyncio.create_task(supervisor.run())
        return supervisor

    def engine_changed(self) -> None:
        self.happened.set()

    def engine_failed(self, code: str, message: str, *, returning: bool) -> None:
        raise AssertionError((code, message, returning))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.happened.clear()
                await self.happened.wait()

    async def stop(self) -> None:
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
        for thread in threading.enumerate():
            if thread.name == "nvml":
                thread.join()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = Scene()
    monkeypatch.setattr(gpu_memory, "LOOK_INTERVAL_S", 0.0)
    monkeypatch.setattr(gpu_memory, "process_memory", made.look)
    return made


@pytest.mark.parametrize("backend", [Backend.CUDA, Backend.VULKAN])
async def test_an_engine_on_a_gpu_is_counted_there(
    backend: Backend, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(24_000, 20_000, computing={os.getpid(): 3_500})
    driver = PynvmlStandIn(gpu).install(monkeypatch)
    supervisor = scene.supervise(backend)
    await scene.until(lambda: supervisor.memory_mib() == 3_500)
    gpu.computing[os.getpid()] = 3_600
    await scene.until(lambda: supervisor.memory_mib() == 3_600)
    await scene.stop()
    assert (supervisor.memory_mib(), driver.balance) == (0, 0)


async def test_an_engine_on_the_cpu_asks_no_driver(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    PynvmlStandIn(Gpu(24_000, 20_000, computing={os.getpid(): 3_500})).install(monkeypatch)
    supervisor = scene.supervise(Backend.CPU)
    await scene.until(lambda: supervisor.serving is not None)
    await process_memory(lambda: ())  # Long enough for a look of its own.
    assert (supervisor.memory_mib(), scene.looks) == (RESIDENT_MIB, 0)
    await scene.stop()


async def test_what_the_driver_does_not_tell_is_not_asked_for_ever(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    PynvmlStandIn(Gpu(24_000, 20_000, computing={1: 3_500})).install(monkeypatch)  # Numbers from outside a container.
    memory = GpuMemory()
    async with asyncio.timeout(WAIT_S):
        await memory.follow(os.getpid())
    assert (memory.mib, scene.looks) == (None, FRUITLESS_LOOKS_MAX)


async def test_what_the_driver_does_not_tell_is_resident_memory(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    PynvmlStandIn(Gpu(24_000, 20_000), works=False).install(monkeypatch)
    supervisor = scene.supervise(Backend.CUDA)
    await scene.until(lambda: scene.looks == FRUITLESS_LOOKS_MAX)
    assert supervisor.memory_mib() == RESIDENT_MIB
    await scene.stop()


async def test_a_look_without_an_answer_is_forgiven(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(24_000, 20_000)
    PynvmlStandIn(gpu).install(monkeypatch)
    memory = GpuMemory()
    following = asyncio.create_task(memory.follow(os.getpid()))
    await scene.until(lambda: scene.looks == 2)
    gpu.computing[os.getpid()] = 100
    await scene.until(lambda: memory.mib == 100)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert memory.mib is None
    await scene.stop()
