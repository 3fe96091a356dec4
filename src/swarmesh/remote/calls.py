"""What a session can be asked to do on this machine: every call by its name, with its arguments."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import msgspec

from swarmesh.config.home import Home
from swarmesh.core.errors import InvalidValueError
from swarmesh.hosts.host import Host
from swarmesh.hosts.machine_checks import check_machine
from swarmesh.models.shelf import ModelFiles, OnBytes, Shelf
from swarmesh.remote.errors import UnknownCallError
from swarmesh.wire.spec import WorkerSpec

A = TypeVar("A")
Run = Callable[[msgspec.Raw, OnBytes], Awaitable[object]]


class _Nothing(msgspec.Struct):
    pass


class _Spec(msgspec.Struct):
    spec: WorkerSpec


class _Worker(msgspec.Struct):
    worker_id: str


class _Stop(msgspec.Struct):
    worker_id: str
    grace_s: Annotated[float, msgspec.Meta(ge=0)]


class _Tail(msgspec.Struct):
    worker_id: str
    lines_max: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 20


class _Cell(msgspec.Struct):
    modelcell: str


class _Model(msgspec.Struct):
    model: ModelFiles


class _Path(msgspec.Struct):
    path: str


class _Identify(msgspec.Struct):
    modelcell: str
    path: str


class Calls:
    """The calls of one session; ``linked`` is what the session does when the queen's socket is there."""

    def __init__(self, home: Home, host: Host, shelf: Shelf, linked: Callable[[], None]) -> None:
        self._runs: dict[str, Run] = {
            "probe": _taking(_Nothing, lambda _: host.probe()),
            "spawn": _taking(_Spec, lambda args: host.spawn(args.spec)),
            "stop": _taking(_Stop, lambda args: host.stop(args.worker_id, args.grace_s)),
            "wait_exit": _taking(_Worker, lambda args: host.wait_exit(args.worker_id)),
            "workers": _taking(_Nothing, lambda _: host.workers()),
            "tail": _taking(_Tail, lambda args: host.tail(args.worker_id, args.lines_max)),
            "linked": _taking(_Nothing, lambda _: asyncio.to_thread(linked)),
            "ping": _taking(_Nothing, lambda _: _pong()),
            "checks": _taking(_Nothing, lambda _: asyncio.to_thread(check_machine, home)),
            "path_of": _taking(_Cell, lambda args: shelf.path_of(args.modelcell)),
            "find": _taking(_Model, lambda args: shelf.find(args.model)),
            "header": _taking(_Path, lambda args: shelf.header(args.path)),
            "identify": _reporting(
                _Identify, lambda args, on_bytes: shelf.identify(args.modelcell, args.path, on_bytes)
            ),
            "keep": _taking(_Model, lambda args: shelf.keep(args.model)),
            "scan": _taking(_Nothing, lambda _: shelf.scan()),
        }

    async def run(self, name: str, args: msgspec.Raw, on_bytes: OnBytes) -> object:
        """Do what is asked; the result is something that JSON can hold.

        Raises:
            UnknownCallError: There is no such call.
            InvalidValueError: The arguments are not those of the call.
            SwarmeshError: What the call itself raises.
        """
        run = self._runs.get(name)
        if run is None:
            raise UnknownCallError(f"no call is named {name[:100]!r}")
        try:
            doing = run(args, on_bytes)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidValueError(f"the arguments of {name} cannot be understood: {error}") from error
        return await doing


def _taking(args_type: type[A], run: Callable[[A], Awaitable[object]]) -> Run:
    return lambda raw, _: run(msgspec.json.decode(raw, type=args_type))


def _reporting(args_type: type[A], run: Callable[[A, OnBytes], Awaitable[object]]) -> Run:
    return lambda raw, on_bytes: run(msgspec.json.decode(raw, type=args_type), on_bytes)


async def _pong() -> None:
    """Being answered is all there is to it."""
