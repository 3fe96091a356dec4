"""The rustbee process: its parts, its life from the spec on stdin to the goodbye."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from swarmesh.core.errors import ConfigError
from swarmesh.engines.bounded_log import BoundedLog
from swarmesh.engines.kinds import make_engine
from swarmesh.hosts.agent_file import FILE_NAME
from swarmesh.hosts.process_identity import identify
from swarmesh.net.server import HttpServer, Limits
from swarmesh.wire.spec import WorkerSpec
from swarmesh.worker.journal import Journal
from swarmesh.worker.meter import Meter
from swarmesh.worker.queen_link import QueenLink
from swarmesh.worker.routes import Routes
from swarmesh.worker.self_report import SelfReport
from swarmesh.worker.supervisor import RestartPolicy, Supervisor

DRAIN_S: Final = 5.0
"""How long running tasks may take to end when the agent is asked to."""
DRAIN_LOOK_S: Final = 0.05
LAST_ALARM_S: Final = 3.0
"""How long the alarm of an agent that gives up may take to be heard."""
SOCKET_MODE: Final = 0o600
LIMITS: Final = Limits(body_bytes_max=64 * 1024 * 1024, receive_timeout_s=30.0)
"""Wider than the queen's, so that nothing she let in fails here."""


class Agent:
    """One worker. `run` returns the exit code: 0 when it was asked to end or is an orphan, 1 when it gave up."""

    def __init__(self, spec: WorkerSpec, policy: RestartPolicy | None = None) -> None:
        work_dir = Path(spec.work_dir)
        identity = identify(os.getpid())
        assert identity is not None, "this process runs"
        self._spec = spec
        self._work_dir = work_dir
        self._journal = Journal(work_dir / "agent.log")
        self._meter = Meter()
        engine_log = BoundedLog(work_dir / "engine.log")
        self._supervisor = Supervisor(lambda: make_engine(spec, engine_log), self, self._meter, policy)
        self._report = SelfReport(spec, identity, self._supervisor, self._meter)
        self._ending = asyncio.Event()
        self._link = QueenLink(spec, self._report, self._journal, self._ending.set)
        self._routes = Routes(spec.key, self._supervisor, self._meter, self._report, self._ending.set, self._link.nudge)
        self._server = HttpServer(self._routes, LIMITS)

    async def run(self) -> int:
        """Live."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unforeseen)
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._ending.set)
        self._clear_sockets()
        await self._server.listen(path=self._spec.socket_path)
        self._publish()
        self._journal.write("started", rustbee_id=self._spec.rustbee_id, modelcell=self._spec.modelcell)
        supervising = loop.create_task(self._supervisor.run(), name="supervisor")
        linking = loop.create_task(self._link.run(), name="queen link")
        ending = loop.create_task(self._ending.wait(), name="end")
        await asyncio.wait((supervising, linking, ending), return_when=asyncio.FIRST_COMPLETED)
        gave_up = supervising.done()
        if gave_up:
            await self._tell_last_alarm()
        else:
            await self._drain()
        await self._settle(supervising, linking, ending)
        if not gave_up:
            await self._link.goodbye()
        await self._server.close()
        self._vanish()
        self._journal.write("ended", gave_up=gave_up)
        return 1 if gave_up else 0

    def engine_changed(self) -> None:
        """See `swarmesh.worker.supervisor.Watcher`."""
        self._journal.write(
            "engine", status=self._supervisor.status, pid=self._supervisor.engine_pid, info=self._supervisor.info
        )
        self._report.agent_file().write(self._work_dir)
        self._link.nudge()

    def engine_failed(self, code: str, message: str, *, returning: bool) -> None:
        """See `swarmesh.worker.supervisor.Watcher`."""
        self._journal.write("engine_failed", code=code, message=message, returning=returning)
        self._link.alarm(code, message, returning=returning)

    def _publish(self) -> None:
        Path(self._spec.socket_path).chmod(SOCKET_MODE)
        self._report.agent_file().write(self._work_dir)

    def _clear_sockets(self) -> None:
        for path in (self._spec.socket_path, self._spec.engine_socket_path):
            Path(path).unlink(missing_ok=True)

    def _vanish(self) -> None:
        self._clear_sockets()
        (self._work_dir / FILE_NAME).unlink(missing_ok=True)

    async def _drain(self) -> None:
        self._supervisor.drain()
        self._routes.end_watches()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while self._meter.busy:  # noqa: ASYNC110 - a few looks at the end of a life need no machinery
                    await asyncio.sleep(DRAIN_LOOK_S)
        self._routes.cancel_all()

    async def _tell_last_alarm(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_ALARM_S):
                await self._link.flushed()

    async def _settle(self, *tasks: asyncio.Task[Any]) -> None:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                self._journal.write("unforeseen", error=repr(outcome))

    def _unforeseen(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._journal.write("unforeseen", message=str(context.get("message")), error=repr(context.get("exception")))


def read_spec(data: bytes) -> WorkerSpec:
    """The spec that was sent on stdin.

    Raises:
        ConfigError: It is none.
    """
    try:
        return msgspec.json.decode(data, type=WorkerSpec)
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"the worker's spec cannot be read: {error}", hint="'swarmesh spawn rustbee' starts a rustbee."
        ) from error


def main() -> None:
    """``python -m swarmesh.worker``: the spec comes on stdin, which is then let go of."""
    try:
        spec = read_spec(sys.stdin.buffer.read())
    except ConfigError as error:
        sys.exit(f"{error.message}. {error.hint}")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.umask(0o077)
    _forbid_core_dumps()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_live(spec))
    sys.exit(code)


def _forbid_core_dumps() -> None:
    # A crashed engine keeps its streams open for as long as its memory, gigabytes of it, is written out. One byte
    # forbids that also where the kernel hands dumps to a program, which it does with a limit of none.
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (1 if most == resource.RLIM_INFINITY else min(1, most), most))


async def _live(spec: WorkerSpec) -> int:
    return await Agent(spec).run()
