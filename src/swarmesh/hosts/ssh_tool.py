"""One short run of a program of OpenSSH's, to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence

import msgspec

from swarmesh.hosts.ssh_command import ssh_environment
from swarmesh.hosts.ssh_errors import SshMissingError


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
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=ssh_environment(os.environ),
            start_new_session=True,
        )
    except OSError as error:
        raise SshMissingError(f"{argv[0]} cannot be run here: {error.strerror}") from error
    try:
        async with asyncio.timeout(wait_s):
            out, said = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return ToolRun(process.returncode or 0, out.decode("utf-8", "replace"), said.decode("utf-8", "replace"))
