"""The queen's end of a session: many calls at once over one line, and a watch on whether anybody answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from swarmesh.core.errors import (
    ConfigError,
    ConflictError,
    EngineStartError,
    InvalidValueError,
    ModelFileError,
    NotEnoughMemoryError,
    NotFoundError,
    SwarmeshError,
)
from swarmesh.hosts.remote_process import RemoteProcess
from swarmesh.hosts.ssh_errors import HostLostError, HostOutdatedError, HostSetupError
from swarmesh.wire.errors import RemoteError
from swarmesh.wire.session import PING_INTERVAL_S, PROTOCOL, Call, Hello, Opening, Reply

PING_WAIT_S: Final = 5.0
"""Answers are late under load, but a session that says nothing for so long is as good as gone."""
PING_LOOKS: Final = 5
"""The wait is so many looks long: a queen that was held up herself reads what has come before she judges."""
HELLO_WAIT_S: Final = 30.0
"""A Python starts and imports Swarmesh, on a slow disk maybe for the first time."""
CALLS_MAX: Final = 1_000
"""Calls that wait for their answer at once: one for each worker that is watched, and some."""
_RAISED_THERE: Final = {
    error.code: error
    for error in (
        ConfigError,
        ConflictError,
        EngineStartError,
        InvalidValueError,
        ModelFileError,
        NotEnoughMemoryError,
        NotFoundError,
    )
}
"""Errors that callers tell apart by type; any other keeps its code in a `RemoteError`."""
OnProgress = Callable[[bytes], None]
T = TypeVar("T")


class SessionClient:
    """See `swarmesh.wire.session`. Somebody has to `run` it; calls are answered while that lasts."""

    def __init__(self, process: RemoteProcess, hello: Hello, host: str) -> None:
        self.hello = hello
        self._host = host
        self._process = process
        self._waiting: dict[int, _Waiting] = {}
        self._calls_made = 0
        self._over: SwarmeshError | None = None

    @classmethod
    async def open(cls, process: RemoteProcess, opening: Opening) -> SessionClient:
        """Say what the connection is for, and hear who is there.

        Raises:
            SwarmeshError: Nobody is, or one who speaks another protocol.
        """
        with contextlib.suppress(ConnectionError):  # It has ended; why, the reading finds out.
            await process.send(msgspec.json.encode(opening) + b"\n")
        try:
            async with asyncio.timeout(HELLO_WAIT_S):
                hello = await process.read(Hello)
        except TimeoutError as error:
            raise HostLostError(f"{opening.host} did not begin its session within {HELLO_WAIT_S:g} s") from error
        if hello.protocol != PROTOCOL:
            raise HostOutdatedError(
                f"{opening.host} speaks session protocol {hello.protocol}, this queennode {PROTOCOL}"
            )
        return cls(process, hello, opening.host)

    async def call(
        self,
        name: str,
        args: Mapping[str, Any],
        type: type[T],  # noqa: A002 - msgspec's own name for it
        on_progress: OnProgress | None = None,
    ) -> T:
        """Have something done there; ``on_progress`` gets each note as JSON.

        Raises:
            HostLostError: The line ended first; whether it was done is not known.
            SwarmeshError: It could not be done.
        """
        if len(self._waiting) >= CALLS_MAX:
            raise ConflictError(f"{CALLS_MAX} calls to {self._host} wait for their answers already")
        return _decoded(name, await self._answer(name, args, on_progress), type)

    async def run(self) -> SwarmeshError:
        """Take answers until the line ends, and say why it did; every call that still waits fails with that."""
        pinging = asyncio.create_task(self._ping())
        try:
            while True:
                self._take(await self._process.read(Reply))
        except SwarmeshError as error:
            self._end(error)
        finally:
            pinging.cancel()
            self._end(HostLostError(f"the session with {self._host} was closed"))
        assert self._over is not None, "ended above"
        return self._over

    async def _answer(self, name: str, args: Mapping[str, Any], on_progress: OnProgress | None = None) -> bytes:
        if self._over is not None:
            raise again(self._over)
        self._calls_made += 1
        number, waiting = self._calls_made, _Waiting(on_progress)
        self._waiting[number] = waiting
        try:
            call = Call(id=number, call=name, args=msgspec.Raw(msgspec.json.encode(args)))
            with contextlib.suppress(ConnectionError):  # Whoever runs the session learns why.
                await self._process.send(msgspec.json.encode(call) + b"\n")
            return await waiting.answer
        finally:
            self._waiting.pop(number, None)

    def _take(self, reply: Reply) -> None:
        waiting = self._waiting.get(reply.id)
        if waiting is None or waiting.answer.done():
            return  # Its caller gave up.
        if bytes(reply.progress):
            if waiting.on_progress is not None:
                waiting.on_progress(bytes(reply.progress))
        elif reply.error is not None:
            known = _RAISED_THERE.get(reply.error.code)
            waiting.answer.set_exception(
                RemoteError(reply.error, reply.status or 502)
                if known is None
                else known(reply.error.message, hint=reply.error.hint, param=reply.error.param)
            )
        else:
            waiting.answer.set_result(bytes(reply.result) or b"null")

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            answer = asyncio.create_task(self._answer("ping", {}))
            answer.add_done_callback(_look_at)
            for _ in range(PING_LOOKS):
                await asyncio.wait([answer], timeout=PING_WAIT_S / PING_LOOKS)
                if answer.done():
                    break
            else:
                self._end(HostLostError(f"{self._host} answered no ping for {PING_WAIT_S:g} s"))
                self._process.kill()
                return
            if self._over is not None:
                return

    def _end(self, error: SwarmeshError) -> None:
        if self._over is not None:
            return
        self._over = error if isinstance(error, HostLostError) else HostLostError(error.message)
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(again(self._over))


class _Waiting:
    def __init__(self, on_progress: OnProgress | None) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.on_progress = on_progress


def _look_at(answer: asyncio.Task[bytes]) -> None:
    # Whether it is an answer or an error, somebody is there; nobody else asks for it when the session is over.
    if not answer.cancelled():
        answer.exception()


def again(error: SwarmeshError) -> SwarmeshError:
    """The same error to be raised once more: each one that is raised has a trace of its own."""
    if isinstance(error, RemoteError):
        return error
    return type(error)(error.message, hint=error.hint, param=error.param)


def _decoded(name: str, result: bytes, type: type[T]) -> T:  # noqa: A002 - msgspec's own name for it
    try:
        return msgspec.json.decode(result, type=type)
    except msgspec.DecodeError as error:
        raise HostSetupError(
            f"the host answered {name} with something else: {error}",
            hint="Add the host again: that installs the same version.",
        ) from error
