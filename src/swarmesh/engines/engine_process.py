"""An engine's operating-system process: its start, its words, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final, cast

from swarmesh.core.errors import EngineStartError
from swarmesh.engines import process_family
from swarmesh.engines.bounded_log import BoundedLog
from swarmesh.engines.engine_exit import EngineExit, read_exit

LAST_WORDS_LINES: Final = 8
LAST_WORDS_CHARS_MAX: Final = 2000
LAST_WORDS_WAIT_S: Final = 0.05
"""How long a dead process's last output is waited for; a grandchild may hold the pipe open for ever."""
REPORT_BYTES_MAX: Final = 4096
STOP_GRACE_S: Final = 3.0


class EngineProcess(asyncio.SubprocessProtocol):
    """A child process with a process group of its own, which ends with it.

    Its first line on stdout is its report that it serves; all else goes to the log.
    Its stdin stays open for as long as the agent lives: the end of it tells the child that the agent is gone.
    """

    def __init__(self, log: BoundedLog) -> None:
        self._log = log
        self._transport: asyncio.SubprocessTransport | None = None
        self._exited = asyncio.Event()
        self._pipes_closed = asyncio.Event()
        self._line = b""
        self._report: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def spawn(
        cls, argv: Sequence[str], log: BoundedLog, *, stdin: bytes, environment: Mapping[str, str]
    ) -> EngineProcess:
        """Start it and hand ``stdin`` to it.

        Raises:
            EngineStartError: The program cannot be run.
        """
        log.forget()
        try:
            transport, process = await asyncio.get_running_loop().subprocess_exec(
                lambda: cls(log), *argv, env=dict(environment), start_new_session=True
            )
        except OSError as error:
            raise EngineStartError(f"{argv[0]} cannot be run: {error.strerror}") from error
        if stdin:
            pipe = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
            pipe.write(stdin)
        return process

    @property
    def pid(self) -> int:
        """Its pid, also after its end."""
        assert self._transport is not None, "spawn returns a process that runs"
        return self._transport.get_pid() or 0

    @property
    def exited(self) -> bool:
        """Whether it has ended."""
        return self._exited.is_set()

    async def wait_report(self) -> bytes | None:
        """The first line on stdout; None when the process ended without one."""
        return await asyncio.shield(self._report)

    async def wait_exit(self) -> EngineExit:
        """How it ended, and its last words."""
        await self._exited.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_WAIT_S):
                await self._pipes_closed.wait()
        assert self._transport is not None, "what has ended was started"
        words = "\n".join(self._log.last_lines(LAST_WORDS_LINES))[-LAST_WORDS_CHARS_MAX:]
        return read_exit(self.pid, self._transport.get_returncode() or 0, words)

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End it: SIGTERM, after the grace SIGKILL."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self._exited.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._exited.wait()
        if self._transport is not None:
            self._transport.close()

    def kill(self) -> None:
        """End it at once; whoever waits for its exit learns of it as of any other."""
        self._signal(signal.SIGKILL)

    def memory_mib(self) -> int:
        """Resident memory of it and its children."""
        return process_family.memory_mib(self.pid)

    def cpu_s(self) -> float:
        """Processor time of it and its children so far."""
        return process_family.cpu_s(self.pid)

    def suspended(self) -> bool:
        """Whether a signal has stopped it."""
        return not self.exited and process_family.suspended(self.pid)

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = transport  # type: ignore[assignment]  # asyncio hands subprocess protocols this kind.

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keep what it says; a report that grows without a line end is no report, so it is logged."""
        if fd != 1 or self._report.done() or len(self._line) > REPORT_BYTES_MAX:
            self._log.write(data)
            return
        self._line += data
        if b"\n" in self._line:
            self._report.set_result(self._line.partition(b"\n")[0])

    def process_exited(self) -> None:
        """It has ended."""
        self._exited.set()
        # A user's own code may have started processes; without it they are nobody's, and hold memory.
        self._signal_group(signal.SIGKILL)
        if not self._report.done():
            self._report.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """All its pipes are closed."""
        self._pipes_closed.set()

    def _signal(self, signum: signal.Signals) -> None:
        if not self.exited:
            self._signal_group(signum)

    def _signal_group(self, signum: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)
