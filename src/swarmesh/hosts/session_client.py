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
from swarmesh.hosts.said import UNREADABLE, plain, plain_error, plain_value, steers, told_error
from swarmesh.hosts.ssh_errors import HostLostError, HostOutdatedError, HostSetupError, HostSlowError
from swarmesh.wire.errors import ErrorBody, RemoteError
from swarmesh.wire.session import PING_INTERVAL_S, PROTOCOL, Call, Hello, Opening, Reply

PING_WAIT_S: Final = 5.0
"""Answers are late under load, but a session that says nothing for so long is as good as gone."""
PING_LOOKS: Final = 5
"""The wait is so many looks long: a queen that was held up herself reads what has come before she judges."""
HELLO_WAIT_S: Final = 30.0
"""A Python starts and imports Swarmesh, on a slow disk maybe for the first time."""
CALLS_MAX: Final = 1_000
"""Calls that wait for their answer at once: one for each worker that is watched, and some."""
CALL_LIMIT_S: Final = 30.0
"""For an answer, where nothing else is said: what is asked there takes moments."""
LIMITS_S: Final[Mapping[str, float | None]] = {
    "checks": 60.0,
    "scan": 600.0,
    "wait_exit": None,
    "identify": None,
    "keep": None,
}
"""Calls that take their time; None for as long as somebody waits. The session itself is watched by its pings."""
_SHOWN: Final = frozenset({"probe", "workers", "spawn", "checks"})
"""Calls whose answers are texts for people, not paths to be asked for again."""
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
        if steers(hello.queen_socket) or not hello.queen_socket.startswith("/"):
            raise HostSetupError(f"{opening.host} names {plain(hello.queen_socket, 100)!r} as the queen's socket")
        return cls(process, hello, opening.host)

    async def call(
        self,
        name: str,
        args: Mapping[str, Any],
        type: type[T],  # noqa: A002 - msgspec's own name for it
        on_progress: OnProgress | None = None,
        limit_s: float | None = None,
    ) -> T:
        """Have something done there; ``on_progress`` gets each note as JSON.

        ``limit_s`` is for a call that takes longer than its kind does, see `LIMITS_S`.

        Raises:
            HostLostError: The line ended first; whether it was done is not known.
            HostSlowError: The answer is too late; whether it was done is not known, and the session goes on.
            SwarmeshError: It could not be done.
        """
        if len(self._waiting) >= CALLS_MAX:
            raise ConflictError(f"{CALLS_MAX} calls to {self._host} wait for their answers already")
        limit_s = limit_s or LIMITS_S.get(name, CALL_LIMIT_S)
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._answer(name, args, on_progress)
        except TimeoutError as error:
            raise HostSlowError(f"{self._host} did not answer {name} within {limit_s:g} s") from error
        return _decoded(name, answer, type)

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
            waiting.note(bytes(reply.progress))
        elif reply.error is not None:
            waiting.answer.set_exception(_told(reply.error, reply.status))
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
        self._on_progress = on_progress

    def note(self, progress: bytes) -> None:
        if self._on_progress is None:
            return
        try:
            self._on_progress(progress)
        except UNREADABLE as error:
            self.answer.set_exception(HostSetupError(f"the host told its progress otherwise: {plain(str(error))}"))


def _told(body: ErrorBody, status: int) -> SwarmeshError:
    body = plain_error(body)
    known = _RAISED_THERE.get(body.code)
    return told_error(body, status) if known is None else known(body.message, hint=body.hint, param=body.param)


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
        value = msgspec.json.decode(result, type=type)
    except UNREADABLE as error:
        raise HostSetupError(
            f"the host answered {name} with something else: {plain(str(error))}",
            hint="Add the host again: that installs the same version.",
        ) from error
    return plain_value(value) if name in _SHOWN else value
