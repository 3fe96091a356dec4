"""One short run of a program of OpenSSH's, to its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Final

import msgspec

from swarmesh.hosts.child_process import end_child, start_child
from swarmesh.hosts.ssh_command import ssh_environment
from swarmesh.hosts.ssh_errors import SshMissingError

OUTPUT_BYTES_MAX: Final = 64 * 1024
"""Of standard output and of standard error; what comes after is read and thrown away."""
CHUNK_BYTES: Final = 16 * 1024


class ToolRun(msgspec.Struct, frozen=True):
    """How it ended: exit code, and what it said on standard output and on standard error."""

    code: int
    out: str
    said: str


async def run_tool(argv: Sequence[str], wait_s: float) -> ToolRun:
    """Run it with nothing to read. It is killed when it takes longer, or when nobody waits for it any more.

    Raises:
        SshMissingError: There is no such program here.
        TimeoutError: It took longer.
    """
    try:
        process = await start_child(
            argv, stdin=asyncio.subprocess.DEVNULL, limit_bytes=CHUNK_BYTES, env=ssh_environment(os.environ)
        )
    except OSError as error:
        raise SshMissingError(f"{argv[0]} cannot be run here: {error.strerror}") from error
    assert process.stdout is not None, "started with pipes"
    assert process.stderr is not None, "started with pipes"
    try:
        async with asyncio.timeout(wait_s):
            out, said = await asyncio.gather(_start_of(process.stdout), _start_of(process.stderr))
            await process.wait()
    except BaseException:
        end_child(process)
        await process.wait()
        raise
    return ToolRun(process.returncode or 0, out, said)


async def _start_of(stream: asyncio.StreamReader) -> str:
    kept = bytearray()
    while data := await stream.read(CHUNK_BYTES):
        kept += data[: OUTPUT_BYTES_MAX - len(kept)]
    return kept.decode("utf-8", "replace")
