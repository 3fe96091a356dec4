"""One run of the remote command: the program and its order go in, lines of JSON come out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final, Protocol, TypeVar

import msgspec

from swarmesh.core.errors import SwarmeshError
from swarmesh.hosts.child_process import end_child, start_child
from swarmesh.hosts.said import UNREADABLE, plain, told_error
from swarmesh.wire.errors import ErrorEnvelope
from swarmesh.wire.session import LINE_BYTES_MAX

NOISE_LINES_MAX: Final = 1_000
"""Lines that a login may print before ours; more than any greeting has."""
STDERR_BYTES_KEPT: Final = 16 * 1024
"""Of what it said last on standard error; all of it is read, for a process that cannot write goes on no more."""
STDERR_LINES_KEPT: Final = 50
STDERR_LINE_CHARS_MAX: Final = 1024
STDERR_CHUNK_BYTES: Final = 16 * 1024
END_WAIT_S: Final = 5.0
"""What a process gets to end by itself once its input is closed."""
LAST_WORDS_S: Final = 0.5
"""How long standard error may stay open after the end: something else may hold it."""
PROGRAM: Final = files("swarmesh.hosts").joinpath("bootstrap.py").read_bytes()

Explain = Callable[[int, str], SwarmeshError]
"""Makes an exit code and what was said on standard error into an error with a code of its own."""
T = TypeVar("T")


class RemoteShell(Protocol):
    """A machine on which the remote command can be run."""

    async def start(self, order: Mapping[str, Any]) -> RemoteProcess:
        """Run the remote command with this order.

        Raises:
            SwarmeshError: It cannot be run here; what happens there is told by the process.
        """


class RemoteProcess:
    """The remote command, running. Made by `RemoteShell.start`.

    Lines before the first JSON object are a login's greeting and are passed over. An object with the one field
    ``error`` is raised wherever it comes.
    """

    def __init__(self, process: asyncio.subprocess.Process, explain: Explain) -> None:
        assert process.stdin is not None, "made by start"
        assert process.stdout is not None, "made by start"
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._explain = explain
        self._said = bytearray()
        self._heard = False
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(
        cls, argv: Sequence[str], order: Mapping[str, Any], explain: Explain, env: Mapping[str, str] | None = None
    ) -> RemoteProcess:
        """Start ``argv``, which has to run `REMOTE_COMMAND` somewhere, and tell it what to do.

        Raises:
            OSError: It cannot be started.
        """
        process = await start_child(argv, stdin=asyncio.subprocess.PIPE, limit_bytes=LINE_BYTES_MAX, env=env)
        remote = cls(process, explain)
        try:
            with contextlib.suppress(ConnectionError):  # It has ended; why, whoever reads finds out.
                await remote.send(b"%d\n%b%b\n" % (len(PROGRAM), PROGRAM, msgspec.json.encode(order)))
        except BaseException:
            remote.kill()
            raise
        return remote

    @property
    def pid(self) -> int:
        """Of the process on this machine."""
        return self._process.pid

    async def send(self, data: bytes) -> None:
        """Write to its standard input, at the pace it is read.

        Raises:
            ConnectionError: It reads no more; reading says why.
        """
        try:
            self._stdin.write(data)
        except RuntimeError as error:  # So uvloop says that the process has closed it, or is gone.
            raise BrokenPipeError("its standard input is closed") from error
        await self._stdin.drain()

    def end_input(self) -> None:
        """Nothing more will be sent."""
        self._stdin.close()

    async def line(self) -> bytes:
        """The next line of JSON.

        Raises:
            RemoteError: It says that something went wrong.
            SwarmeshError: It has ended.
        """
        for _ in range(NOISE_LINES_MAX):
            try:
                line = await self._stdout.readline()
            except (ValueError, ConnectionError) as error:
                raise await self._ended(str(error)) from error
            if not line.endswith(b"\n"):
                raise await self._ended(line.decode("utf-8", "replace"))
            if line.startswith(b"{"):
                self._heard = True
                _raise_if_error(line)
                return line
            if self._heard:
                break
        raise await self._ended("it said what is no JSON")

    async def read(self, type: type[T]) -> T:  # noqa: A002 - msgspec's own name for it
        """The next line as a value.

        Raises:
            SwarmeshError: As `line`, or it is no such value.
        """
        line = await self.line()
        try:
            return msgspec.json.decode(line, type=type)
        except UNREADABLE as error:
            raise await self._ended(f"it said something else than expected: {plain(str(error))}") from error

    async def bytes(self, size_max: int) -> bytes:
        """Raw bytes that follow the lines; empty at the end."""
        return await self._stdout.read(size_max)

    async def close(self) -> int:
        """End it, by force if it does not end by itself; its exit code."""
        self._stdin.close()
        try:
            async with asyncio.timeout(END_WAIT_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        await asyncio.wait([self._listening], timeout=LAST_WORDS_S)
        self._listening.cancel()
        return self._process.returncode or 0

    def kill(self) -> None:
        """End it at once; `close` still has to be called."""
        end_child(self._process)

    async def _ended(self, last: str) -> SwarmeshError:
        code = await self.close()
        return self._explain(code, "\n".join([*_last_lines(self._said), *_last_lines(last.encode())]).strip())

    async def _listen(self) -> None:
        assert self._process.stderr is not None, "made by start"
        while data := await self._process.stderr.read(STDERR_CHUNK_BYTES):
            self._said += data
            del self._said[:-STDERR_BYTES_KEPT]


def _last_lines(said: bytes | bytearray) -> list[str]:
    lines = said[-STDERR_BYTES_KEPT:].decode("utf-8", "replace").splitlines()[-STDERR_LINES_KEPT:]
    return [plain(line, STDERR_LINE_CHARS_MAX) for line in lines]


def _raise_if_error(line: bytes) -> None:
    if not line.startswith(b'{"error"'):
        return
    try:
        body = msgspec.json.decode(line, type=ErrorEnvelope).error
    except UNREADABLE:
        return
    raise told_error(body)
