"""A queen's session on this machine: takes her calls, many at once, until she is gone."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import traceback
from enum import StrEnum
from functools import partial
from typing import Final

import msgspec

from swarmesh import __version__
from swarmesh.config.home import Home, write_private
from swarmesh.core.errors import InvalidValueError, SwarmeshError
from swarmesh.hosts.local import LocalHost
from swarmesh.hosts.process_identity import boot_id
from swarmesh.models.local_shelf import LocalShelf
from swarmesh.models.scan import Origin, ScanRoot, roots_of_this_machine
from swarmesh.remote.calls import Calls
from swarmesh.remote.errors import TooManyCallsError, as_foreseen
from swarmesh.remote.output import Output
from swarmesh.remote.queen_note import QueenNote
from swarmesh.wire.errors import error_body
from swarmesh.wire.session import LINE_BYTES_MAX, PROTOCOL, Call, Hello, Opening, Reply

CALLS_MAX: Final = 1_024
"""Calls in flight; one for each worker that is watched, and some."""
LOOKS: Final = 4
"""A silence is this many looks long: a process that was stopped for a while reads what has come before it judges."""
SECRET: Final = re.compile(r"[0-9a-f]{64}")
UNNUMBERED: Final = 0
"""The id of the answer to a line that is no call; calls are counted from 1."""


SOFTWARE: Final = "SWARMESH_SOFTWARE"
"""Set by `swarmesh.hosts.bootstrap`."""


class Ending(StrEnum):
    """Why a session is over."""

    CLOSED = "closed"
    """The queen has closed it, or this process was told to end."""
    SILENT = "silent"
    """She has not been heard for too long."""


class _Numbered(msgspec.Struct):
    id: int


class Session:
    """One session. What it started goes on when it ends.

    Args:
        silence_limit_s: After so long without a line from the queen it is over.
    """

    def __init__(
        self, opening: Opening, home: Home, lines: asyncio.StreamReader, output: Output, silence_limit_s: float
    ) -> None:
        _keep_secret(opening, home)
        write_private(home.host_name_file, opening.host.encode())
        self._note = QueenNote(home)
        self._lines = lines
        self._look_s = silence_limit_s / LOOKS
        self._host = opening.host or "the host"
        shelf = LocalShelf(home, roots=lambda: _places(home))
        self._calls = Calls(home, LocalHost(home, name=opening.host), shelf, self._note.write)
        self._running: dict[asyncio.Task[object], Call] = {}
        self._listening = asyncio.create_task(self._listen())
        self._output = output
        output.on_broken = self.close

    def close(self) -> None:
        """Let it end."""
        self._listening.cancel()

    async def run(self) -> Ending:
        """Serve until it is over."""
        self._write(
            Hello(
                protocol=PROTOCOL,
                version=__version__,
                pid=os.getpid(),
                boot_id=boot_id(),
                queen_socket=str(self._note.socket),
                software=os.environ.get(SOFTWARE, ""),
            )
        )
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            loop.add_signal_handler(signum, self.close)
        try:
            await asyncio.wait([self._listening])
        finally:
            for task in self._running:
                task.cancel()
            self._note.withdraw()
        return Ending.CLOSED if self._listening.cancelled() else self._listening.result()

    async def _listen(self) -> Ending:
        quiet_looks = 0
        while quiet_looks < LOOKS:
            try:
                async with asyncio.timeout(self._look_s):
                    line = await self._lines.readline()
            except TimeoutError:
                quiet_looks += 1
                continue
            except OSError:
                return Ending.CLOSED
            except ValueError:
                self._refuse(UNNUMBERED, InvalidValueError(f"a line is longer than {LINE_BYTES_MAX:,} bytes"))
                continue
            quiet_looks = 0
            if not line.endswith(b"\n"):
                return Ending.CLOSED
            self._take(line)
        return Ending.SILENT

    def _take(self, line: bytes) -> None:
        try:
            call = msgspec.json.decode(line, type=Call)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._refuse(_number_of(line), InvalidValueError(f"a line is no call: {error}"))
            return
        if len(self._running) >= CALLS_MAX:
            self._refuse(call.id, TooManyCallsError(f"{self._host} works on {CALLS_MAX:,} calls already"))
            return
        task = asyncio.create_task(self._calls.run(call.call, call.args, partial(self._report, call.id)))
        self._running[task] = call
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        call = self._running.pop(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._answer(call, task.result())
            return
        told = as_foreseen(error, f"{call.call} on {self._host}")
        if told is not error:
            traceback.print_exception(error, file=sys.stderr)
        self._refuse(call.id, told)

    def _answer(self, call: Call, result: object) -> None:
        try:
            encoded = msgspec.json.encode(result)
        except UnicodeEncodeError as error:
            self._refuse(call.id, as_foreseen(error, f"{call.call} on {self._host}"))
            return
        if len(encoded) > LINE_BYTES_MAX // 2:
            size = f"{len(encoded):,} bytes"
            self._refuse(call.id, InvalidValueError(f"the answer of {call.call} has {size}, too many for a line"))
            return
        self._write(Reply(id=call.id, result=msgspec.Raw(encoded)))

    def _refuse(self, number: int, error: SwarmeshError) -> None:
        self._write(Reply(id=number, error=error_body(error), status=error.status))

    def _report(self, number: int, done_bytes: int, total_bytes: int) -> None:
        if self._output.idle:
            note = msgspec.json.encode({"done_bytes": done_bytes, "total_bytes": total_bytes})
            self._write(Reply(id=number, progress=msgspec.Raw(note)))

    def _write(self, said: Hello | Reply) -> None:
        self._output.send(msgspec.json.encode(said) + b"\n")


def _keep_secret(opening: Opening, home: Home) -> None:
    if not opening.secret:
        return
    if not SECRET.fullmatch(opening.secret):
        raise InvalidValueError("the hive's secret is not 64 hexadecimal digits", param="secret")
    wanted = bytes.fromhex(opening.secret)
    path = home.worker_secret_file
    if not path.is_file() or path.read_bytes() != wanted:
        write_private(path, wanted)


def _places(home: Home) -> tuple[ScanRoot, ...]:
    return (*roots_of_this_machine(), ScanRoot(Origin.DIRECTORY, home.models_dir))


def _number_of(line: bytes) -> int:
    try:
        return msgspec.json.decode(line, type=_Numbered).id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return UNNUMBERED
