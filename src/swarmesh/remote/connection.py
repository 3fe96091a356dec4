"""One connection of the queen's from its first line to the end of this process."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Awaitable
from typing import Final, NoReturn, assert_never

from swarmesh.core.errors import SwarmeshError
from swarmesh.models.scan import roots_of_this_machine
from swarmesh.models.shelf import TransferBrokenError
from swarmesh.remote.errors import as_foreseen
from swarmesh.remote.opening import hive_home, read_opening
from swarmesh.remote.output import Output
from swarmesh.remote.session import Ending, Session
from swarmesh.remote.ssh_server import SshServer
from swarmesh.remote.transfer import SILENCE_LIMIT_S, open_wanted, receive_file, send_file
from swarmesh.wire.errors import envelope
from swarmesh.wire.session import LINE_BYTES_MAX, PING_INTERVAL_S, PINGS_MISSED_MAX, Purpose

SESSION_SILENCE_LIMIT_S: Final = PINGS_MISSED_MAX * PING_INTERVAL_S
LAST_LINE_S: Final = 5.0
"""How long the last line may take to be read."""


def main(
    session_silence_limit_s: float = SESSION_SILENCE_LIMIT_S, silence_limit_s: float = SILENCE_LIMIT_S
) -> NoReturn:
    """Serve the connection on standard input and output, then end this process."""
    os.umask(0o077)
    ssh_server = SshServer()
    source, sink = _taken_over()
    code = asyncio.Runner().run(_serve(source, sink, ssh_server, session_silence_limit_s, silence_limit_s))
    # Not by returning: a thread that reads gigabytes for a digest nobody waits for any more would hold the exit up.
    sys.stderr.flush()
    os._exit(code)


def _taken_over() -> tuple[int, int]:
    """Standard input and output under other numbers, so that no library and no child can read or write there."""
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return source, sink


async def _serve(source: int, sink: int, ssh_server: SshServer, session_limit_s: float, limit_s: float) -> int:
    output = Output(sink)
    try:
        opening = await asyncio.to_thread(read_opening, source, session_limit_s)
        home = hive_home(opening)
        home.make()
        match opening.purpose:
            case Purpose.SESSION:
                session = Session(opening, home, await _reader(source), output, session_limit_s)
                if await session.run() is Ending.SILENT:
                    ssh_server.end()
            case Purpose.SEND:
                file = await open_wanted(opening, home, roots_of_this_machine())
                return await _outcome(send_file(opening, file, output, limit_s))
            case Purpose.RECEIVE:
                await receive_file(opening, home, await _reader(source), output, limit_s)
            case never:
                assert_never(never)
    except (SwarmeshError, OSError) as error:
        await _tell(output, _reason(error, limit_s))
        return 1
    await _outcome(output.drain(LAST_LINE_S))
    return 0


async def _reader(source: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    file = os.fdopen(source, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    return reader


async def _outcome(last: Awaitable[None]) -> int:
    """The exit code of what nobody can be told about any more, but on standard error."""
    try:
        await last
    except (SwarmeshError, OSError) as error:
        traceback.print_exception(error, file=sys.stderr)
        return 1
    return 0


def _reason(error: SwarmeshError | OSError, limit_s: float) -> SwarmeshError:
    if isinstance(error, TimeoutError):
        return TransferBrokenError(f"nothing moved for {limit_s:g} s")
    told = as_foreseen(error, "the connection")
    if told is not error:
        traceback.print_exception(error, file=sys.stderr)
    return told


async def _tell(output: Output, error: SwarmeshError) -> None:
    output.send(envelope(error) + b"\n")
    await _outcome(output.drain(LAST_LINE_S))
