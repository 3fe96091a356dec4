"""The agent's side of an engine that is Python code in a child process."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator

import msgspec

from swarmesh.engines.bounded_log import BoundedLog
from swarmesh.engines.child import order_line, read_report
from swarmesh.engines.engine import Done, EngineDoor, EngineEvent, EngineInfo
from swarmesh.engines.engine_process import EngineProcess
from swarmesh.engines.errors import EngineDiedError
from swarmesh.engines.events import read_event
from swarmesh.engines.openai_dialect import OpenAiDialect
from swarmesh.engines.process_engine import EngineClient, environment
from swarmesh.engines.refusal import engine_error
from swarmesh.net.client import HttpClient, UpstreamError
from swarmesh.wire.flow import ExecuteRequest
from swarmesh.wire.spec import WorkerSpec
from swarmesh.wire.sse import SseReader


class TaskHttp:
    """A client of `swarmesh.engines.task_server.TaskServer`."""

    def __init__(self, door: EngineDoor) -> None:
        self._client = HttpClient(door.address, headers=door.headers)
        self.dialect: OpenAiDialect | None = None

    async def execute(self, request: ExecuteRequest) -> AsyncGenerator[EngineEvent, None]:
        """See `EngineClient`."""
        whole = False
        try:
            async with self._client.stream("POST", "/execute", msgspec.json.encode(request)) as response:
                if response.status != 200:
                    raise engine_error(response.status, await response.read())
                reader = SseReader()
                async for data in response.chunks():
                    for event in map(read_event, reader.feed(data)):
                        whole = isinstance(event, Done)
                        yield event
        except UpstreamError as error:
            raise EngineDiedError(f"the engine broke off: {error.message}") from error
        if not whole:
            raise EngineDiedError("the engine ended its answer without its end mark")

    async def healthy(self) -> bool:
        """See `EngineClient`. Code that computes for an hour without awaiting is busy, not stuck: its end tells."""
        return True

    def close(self) -> None:
        """See `EngineClient`."""
        self._client.close()


class TaskProgram:
    """A module of ours that serves Python code; see `swarmesh.engines.process_engine.EngineProgram`."""

    def __init__(self, spec: WorkerSpec, module: str) -> None:
        self._spec = spec
        self._module = module

    def connect(self, door: EngineDoor) -> EngineClient:
        """See `EngineProgram`."""
        return TaskHttp(door)

    async def launch(self, key: str, log: BoundedLog) -> EngineProcess:
        """See `EngineProgram`."""
        argv = [sys.executable, "-m", self._module]
        return await EngineProcess.spawn(argv, log, stdin=order_line(self._spec, key), environment=environment())

    async def serving(self, process: EngineProcess) -> EngineInfo | None:
        """See `EngineProgram`."""
        report = read_report(await process.wait_report())
        if report is None:
            return None
        return EngineInfo(report.slots, report.context_tokens, report.backend, process.pid)
