"""Engines whose answers another one goes on with."""

from __future__ import annotations

import msgspec

from engine_rig import Running, collect
from swarmesh.engines.engine import EngineEvent
from swarmesh.wire.flow import ExecuteRequest
from swarmesh.wire.resume import Resume

KINDS = ["fake", "python_class", "llama_cpp"]
ECHO = "one two süß 🐝 蜂 six seven"


async def rest(running: Running, request: ExecuteRequest, resume: Resume) -> list[EngineEvent]:
    return await collect(running.engine, msgspec.structs.replace(request, resume=resume))
