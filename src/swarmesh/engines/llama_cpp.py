"""The built-in engine: llama.cpp's own server inside a Python child, from the xllamacpp wheel."""

from __future__ import annotations

import sys

from swarmesh.engines.bounded_log import BoundedLog
from swarmesh.engines.child import order_line, read_report
from swarmesh.engines.engine import EngineDoor, EngineInfo
from swarmesh.engines.engine_process import EngineProcess
from swarmesh.engines.gguf_keys import require_model
from swarmesh.engines.llama_client import LlamaClient
from swarmesh.engines.llama_devices import llama_environment
from swarmesh.engines.process_engine import environment
from swarmesh.wire.spec import WorkerSpec


class XllamacppProgram:
    """See `swarmesh.engines.process_engine.EngineProgram`."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._http: LlamaClient | None = None

    def connect(self, door: EngineDoor) -> LlamaClient:
        """See `EngineProgram`."""
        self._http = LlamaClient(door)
        return self._http

    async def launch(self, key: str, log: BoundedLog) -> EngineProcess:
        """See `EngineProgram`."""
        require_model(self._spec.model_path)
        argv = [sys.executable, "-m", "swarmesh.engines.llama_cpp_child"]
        settings = environment(llama_environment(self._spec))
        return await EngineProcess.spawn(argv, log, stdin=order_line(self._spec, key), environment=settings)

    async def serving(self, process: EngineProcess) -> EngineInfo | None:
        """See `EngineProgram`."""
        report = read_report(await process.wait_report())
        if report is None:
            return None
        assert self._http is not None, "a program is connected before it is launched"
        return await self._http.introduce(self._spec, report.backend, process.pid)
