"""Which engine a worker's spec asks for."""

from __future__ import annotations

from typing import Final, assert_never

from swarmesh.engines.bounded_log import BoundedLog
from swarmesh.engines.engine import Engine
from swarmesh.engines.llama_canary import LlamaCanary
from swarmesh.engines.llama_cpp import XllamacppProgram
from swarmesh.engines.llama_server import LlamaServerProgram
from swarmesh.engines.process_engine import EngineProgram, ProcessEngine
from swarmesh.engines.task_http import TaskProgram
from swarmesh.wire.spec import EngineKind, WorkerSpec

LLAMAS: Final = frozenset({EngineKind.LLAMA_CPP, EngineKind.LLAMA_SERVER})


def make_engine(spec: WorkerSpec, log: BoundedLog) -> Engine:
    """An engine that was not started yet; one object is one life of one process."""
    canary = LlamaCanary if spec.engine in LLAMAS else None
    return ProcessEngine(spec, log, _program(spec), canary)


def _program(spec: WorkerSpec) -> EngineProgram:
    match spec.engine:
        case EngineKind.LLAMA_CPP:
            return XllamacppProgram(spec)
        case EngineKind.LLAMA_SERVER:
            return LlamaServerProgram(spec)
        case EngineKind.PYTHON_CLASS:
            return TaskProgram(spec, "swarmesh.engines.python_class_child")
        case EngineKind.FAKE:
            return TaskProgram(spec, "swarmesh.engines.fake_child")
    assert_never(spec.engine)
