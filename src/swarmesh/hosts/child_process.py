"""Processes that the queen starts on her own machine and never leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence


async def start_child(
    argv: Sequence[str], *, stdin: int, limit_bytes: int, env: Mapping[str, str] | None
) -> asyncio.subprocess.Process:
    """Start it with pipes to read from, away from the queen's terminal: its Ctrl-C is hers, and she ends it herself.

    A caller who is cancelled meanwhile leaves none: the process is waited for until it can be ended.

    Raises:
        OSError: It cannot be started.
    """
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *argv,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=limit_bytes,
            env=env,
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            end_child(await starting)
        raise


def end_child(process: asyncio.subprocess.Process) -> None:
    """By force; harmless when it has ended. It is reaped by the event loop."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
