"""An engine of each kind, started for a test."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from rustbee_rig import DEMO_GGUF, make_spec
from swarmesh.config.home import Home
from swarmesh.engines.bounded_log import BoundedLog
from swarmesh.engines.engine import Engine, EngineEvent, EngineInfo, Token
from swarmesh.engines.kinds import make_engine
from swarmesh.wire.flow import ExecuteRequest
from swarmesh.wire.spec import EngineKind, WorkerSpec

USER_MODULE = '''
import asyncio

class Echo:
    """Says the words of the task, one at a time; what it is told to do otherwise, it does."""
    slots = 3
    async def start(self):
        print("ready to echo")
    async def foragexec(self, task):
        words = task.text.split()
        for index, word in enumerate(words[: task.max_tokens or len(words)]):
            if word == "fail":
                raise ValueError("told to fail")
            if word == "wait":
                await asyncio.sleep(3600)
            if word == "json":
                yield {"n": [1, 2.5, None]}
            elif word == "bytes":
                yield b"\\x89PNG"
            elif word == "child":
                yield str((await asyncio.create_subprocess_exec("sleep", "60")).pid)
            elif word == "nothing":
                yield None
            else:
                yield word if index == 0 else " " + word
class NoGenerator:
    async def foragexec(self, task):
        return "x"
class Broken(Echo):
    def __init__(self):
        raise RuntimeError("cannot be made")
'''
STAND_IN = Path(__file__).parent / "llama_server_stand_in.py"

KINDS = ["fake", "python_class", "llama_cpp", "llama_server"]
LONG_TEXT = "Recite the song of the hive."


def spec_of(kind: str, home: Home, **changes: Any) -> WorkerSpec:
    work_dir = home.worker_dir("rustbee-1")
    work_dir.mkdir(parents=True, exist_ok=True)
    fields: dict[str, Any] = {"slots": 3, "context_tokens": 1024, "engine": EngineKind(kind)}
    match kind:
        case "fake":
            fields |= {"class_path": "tokens=400,tokens_per_s=2000"}
        case "python_class":
            (work_dir / "user_code.py").write_text(USER_MODULE)
            fields |= {"class_path": "user_code:Echo", "python_path": (str(work_dir),)}
        case "llama_cpp":
            fields |= {"model_path": str(DEMO_GGUF)}
        case _:
            fields |= {"model_path": str(DEMO_GGUF), "llama_server_path": str(stand_in(home))}
    return make_spec(home, **{**fields, **changes})


def stand_in(home: Home) -> Path:
    """A program in place of llama-server: looks at how it was called, then is llama.cpp from the wheel."""
    program = home.root / "llama-server"
    program.write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
    program.chmod(0o700)
    return program


class Running:
    def __init__(self, spec: WorkerSpec, engine: Engine, info: EngineInfo) -> None:
        self.spec, self.engine, self.info = spec, engine, info


@asynccontextmanager
async def running_engine(spec: WorkerSpec) -> AsyncIterator[Running]:
    engine = make_engine(spec, BoundedLog(Path(spec.work_dir) / "engine.log"))
    try:
        yield Running(spec, engine, await engine.start())
    finally:
        await engine.stop()


async def collect(engine: Engine, request: ExecuteRequest) -> list[EngineEvent]:
    async with aclosing(engine.execute(request)) as events:
        return [event async for event in events]


def text_of(events: list[EngineEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))
