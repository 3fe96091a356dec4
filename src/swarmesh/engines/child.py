"""What an agent and the Python process of its engine say to each other at the start."""

from __future__ import annotations

import io
import os
import sys
import threading

import msgspec

from swarmesh.core.errors import EngineStartError
from swarmesh.engines.tether import end_with_stdin, tie_to_parent
from swarmesh.wire.spec import Backend, WorkerSpec


class ChildOrder(msgspec.Struct, frozen=True):
    """First line on the child's stdin.

    Attributes:
        spec: The worker's, without the worker's key: an engine has no business with the queen.
        engine_key: What the agent will show on the engine's socket.
        parent_pid: The agent.
    """

    spec: WorkerSpec
    engine_key: str
    parent_pid: int


class ChildReport(msgspec.Struct, frozen=True):
    """The child's only line on stdout: it serves, and this is what it is."""

    slots: int
    context_tokens: int
    backend: Backend


class ChildChannel:
    """The child's end. Whatever the engine prints goes to stderr, which is its log, so that no print is a report."""

    def __init__(self) -> None:
        self._report_fd = os.dup(1)
        os.dup2(2, 1)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)  # A pipe is written in blocks otherwise, a print is read late.
        os.umask(0o077)
        self.order = msgspec.json.decode(sys.stdin.buffer.readline(), type=ChildOrder)
        tie_to_parent(self.order.parent_pid)

    def report(self, report: ChildReport) -> None:
        """Tell the agent that the engine serves."""
        os.write(self._report_fd, msgspec.json.encode(report) + b"\n")
        os.close(self._report_fd)

    def end_with_agent(self) -> threading.Thread:
        """From now on this process ends when the agent does; the thread that sees to it never returns."""
        return end_with_stdin()


def read_report(line: bytes | None) -> ChildReport | None:
    """What the agent makes of the child's line; None when the child ended without one.

    Raises:
        EngineStartError: It is no report.
    """
    if line is None:
        return None
    try:
        return msgspec.json.decode(line, type=ChildReport)
    except msgspec.DecodeError as error:
        raise EngineStartError(f"the engine's report cannot be read: {error}") from error


def order_line(spec: WorkerSpec, engine_key: str) -> bytes:
    """What the agent writes to a child's stdin."""
    order = ChildOrder(msgspec.structs.replace(spec, key=""), engine_key, os.getpid())
    return msgspec.json.encode(order) + b"\n"
