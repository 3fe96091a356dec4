"""Keeps one engine alive: starts it, learns of its end at once, restarts it, and knows when to give up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from swarmesh.core.errors import SwarmeshError
from swarmesh.core.liveness import WorkerStatus
from swarmesh.engines.engine import Engine, EngineInfo


class RestartPolicy(msgspec.Struct, frozen=True):
    """When a failing engine is given up, and when a silent one counts as stuck.

    Attributes:
        restarts_max: Restarts within ``window_s``; one more failure is the last. Higher forgives a flaky driver, lower
            tells the owner sooner.
        look_interval_s: How often the engine is asked whether its main loop turns.
        stuck_after_s: Without an answer for so long it is killed. One batch of a large model on a slow CPU keeps the
            loop from answering, so this is minutes, not seconds.
    """

    restarts_max: int = 3
    window_s: float = 60.0
    look_interval_s: float = 5.0
    stuck_after_s: float = 120.0


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

    def __init__(self, make: Callable[[], Engine], watcher: Watcher, policy: RestartPolicy | None = None) -> None:
        self._make = make
        self._watcher = watcher
        self._policy = policy or RestartPolicy()
        self._engine: Engine | None = None
        self._failed_at_s: deque[float] = deque(maxlen=self._policy.restarts_max)
        self._stuck = False
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
        """What the engine holds."""
        return self._engine.memory_mib() if self._engine is not None else 0

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
        self._become(WorkerStatus.HEALTHY)
        how = await self._wait_end(engine)
        self._become(WorkerStatus.STARTING)
        return await self._failed("engine_stuck" if self._stuck else "engine_died", how, again=True)

    async def _wait_end(self, engine: Engine) -> str:
        self._stuck = False
        look = asyncio.get_running_loop().create_task(self._look(engine))
        try:
            return await engine.wait_exit()
        finally:
            look.cancel()

    async def _look(self, engine: Engine) -> None:
        loop = asyncio.get_running_loop()
        answered_at_s = loop.time()
        while True:
            await asyncio.sleep(self._policy.look_interval_s)
            if await engine.healthy():
                answered_at_s = loop.time()
            elif loop.time() - answered_at_s > self._policy.stuck_after_s:
                self._stuck = True
                engine.kill()
                return

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
