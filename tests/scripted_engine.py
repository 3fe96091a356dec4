"""An engine whose life the test decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from swarmesh.core.errors import SwarmeshError
from swarmesh.engines.engine import EngineDoor, EngineEvent, EngineInfo
from swarmesh.engines.engine_exit import EndCode, EngineExit
from swarmesh.wire.flow import ExecuteRequest
from swarmesh.wire.spec import Backend


class ScriptedEngine:
    """See `swarmesh.engines.engine.Engine`. What `execute` gives is put into `events`; an error in it is raised.

    `sings` False makes its canary wait for ever; `cpu_step_s` is what it uses between two looks at its processor time.
    """

    def __init__(self, pid: int = 100, start_error: SwarmeshError | None = None, slots: int = 2) -> None:
        self.pid = pid
        self.start_error = start_error
        self.startable = asyncio.Event()
        self.startable.set()
        self.slots = slots
        self.answers = True
        self.sings = True
        self.sung = 0
        self.stopped_by_signal = False
        self.looked_at = 0
        self.cpu_used_s = 0.0
        self.cpu_step_s = 0.0
        self.door: EngineDoor | None = None
        self.stopped = 0
        self.killed = 0
        self.left = 0
        self.running = 0
        self.requests: list[ExecuteRequest] = []
        self.events: asyncio.Queue[EngineEvent | SwarmeshError | None] = asyncio.Queue()
        self.exit: asyncio.Future[EngineExit] = asyncio.get_running_loop().create_future()

    async def start(self) -> EngineInfo:
        await self.startable.wait()
        if self.start_error is not None:
            raise self.start_error
        return EngineInfo(self.slots, 128, Backend.CPU, self.pid)

    async def stop(self) -> None:
        self.stopped += 1

    async def healthy(self) -> bool:
        return self.answers

    async def canary(self) -> bool:
        self.sung += 1
        if not self.sings:
            await asyncio.Event().wait()
        return self.answers

    async def execute(self, request: ExecuteRequest) -> AsyncGenerator[EngineEvent, None]:
        self.requests.append(request)
        self.running += 1
        try:
            while (event := await self.events.get()) is not None:
                if isinstance(event, SwarmeshError):
                    raise event
                yield event
        except (GeneratorExit, asyncio.CancelledError):
            self.left += 1
            raise
        finally:
            self.running -= 1

    def kill(self) -> None:
        self.killed += 1
        self.die("killed")

    def die(self, how: str, code: EndCode = EndCode.DIED) -> None:
        if not self.exit.done():
            self.exit.set_result(EngineExit(code, how))

    def memory_mib(self) -> int:
        return 7

    def cpu_s(self) -> float:
        self.cpu_used_s += self.cpu_step_s
        return self.cpu_used_s

    def suspended(self) -> bool:
        self.looked_at += 1
        return self.stopped_by_signal

    async def wait_exit(self) -> EngineExit:
        return await asyncio.shield(self.exit)
