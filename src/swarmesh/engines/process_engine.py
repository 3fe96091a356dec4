"""An engine that is a child process with an HTTP API on a unix socket; every engine so far is one."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from swarmesh.core.errors import EngineStartError
from swarmesh.engines.bounded_log import BoundedLog
from swarmesh.engines.engine import EngineDoor, EngineEvent, EngineInfo
from swarmesh.engines.engine_exit import EngineExit
from swarmesh.engines.engine_process import EngineProcess
from swarmesh.engines.openai_dialect import OpenAiDialect
from swarmesh.net.address import Address
from swarmesh.wire.flow import ExecuteRequest
from swarmesh.wire.spec import WorkerSpec

START_TIMEOUT_S: Final = 900.0
"""A large model from a slow disk takes minutes; what takes longer than this will not come."""


class EngineClient(Protocol):
    """Speaks a program's API."""

    @property
    def dialect(self) -> OpenAiDialect | None:
        """See `swarmesh.engines.engine.EngineDoor`."""

    def execute(self, request: ExecuteRequest) -> AsyncGenerator[EngineEvent, None]:
        """See `swarmesh.engines.engine.Engine`."""

    async def healthy(self) -> bool:
        """See `swarmesh.engines.engine.Engine`."""

    def close(self) -> None:
        """Close kept connections."""


class Canary(Protocol):
    """Gives an engine a little work of its own."""

    async def sing(self) -> bool:
        """See `swarmesh.engines.engine.Engine.canary`."""

    def close(self) -> None:
        """Close kept connections."""


class EngineProgram(Protocol):
    """What the child runs and how it is talked to. The key never goes through argv."""

    def connect(self, door: EngineDoor) -> EngineClient:
        """A client for the API it will serve there."""

    async def launch(self, key: str, log: BoundedLog) -> EngineProcess:
        """Start it; it is to listen on the spec's engine socket. Raises EngineStartError."""

    async def serving(self, process: EngineProcess) -> EngineInfo | None:
        """Wait until it serves, and say what it is; None when it ended before. Raises EngineStartError."""


class ProcessEngine:
    """See `swarmesh.engines.engine.Engine`.

    Args:
        canary: Makes the canary of an engine that can be asked for a little work; without one its health is asked.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        log: BoundedLog,
        program: EngineProgram,
        canary: Callable[[EngineDoor], Canary] | None = None,
    ) -> None:
        self._log = log
        self._program = program
        self._socket = Path(spec.engine_socket_path)
        self._key = secrets.token_urlsafe(24)
        bearer = f"Bearer {self._key}".encode()
        self._door = EngineDoor(Address(path=spec.engine_socket_path), [(b"authorization", bearer)])
        self._client = program.connect(self._door)
        self._door = msgspec.structs.replace(self._door, dialect=self._client.dialect)
        self._canary = canary(self._door) if canary is not None else None
        self._process: EngineProcess | None = None

    async def start(self) -> EngineInfo:
        """See `Engine`."""
        # A socket that an earlier life left behind would keep the engine from listening.
        self._socket.unlink(missing_ok=True)
        self._process = await self._program.launch(self._key, self._log)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                info = await self._program.serving(self._process)
        except TimeoutError as error:
            raise EngineStartError(f"the engine did not serve within {START_TIMEOUT_S:g} s") from error
        if info is None:
            raise EngineStartError(f"the engine did not start: {(await self._process.wait_exit()).message}")
        return info

    async def stop(self) -> None:
        """See `Engine`."""
        if self._process is not None:
            await self._process.stop()
        self._client.close()
        if self._canary is not None:
            self._canary.close()
        self._socket.unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        """See `Engine`."""
        return self._process.pid if self._process is not None else 0

    @property
    def door(self) -> EngineDoor | None:
        """See `Engine`."""
        return self._door

    async def healthy(self) -> bool:
        """See `Engine`."""
        return self._process is not None and not self._process.exited and await self._client.healthy()

    async def canary(self) -> bool:
        """See `Engine`."""
        return await (self.healthy() if self._canary is None else self._canary.sing())

    def execute(self, request: ExecuteRequest) -> AsyncGenerator[EngineEvent, None]:
        """See `Engine`."""
        return self._client.execute(request)

    def kill(self) -> None:
        """See `Engine`."""
        if self._process is not None:
            self._process.kill()

    def memory_mib(self) -> int:
        """See `Engine`."""
        return self._process.memory_mib() if self._process is not None else 0

    def cpu_s(self) -> float:
        """See `Engine`."""
        return self._process.cpu_s() if self._process is not None else 0.0

    def suspended(self) -> bool:
        """See `Engine`."""
        return self._process is not None and self._process.suspended()

    async def wait_exit(self) -> EngineExit:
        """See `Engine`."""
        assert self._process is not None, "only an engine that was started ends"
        return await self._process.wait_exit()


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """What a child inherits from its agent, which was given little (see the host)."""
    return {**os.environ, **(extra or {})}
