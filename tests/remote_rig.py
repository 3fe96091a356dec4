"""The queen's session on another host, without SSH in between: `python -m swarmesh.remote` over pipes."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from rustbee_rig import LittleQueen
from shell_here import ended
from swarmesh.config.home import Home
from swarmesh.hosts.remote_process import RemoteProcess
from swarmesh.hosts.session_client import SessionClient
from swarmesh.net.server import HttpServer
from swarmesh.wire.session import LINE_BYTES_MAX, Opening, Purpose

HIVE = "0123456789ab"
SECRET = "5e" * 32
MAIN = "from swarmesh.remote.connection import main\nmain({limits})\n"


def opening(purpose: Purpose = Purpose.SESSION, **fields: Any) -> Opening:
    return Opening(**{"purpose": purpose, "hive": HIVE, "host": "mac", "secret": SECRET, **fields})


def hive_home_of(user_home: Path) -> Home:
    return Home(user_home / ".swarmesh" / "hives" / HIVE)


async def connect(
    user_home: Path, first: Opening | bytes, *, limits: str = "", before: str = "", **environment: str
) -> RemoteProcess:
    """Start it and say what the connection is for; ``before`` is Python that runs first."""
    program = ["-c", before + MAIN.format(limits=limits)] if limits or before else ["-m", "swarmesh.remote"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *program,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
        env={"PATH": os.environ["PATH"], "HOME": str(user_home), "TMPDIR": tempfile.gettempdir(), **environment},
        start_new_session=True,
    )
    remote = RemoteProcess(process, ended)
    await remote.send(first if isinstance(first, bytes) else msgspec.json.encode(first) + b"\n")
    return remote


@asynccontextmanager
async def session(user_home: Path, *, before: str = "", **fields: Any) -> AsyncIterator[SessionClient]:
    """A session as the queen has it; ended by closing its input."""
    process = await connect(user_home, b"", before=before)
    client = await SessionClient.open(process, opening(**fields))
    running = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        running.cancel()
        await asyncio.wait([running])
        await process.close()


class SocketQueen(LittleQueen):
    """A queen who is found where the session says, as through a forwarded socket."""

    def __init__(self, home: Home, path: str, next_waggle: float = 30.0) -> None:
        super().__init__(home, next_waggle)
        self._path = path

    async def start(self) -> None:
        self._server = HttpServer(self._answer)
        await self._server.listen(path=self._path)
