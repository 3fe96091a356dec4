"""Keeps one engine alive: starts it, learns of its end at once, restarts it, and knows when to give up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from swarmesh.core.errors import SwarmeshError
from swarmesh.core.liveness import WorkerStatus
from swarmesh.engines.engine import Engine, EngineInfo
from swarmesh.engines.engine_exit import EndCode, EngineExit
from swarmesh.worker.gpu_memory import COUNTED_BACKENDS, GpuMemory
from swarmesh.worker.meter import Meter
from swarmesh.worker.watchdog import Watchdog, WatchdogPolicy

END_WAIT_S: Final = 0.1
"""How long a broken stream waits to learn why: its process's end comes right after, unless only the stream broke."""


class RestartPolicy(msgspec.Struct, frozen=True):
    """When a failing engine is given up.

    Attributes:
        restarts_max: Restarts within ``window_s``; one more failure is the last. Higher forgives a flaky driver, lower
            tells the owner sooner.
    """

    restarts_max: int = 3
    window_s: float = 60.0


class Watcher(Protocol):
    """Who wants to know."""

    def engine_changed(self) -> None:
        """The status, the engine or its pid is another."""

    def engine_failed(self, code: str, message: str, *, returning: bool) -> None:
        """It did not start, or ended by itself; ``returning`` says that it is being restarted."""


class Supervisor:
    """Owns the engine.

    Attributes:
        status: ``starting`` until it serves, then ``healthy``; ``draining`` is final.
        info: What the present engine is; of the last one while there is none.
    """

    def __init__(
        self,
        make: Callable[[], Engine],
        watcher: Watcher,
        meter: Meter,
        policy: RestartPolicy | None = None,
        watchdog: WatchdogPolicy | None = None,
    ) -> None:
        self._make = make
        self._watcher = watcher
        self._meter = meter
        self._policy = policy or RestartPolicy()
        self._watchdog = watchdog or WatchdogPolicy()
        self._engine: Engine | None = None
        self._failed_at_s: deque[float] = deque(maxlen=self._policy.restarts_max)
        self._gpu_memory = GpuMemory()
        self._end: asyncio.Future[EndCode] = asyncio.get_running_loop().create_future()
        self.status = WorkerStatus.STARTING
        self.info: EngineInfo | None = None

    @property
    def serving(self) -> Engine | None:
        """The engine, while it takes tasks."""
        return self._engine if self.status is WorkerStatus.HEALTHY else None

    @property
    def engine_pid(self) -> int:
        """The engine's process, 0 while there is none."""
        return self._engine.pid if self._engine is not None else 0

    def memory_mib(self) -> int:
        """What the engine holds: of GPUs if it computes on some and that can be told, else of main memory."""
        if self._engine is None:
            return 0
        gpu_mib = self._gpu_memory.mib
        return gpu_mib if gpu_mib is not None else self._engine.memory_mib()

    async def end_reason(self) -> EndCode:
        """Why a stream of the present engine, or of the last one while there is none, just broke.

        Waits for the engine's end, which follows at once; without one, nothing speaks for a crash.
        """
        end = self._end
        await asyncio.wait((end,), timeout=END_WAIT_S)
        return end.result() if end.done() else EndCode.DIED

    async def run(self) -> None:
        """Until it is given up, which the watcher was told; cancel it to stop the engine."""
        try:
            while await self._live_once():
                continue
        finally:
            await self._stop_engine()

    def drain(self) -> None:
        """Take no new tasks, for good."""
        self.status = WorkerStatus.DRAINING
        self._watcher.engine_changed()

    async def _live_once(self) -> bool:
        first = self.info is None
        self._engine = engine = self._make()
        try:
            self.info = await engine.start()
        except SwarmeshError as error:
            # What did not start even once will not start by trying again: its file, its class or its device is wrong.
            return await self._failed(error.code, error.message, again=not first)
        self._end = asyncio.get_running_loop().create_future()
        self._become(WorkerStatus.HEALTHY)
        end = await self._wait_end(engine)
        self._end_is(end.code)
        self._become(WorkerStatus.STARTING)
        return await self._failed(end.code, end.message, again=True)

    async def _wait_end(self, engine: Engine) -> EngineExit:
        loop = asyncio.get_running_loop()
        exiting = loop.create_task(engine.wait_exit())
        watching = loop.create_task(Watchdog(engine, self._meter, self._watchdog).wait_wedged())
        counted = self.info is not None and self.info.backend in COUNTED_BACKENDS
        measuring = loop.create_task(self._gpu_memory.follow(engine.pid)) if counted else None
        try:
            await asyncio.wait((exiting, watching), return_when=asyncio.FIRST_COMPLETED)
            if exiting.done():
                return exiting.result()
            evidence = watching.result()
            # Its streams break before its end is known to anybody else.
            self._end_is(EndCode.STUCK)
            engine.kill()
            end = await exiting
            return EngineExit(EndCode.STUCK, f"the engine was stuck: {evidence}; {end.message}")
        finally:
            exiting.cancel()
            watching.cancel()
            if measuring is not None:
                measuring.cancel()

    def _end_is(self, code: EndCode) -> None:
        if not self._end.done():
            self._end.set_result(code)

    async def _failed(self, code: str, message: str, *, again: bool) -> bool:
        again = again and self._may_restart()
        self._watcher.engine_failed(code, message, returning=again)
        await self._stop_engine()
        return again

    async def _stop_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.stop()

    def _become(self, status: WorkerStatus) -> None:
        if self.status is not WorkerStatus.DRAINING:
            self.status = status
        self._watcher.engine_changed()

    def _may_restart(self) -> bool:
        now_s = asyncio.get_running_loop().time()
        full = len(self._failed_at_s) == self._policy.restarts_max
        if full and now_s - self._failed_at_s[0] <= self._policy.window_s:
            return False
        self._failed_at_s.append(now_s)
        return True
